-- name: claim_idempotency_key
-- The first request under a key; none for a repeat, once the first has ended.
INSERT INTO idempotency (operator_id, key, request_sha256, answered_at)
VALUES (%(operator)s, %(key)s, %(request_sha256)s, at_ms(%(now_ms)s))
ON CONFLICT (operator_id, key) DO NOTHING
RETURNING key

-- name: first_answer
-- What a key was used for, and what was answered.
SELECT request_sha256, answer FROM idempotency WHERE operator_id = %(operator)s AND key = %(key)s

-- name: keep_first_answer
-- The answer to the first request under a key.
UPDATE idempotency SET answer = %(answer)s WHERE operator_id = %(operator)s AND key = %(key)s
