-- name: insert_tariff_draft
-- A version that somebody proposes.
INSERT INTO tariff_draft (tariff_id, valid_from, body, note, state, drafted_by, drafted_at)
VALUES (%(tariff)s, %(valid_from)s, %(body)s, %(note)s, 'drafted', %(who)s, at_ms(%(now_ms)s))
RETURNING id

-- name: lock_tariff_draft
-- A draft that is about to be decided.
SELECT d.tariff_id, d.valid_from::text, d.body, d.state, d.drafted_by, d.decided_by, t.code
FROM tariff_draft d JOIN tariff t ON t.id = d.tariff_id
WHERE d.id = %(draft)s FOR UPDATE OF d

-- name: decide_tariff_draft
-- A draft is approved or withdrawn, once.
UPDATE tariff_draft SET state = %(state)s, decided_by = %(who)s, decided_at = at_ms(%(now_ms)s)
WHERE id = %(draft)s

-- name: tariff_is_used
-- Whether any account is or will be priced by a tariff.
SELECT EXISTS (SELECT FROM account WHERE tariff_id = %(tariff)s)
    OR EXISTS (SELECT FROM tariff_assignment WHERE tariff_id = %(tariff)s)

-- name: lock_tariff
-- A tariff's row: assignments and approvals of one tariff wait for each other.
SELECT id FROM tariff WHERE id = %(tariff)s FOR UPDATE

-- name: insert_tariff_assignment
-- An account's tariff from a local date on.
INSERT INTO tariff_assignment (account_id, valid_from, tariff_id, assigned_by, reason, recorded_at)
VALUES (%(account)s, %(valid_from)s, %(tariff)s, %(who)s, %(reason)s, at_ms(%(now_ms)s))
ON CONFLICT (account_id, valid_from) DO NOTHING
RETURNING account_id

-- name: tariff_assignment_at
-- What is recorded for an account and a date.
SELECT tariff_id FROM tariff_assignment
WHERE account_id = %(account)s AND valid_from = %(valid_from)s

-- name: tariff_of_account_at
-- What prices an account at a local date, by what is recorded so far.
SELECT t.code FROM account a
JOIN tariff t ON t.id = coalesce(
    (SELECT g.tariff_id FROM tariff_assignment g
     WHERE g.account_id = a.id AND g.valid_from <= %(valid_from)s
     ORDER BY g.valid_from DESC LIMIT 1), a.tariff_id)
WHERE a.id = %(account)s

-- name: calendar_of_account
-- What all tariffs of an account have in common.
SELECT t.timezone, t.currency, t.holidays
FROM account a JOIN tariff t ON t.id = a.tariff_id
WHERE a.id = %(account)s

-- name: accounts_of_tariff
-- Accounts that a tariff prices at a local date, a page of them.
SELECT a.id, a.number
FROM account a
WHERE a.id > %(after)s
  AND %(tariff)s = coalesce(
      (SELECT g.tariff_id FROM tariff_assignment g
       WHERE g.account_id = a.id AND g.valid_from <= %(day)s
       ORDER BY g.valid_from DESC LIMIT 1), a.tariff_id)
ORDER BY a.id
LIMIT %(limit)s

-- name: count_accounts_of_tariff
-- How many accounts a tariff prices at a local date.
SELECT count(*)
FROM account a
WHERE %(tariff)s = coalesce(
      (SELECT g.tariff_id FROM tariff_assignment g
       WHERE g.account_id = a.id AND g.valid_from <= %(day)s
       ORDER BY g.valid_from DESC LIMIT 1), a.tariff_id)

-- name: charged_between
-- What the energy of segments that end in a window came to, corrections included.
SELECT coalesce(-sum(customer_micro), 0)::bigint
FROM ledger_transaction
WHERE account_id = %(account)s AND kind = 'energy'
  AND at_ms > %(from_ms)s AND at_ms <= %(to_ms)s
