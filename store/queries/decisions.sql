-- name: insert_decisions
-- What a batch of settlements crossed.
INSERT INTO decision (account_id, ordinal, threshold, kind, at_ms, recorded_at, balance_micro, cause,
                      guards)
SELECT account_id, ordinal, threshold, kind, at_ms, at_ms(%(now_ms)s), balance_micro, cause,
       guards::jsonb
FROM unnest(%(account_id)s::bigint[], %(ordinal)s::integer[], %(threshold)s::text[],
            %(kind)s::text[], %(at_ms)s::bigint[], %(balance_micro)s::bigint[], %(cause)s::text[],
            %(guards)s::text[])
    AS d (account_id, ordinal, threshold, kind, at_ms, balance_micro, cause, guards)

-- name: holds_ended
-- Holds whose end has come and that are not released yet.
SELECT id, account_id FROM hold
WHERE released_ms IS NULL AND until_ms <= %(now_ms)s
ORDER BY until_ms
LIMIT %(limit)s

-- name: insert_hold
-- An operator protects an account.
INSERT INTO hold (account_id, kind, from_ms, until_ms, placed_by, reason, placed_at)
VALUES (%(account)s, %(kind)s, %(from_ms)s, %(until_ms)s, %(who)s, %(reason)s, at_ms(%(now_ms)s))
RETURNING id

-- name: hold_to_release
-- The account of a hold, and what it is.
SELECT account_id, kind, from_ms, until_ms FROM hold WHERE id = %(hold)s

-- name: release_hold
-- A hold is over, once.
UPDATE hold SET released_ms = %(now_ms)s, released_by = %(who)s, release_reason = %(reason)s
WHERE id = %(hold)s AND released_ms IS NULL
RETURNING id

-- name: holds_of_account
-- The holds of an account, newest first.
SELECT id, kind, from_ms, until_ms, placed_by, reason, released_ms, released_by, release_reason
FROM hold WHERE account_id = %(account)s ORDER BY id DESC LIMIT %(limit)s

-- name: withdraw_unsent_cut
-- An order to cut that has not left the building.
UPDATE command SET state = 'superseded'
WHERE meter_id = %(meter)s AND type = 'relay' AND state = 'queued' AND args ->> 'to' = 'open'
  AND claimed_until_ms IS NULL
RETURNING id

-- name: set_low_credit
-- From which balance on an account is warned, and from how many days left; the forecast is renewed.
UPDATE account_state
SET low_credit_micro = %(threshold_micro)s, low_credit_days = %(days)s, expected_micro = 0,
    expected_until_ms = 0
WHERE account_id = %(account)s

-- name: set_low_credit_of_centre
-- The same for all accounts of a centre, from the next settlement of each on; accounts in one order.
WITH mine AS (
    SELECT s.account_id FROM account_state s JOIN account a ON a.id = s.account_id
    WHERE a.centre_id = %(centre)s ORDER BY s.account_id FOR UPDATE OF s
)
UPDATE account_state s
SET low_credit_micro = %(threshold_micro)s, low_credit_days = %(days)s, expected_micro = 0,
    expected_until_ms = 0
FROM mine WHERE mine.account_id = s.account_id

-- name: set_low_credit_of_new_accounts
-- What accounts that are opened later in a centre begin with.
UPDATE centre SET low_credit_micro = %(threshold_micro)s, low_credit_days = %(days)s
WHERE id = %(centre)s

-- name: keep_expected
-- What the days to be warned of are expected to cost, until the day is over.
UPDATE account_state SET expected_micro = %(expected_micro)s, expected_until_ms = %(until_ms)s
WHERE account_id = %(account)s

-- name: decisions_of_account
-- What was decided about an account, newest first.
SELECT ordinal, threshold, kind, at_ms, ms_of(recorded_at), balance_micro, cause, guards
FROM decision
WHERE account_id = %(account)s
ORDER BY ordinal DESC
LIMIT %(limit)s
