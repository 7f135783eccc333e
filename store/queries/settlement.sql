-- name: lock_accounts
-- The states of these accounts, locked in one order so that workers never wait in a circle. Both
-- rows: of one that is only read, a wait would leave the version from before it.
SELECT s.account_id, p.position::text, numbers, anchor_ms, opened_ms, newest_reading_ms, has_tail, settled_until_ms, due_ms,
       balance_micro, debt_micro, supply, emergency_in_use, terms_revision,
       low_credit_micro, low_credit, decided_supply, decisions,
       low_credit_days, expected_micro, expected_until_ms, zero_waits, emergency_waits
FROM account_state s JOIN account_position p ON p.account_id = s.account_id
WHERE s.account_id = ANY(%(accounts)s)
ORDER BY s.account_id
FOR UPDATE

-- name: read_account_state
-- The state of one account, unlocked.
SELECT s.account_id, p.position::text, numbers, anchor_ms, opened_ms, newest_reading_ms, has_tail, settled_until_ms,
       due_ms, balance_micro, debt_micro, supply, emergency_in_use, terms_revision,
       low_credit_micro, low_credit, decided_supply, decisions,
       low_credit_days, expected_micro, expected_until_ms, zero_waits, emergency_waits
FROM account_state s JOIN account_position p ON p.account_id = s.account_id
WHERE s.account_id = %(account)s

-- name: lock_due_accounts
-- Accounts for which time alone may have changed something; other workers' are skipped.
SELECT s.account_id, p.position::text, numbers, anchor_ms, opened_ms, newest_reading_ms, has_tail, settled_until_ms, due_ms,
       balance_micro, debt_micro, supply, emergency_in_use, terms_revision,
       low_credit_micro, low_credit, decided_supply, decisions,
       low_credit_days, expected_micro, expected_until_ms, zero_waits, emergency_waits
FROM account_state s JOIN account_position p ON p.account_id = s.account_id
WHERE due_ms <= %(now_ms)s
ORDER BY due_ms
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED

-- name: terms_of_accounts
-- Everything that prices accounts, as the mappings of rating.md section 10: the tariff as text, the
-- same for all accounts that share it, and the account's own terms; with a shared tariff also which
-- it is, and its edition: how many versions it has, and its holidays. No version ever changes.
WITH asked AS MATERIALIZED (
    SELECT a.id, a.tariff_id, a.terms::text AS terms,
           EXISTS (SELECT FROM tariff_assignment s WHERE s.account_id = a.id) AS assigned
    FROM account a WHERE a.id = ANY(%(accounts)s::bigint[])
), shared AS MATERIALIZED (
    SELECT t.id,
           (SELECT count(*) FROM tariff_version v WHERE v.tariff_id = t.id)
               || md5(t.holidays::text) AS edition,
           jsonb_build_object(
               'timezone', t.timezone, 'currency', t.currency, 'holidays', t.holidays,
               'tariff', jsonb_build_object('versions', coalesce(
                   (SELECT jsonb_agg(v.body || jsonb_build_object('valid_from', v.valid_from::text)
                                     ORDER BY v.valid_from)
                    FROM tariff_version v WHERE v.tariff_id = t.id), '[]')))::text AS form
    FROM tariff t WHERE t.id IN (SELECT tariff_id FROM asked WHERE NOT assigned)
)
SELECT a.id, s.form, a.terms, s.id, s.edition FROM asked a JOIN shared s ON s.id = a.tariff_id WHERE NOT a.assigned
UNION ALL
SELECT a.id, jsonb_build_object(
           'timezone', t.timezone, 'currency', t.currency, 'holidays', t.holidays,
           'tariff', jsonb_build_object('versions', coalesce(
               (SELECT jsonb_agg(v.body || jsonb_build_object('valid_from', v.valid_from::text)
                                 ORDER BY v.valid_from)
                FROM account_version v WHERE v.account_id = a.id), '[]')))::text, a.terms, NULL, NULL
FROM asked a JOIN tariff t ON t.id = a.tariff_id WHERE a.assigned

-- name: installations_of_accounts
-- The meters of accounts in their order; the first opens one, each later one is an exchange.
SELECT i.account_id, m.number, ms_of(i.opened_at) AS opened_ms, i.opening_wh, i.closing_wh,
       i.max_power_w, i.modulus_wh
FROM installation i JOIN meter m ON m.id = i.meter_id
WHERE i.account_id = ANY(%(accounts)s)
ORDER BY i.account_id, i.opened_at

