-- name: insert_adjustment
-- A correction that an operator enters; no row when its number is taken.
INSERT INTO adjustment (id, account_id, amount_micro, reason, requested_by, requested_at, state,
                        decided_by, adjusted_ms)
VALUES (%(id)s, %(account)s, %(amount_micro)s, %(reason)s, %(who)s, at_ms(%(now_ms)s), %(state)s,
        %(second)s, %(adjusted_ms)s)
ON CONFLICT (id) DO NOTHING
RETURNING id

-- name: adjustment_by_id
-- One correction.
SELECT id, account_id, amount_micro, reason, requested_by, ms_of(requested_at), state, decided_by,
       adjusted_ms
FROM adjustment WHERE id = %(id)s

-- name: adjustments_of_account
-- The corrections of an account, newest first.
SELECT id, account_id, amount_micro, reason, requested_by, ms_of(requested_at), state, decided_by,
       adjusted_ms
FROM adjustment WHERE account_id = %(account)s
ORDER BY requested_at DESC, id DESC LIMIT %(limit)s

-- name: decide_adjustment
-- A second person posts or refuses a correction, once.
UPDATE adjustment SET state = %(state)s, decided_by = %(who)s, adjusted_ms = %(adjusted_ms)s
WHERE id = %(id)s AND state = 'requested'
