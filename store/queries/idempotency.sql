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

-- name: claim_customer_key
-- The first request under a customer's key; none for a repeat, once the first has ended.
INSERT INTO customer_answer (caller, key, request_sha256, answered_at)
VALUES (%(caller)s, %(key)s, %(request_sha256)s, at_ms(%(now_ms)s))
ON CONFLICT (caller, key) DO NOTHING
RETURNING key

-- name: first_customer_answer
-- What a customer's key was used for, and what was answered.
SELECT request_sha256, answer FROM customer_answer
WHERE caller = %(caller)s AND key = %(key)s

-- name: keep_customer_answer
-- The answer to the first request under a customer's key.
UPDATE customer_answer SET answer = %(answer)s WHERE caller = %(caller)s AND key = %(key)s