-- name: readings_after
-- Billable facts of accounts, each after an instant of its own: its meters' readings of the total, while
-- they were its. The first of these instants is a plain parameter, so that the planner leaves out the
-- chunks before it. `OFFSET 0`: account by account, whatever the planner makes of their number.
SELECT q.account_id, f.*
FROM unnest(%(accounts)s::bigint[], %(after)s::bigint[]) AS q (account_id, after_ms)
CROSS JOIN LATERAL (
    SELECT m.number, ms_of(r.ts) AS ts_ms, r.value_wh, r.verdict
    FROM (SELECT DISTINCT meter_id FROM installation WHERE account_id = q.account_id) mine
    JOIN meter m ON m.id = mine.meter_id
    JOIN reading r ON r.meter_id = m.id
    WHERE r.register = '1.8.0' AND r.clock <> 'lost' AND r.verdict IS DISTINCT FROM 'untrusted'
      AND r.ts > at_ms(%(first_ms)s) AND r.ts > at_ms(q.after_ms)
      -- a meter that served several accounts: the installation begun last before the reading counts
      AND q.account_id = (SELECT i.account_id FROM installation i WHERE i.meter_id = m.id
                          ORDER BY i.opened_at < r.ts DESC,
                                   CASE WHEN i.opened_at < r.ts THEN i.opened_at END DESC,
                                   i.opened_at
                          LIMIT 1)
    OFFSET 0
) f
ORDER BY q.account_id, f.ts_ms

-- name: top_ups_from
-- Top-ups of accounts, each at or after an instant of its own.
SELECT q.account_id, t.id, t.credited_ms, t.amount_micro, t.channel, t.cash_rounding_micro
FROM unnest(%(accounts)s::bigint[], %(from)s::bigint[]) AS q (account_id, from_ms)
JOIN top_up t ON t.account_id = q.account_id AND t.credited_ms >= q.from_ms

-- name: reversals_from
-- Reversals of accounts, each at or after an instant of its own, with their top-ups.
SELECT q.account_id, r.top_up_id, r.reversed_ms, t.credited_ms, t.channel
FROM unnest(%(accounts)s::bigint[], %(from)s::bigint[]) AS q (account_id, from_ms)
JOIN reversal r ON r.account_id = q.account_id AND r.reversed_ms >= q.from_ms
JOIN top_up t ON t.id = r.top_up_id

-- name: posted_of_key
-- What the ledger holds under one key that is not of energy.
SELECT legs, amounts FROM ledger_posting WHERE account_id = %(account)s AND key = %(key)s

-- name: emergency_requests_from
-- Requests for emergency credit of accounts, each at or after an instant of its own.
SELECT q.account_id, e.requested_ms
FROM unnest(%(accounts)s::bigint[], %(from)s::bigint[]) AS q (account_id, from_ms)
JOIN emergency_request e ON e.account_id = q.account_id AND e.requested_ms >= q.from_ms

-- name: adjustments_from
-- Posted adjustments of accounts, each at or after an instant of its own.
SELECT q.account_id, a.id, a.adjusted_ms, a.amount_micro, a.reason, a.to_debt
FROM unnest(%(accounts)s::bigint[], %(from)s::bigint[]) AS q (account_id, from_ms)
JOIN adjustment a ON a.account_id = q.account_id AND a.adjusted_ms >= q.from_ms

-- name: posted_from
-- What the ledger holds of accounts, each from an anchor of its own on; energy that ends at the
-- anchor lies before it. `OFFSET 0`: without it, every row of the ledger would be looked at.
SELECT q.account_id, t.*
FROM unnest(%(accounts)s::bigint[], %(from)s::bigint[]) AS q (account_id, anchor_ms)
CROSS JOIN LATERAL (
    SELECT id, key, correction, legs, amounts, energy_wh, kind, from_ms, at_ms, local_day, band
    FROM ledger_transaction
    WHERE account_id = q.account_id AND at_ms >= q.anchor_ms
      AND (at_ms > q.anchor_ms OR kind <> 'energy')
    OFFSET 0
) t
ORDER BY q.account_id, t.id

-- name: checkpoints_before
-- Of each account the newest stored position before an instant of its own.
SELECT q.account_id, c.position
FROM unnest(%(accounts)s::bigint[], %(before)s::bigint[]) AS q (account_id, before_ms)
CROSS JOIN LATERAL (SELECT position FROM checkpoint
                    WHERE account_id = q.account_id AND anchor_ms < q.before_ms
                    ORDER BY anchor_ms DESC LIMIT 1) c

-- name: drop_checkpoints_after
-- Positions that late facts have overtaken, of each account after an instant of its own.
DELETE FROM checkpoint c
USING unnest(%(accounts)s::bigint[], %(after)s::bigint[]) AS q (account_id, after_ms)
WHERE c.account_id = q.account_id AND c.anchor_ms > q.after_ms

-- name: drop_checkpoints_before
-- Positions from before an instant whose readings are no longer kept; that of an account itself
-- needs none before it, and stays.
DELETE FROM checkpoint c USING account_state s
WHERE s.account_id = c.account_id AND c.anchor_ms < least(%(before_ms)s, s.anchor_ms)

-- name: keep_checkpoints
-- New positions to rate again from.
INSERT INTO checkpoint (account_id, anchor_ms, position)
SELECT account_id, anchor_ms, position::json
FROM unnest(%(accounts)s::bigint[], %(anchors)s::bigint[], %(positions)s::text[])
    AS c (account_id, anchor_ms, position)
ON CONFLICT (account_id, anchor_ms) DO UPDATE SET position = excluded.position

-- name: update_accounts
-- What the engine made of the new facts, for a whole batch.
WITH n AS (
    SELECT * FROM unnest(
        %(account_id)s::bigint[], %(position)s::text[], %(anchor_ms)s::bigint[],
        %(newest_reading_ms)s::bigint[], %(has_tail)s::boolean[], %(settled_until_ms)s::bigint[],
        %(due_ms)s::bigint[], %(balance_micro)s::bigint[], %(debt_micro)s::bigint[],
        %(supply)s::text[], %(emergency_in_use)s::boolean[], %(low_credit)s::boolean[],
        %(decided_supply)s::text[], %(decisions)s::bigint[],
        %(zero_waits)s::boolean[], %(emergency_waits)s::boolean[])
    AS n (account_id, position, anchor_ms, newest_reading_ms, has_tail, settled_until_ms, due_ms,
          balance_micro, debt_micro, supply, emergency_in_use, low_credit, decided_supply,
          decisions, zero_waits, emergency_waits)),
positions AS (
    UPDATE account_position p SET position = n.position::json
    FROM n WHERE p.account_id = n.account_id)
UPDATE account_state s
SET numbers = NULL, anchor_ms = n.anchor_ms,
    newest_reading_ms = n.newest_reading_ms, has_tail = n.has_tail,
    settled_until_ms = n.settled_until_ms, due_ms = n.due_ms,
    balance_micro = n.balance_micro, debt_micro = n.debt_micro, supply = n.supply,
    emergency_in_use = n.emergency_in_use, low_credit = n.low_credit,
    decided_supply = n.decided_supply, decisions = n.decisions,
    zero_waits = n.zero_waits, emergency_waits = n.emergency_waits
FROM n
WHERE s.account_id = n.account_id

-- name: create_account_state
-- The state of a new account, before its first settlement; it is warned as its centre says.
WITH begun AS (
    INSERT INTO account_position (account_id, position)
    VALUES (%(account)s, %(position)s::json))
INSERT INTO account_state (account_id, anchor_ms, opened_ms, newest_reading_ms, has_tail,
                           settled_until_ms, due_ms, balance_micro, debt_micro, supply,
                           emergency_in_use, low_credit_micro, low_credit_days)
SELECT a.id, %(anchor_ms)s, %(opened_ms)s, %(opened_ms)s, true,
       %(opened_ms)s, %(opened_ms)s, 0, 0, 'connected', false,
       coalesce(c.low_credit_micro, 20000000), c.low_credit_days
FROM account a JOIN centre c ON c.id = a.centre_id WHERE a.id = %(account)s

-- name: update_verdicts
-- Readings that a fact from before them judges otherwise.
UPDATE reading r SET verdict = n.verdict
FROM unnest(%(meters)s::text[], %(ts)s::bigint[], %(verdicts)s::text[]) AS n (number, ts_ms, verdict)
JOIN meter m ON m.number = n.number
WHERE r.meter_id = m.id AND r.register = '1.8.0' AND r.ts = at_ms(n.ts_ms)
  AND r.ts BETWEEN at_ms(%(first_ms)s) AND at_ms(%(last_ms)s)

-- name: ledger_accounts
-- The chart of accounts.
SELECT code, id FROM ledger_account

-- name: add_ledger_accounts
-- Codes that a tariff or a payment channel brings.
INSERT INTO ledger_account (code) SELECT unnest(%(codes)s::text[]) ON CONFLICT (code) DO NOTHING

-- name: copy_ledger
-- New transactions, in the order in which they are recorded; rows as `store.ledger` packs them.
COPY ledger_posting (account_id, correction, at_ms, recorded_at, energy_wh, local_day,
                         customer_micro, balance_micro, from_ms, corrects, key, kind, band, legs,
                         amounts, explanation)
FROM STDIN (FORMAT BINARY)
