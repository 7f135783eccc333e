-- name: insert_payment_attempt
-- One try to pay; none for a repeat under the same key, once the first has ended.
INSERT INTO payment_attempt (id, account_id, meter, method, started_by, idempotency_key,
                             request_sha256, amount_micro, unusual_confirmed, msisdn, state,
                             lapses_wall_ms, next_check_wall_ms)
VALUES (%(id)s, %(account)s, %(meter)s, %(method)s, %(started_by)s, %(key)s, %(request_sha256)s,
        %(amount_micro)s, %(unusual_confirmed)s, %(msisdn)s, 'started', %(lapses_wall_ms)s,
        %(next_check_wall_ms)s)
ON CONFLICT (started_by, idempotency_key) DO NOTHING
RETURNING id

-- name: attempt_under_key
-- What a key was used for.
SELECT id, request_sha256 FROM payment_attempt
WHERE started_by = %(started_by)s AND idempotency_key = %(key)s

-- name: payment_attempts
-- Attempts by their ids, newest first.
SELECT p.id, p.account_id, a.number, p.meter, y.currency, p.method, p.amount_micro,
       p.unusual_confirmed, p.msisdn, p.state, p.order_reference, p.going_on, p.lapses_wall_ms,
       p.asked_wall_ms, p.checks, p.next_check_wall_ms, p.provider_reference, p.told_micro,
       p.paid_ms, p.top_up_id, p.suspect_id
FROM payment_attempt p
JOIN account a ON a.id = p.account_id
JOIN tariff y ON y.id = a.tariff_id
WHERE p.id = ANY(%(ids)s::text[])
ORDER BY p.id DESC

-- name: lock_payment_attempt
-- One attempt, until what was heard of it is written.
SELECT id FROM payment_attempt WHERE id = %(id)s FOR UPDATE

-- name: attempt_of_order
-- The attempt of a channel's own name for the order.
SELECT id FROM payment_attempt
WHERE method = %(method)s AND order_reference = %(order_reference)s
ORDER BY id LIMIT 1

-- name: attempt_of_reference
-- The attempt that a payment of a channel belongs to.
SELECT id FROM payment_attempt
WHERE method = %(method)s AND provider_reference = %(reference)s

-- name: meter_of_account
-- The number of the meter that serves an account now.
SELECT m.number FROM installation i JOIN meter m ON m.id = i.meter_id
WHERE i.account_id = %(account)s ORDER BY i.opened_at DESC LIMIT 1

-- name: open_payment_attempt
-- The channel knows the order now, and the payer where to go on.
UPDATE payment_attempt
SET state = %(state)s, order_reference = %(order_reference)s, going_on = %(going_on)s,
    lapses_wall_ms = %(lapses_wall_ms)s, asked_wall_ms = %(asked_wall_ms)s,
    next_check_wall_ms = %(next_check_wall_ms)s
WHERE id = %(id)s

-- name: ask_payment_attempt
-- From now on money may move.
UPDATE payment_attempt
SET state = 'pending', msisdn = coalesce(%(msisdn)s, msisdn), asked_wall_ms = %(wall_ms)s,
    next_check_wall_ms = %(next_check_wall_ms)s, going_on = NULL
WHERE id = %(id)s

-- name: move_payment_attempt
-- What was heard, and when to ask next.
UPDATE payment_attempt
SET state = %(state)s, checks = checks + %(checks)s, next_check_wall_ms = %(next_check_wall_ms)s,
    going_on = CASE WHEN %(over)s THEN NULL ELSE going_on END
WHERE id = %(id)s

-- name: take_payment_attempt
-- The channel has the money: what it said, and what became of it.
UPDATE payment_attempt
SET state = %(state)s, provider_reference = %(reference)s, told_micro = %(told_micro)s,
    paid_ms = %(paid_ms)s, top_up_id = %(top_up)s, suspect_id = %(suspect)s,
    next_check_wall_ms = %(next_check_wall_ms)s, going_on = NULL
WHERE id = %(id)s

-- name: claim_due_attempts
-- Attempts to ask about, for one of several processes: the others find the later time.
UPDATE payment_attempt SET next_check_wall_ms = %(until_wall_ms)s
WHERE id IN (SELECT id FROM payment_attempt
             WHERE next_check_wall_ms <= %(wall_ms)s AND method = ANY(%(methods)s::text[])
             ORDER BY next_check_wall_ms
             LIMIT %(limit)s
             FOR UPDATE SKIP LOCKED)
RETURNING id

-- name: hasten_payment_attempt
-- Somebody says that there is news: ask soon, and never later than was meant.
UPDATE payment_attempt
SET next_check_wall_ms = least(next_check_wall_ms, %(next_check_wall_ms)s)
WHERE id = %(id)s AND state IN ('pending', 'unknown', 'failed', 'expired')

-- name: look_again_at_attempt
-- Nothing new was said: look again then.
UPDATE payment_attempt SET next_check_wall_ms = %(next_check_wall_ms)s
WHERE id = %(id)s AND state NOT IN ('received', 'paid')

-- name: insert_payment_step
-- One step of an attempt.
INSERT INTO payment_step (attempt_id, state, word, brought_by, detail, at_ms)
VALUES (%(id)s, %(state)s, %(word)s, %(by)s, %(detail)s, %(now_ms)s)

-- name: newest_payment_step
-- What was last said or done.
SELECT state, word FROM payment_step WHERE attempt_id = %(id)s ORDER BY id DESC LIMIT 1

-- name: payment_step_with
-- Whether this was said before.
SELECT 1 FROM payment_step WHERE attempt_id = %(id)s AND word = %(word)s AND detail = %(detail)s

-- name: payment_steps
-- Every step of attempts, in their order.
SELECT attempt_id, state, word, brought_by, detail, at_ms FROM payment_step
WHERE attempt_id = ANY(%(ids)s::text[]) ORDER BY attempt_id, id

-- name: attempts_waiting
-- Attempts of which nobody knows, or whose money is not credited, and of which nothing more is
-- asked or that are older than an instant; oldest first.
SELECT id FROM payment_attempt
WHERE state IN ('pending', 'unknown', 'received')
  AND (next_check_wall_ms IS NULL OR asked_wall_ms <= %(before_wall_ms)s)
ORDER BY id LIMIT %(limit)s

-- name: count_notification_refusal
-- One more notification that was not believed.
INSERT INTO notification_refusal (method, reason, day_ms, count)
VALUES (%(method)s, %(reason)s, %(day_ms)s, 1)
ON CONFLICT (method, reason, day_ms) DO UPDATE SET count = notification_refusal.count + 1

-- name: notification_refusals
-- Notifications that were not believed, by channel, reason and day, newest first.
SELECT method, reason, day_ms, count FROM notification_refusal
ORDER BY day_ms DESC, method, reason LIMIT %(limit)s

-- name: tracked_of_account
-- Attempts of an account, its top-ups that came by another way, and payments by another way that
-- are held or went back; newest first. Or those that one caller started; or one, by its own number
-- or by that of what it was before or became.
SELECT id, kind, other FROM (
    SELECT p.id, 'attempt' AS kind, coalesce(p.top_up_id, b.id) AS other
    FROM payment_attempt p
    LEFT JOIN suspect_payment s ON s.id = p.suspect_id
    LEFT JOIN top_up b ON b.id = s.top_up_id AND b.account_id = p.account_id
    WHERE p.account_id = %(account)s
      AND (%(of_caller)s::text IS NULL OR p.started_by = %(of_caller)s)
    UNION ALL
    SELECT t.id, 'top_up', s.id FROM top_up t
    LEFT JOIN suspect_payment s ON s.top_up_id = t.id
    WHERE t.account_id = %(account)s AND %(of_caller)s::text IS NULL
      AND NOT EXISTS (SELECT FROM payment_attempt p WHERE p.top_up_id = t.id)
      AND NOT EXISTS (SELECT FROM payment_attempt p
                      WHERE p.suspect_id = s.id AND p.account_id = t.account_id)
    UNION ALL
    SELECT s.id, 'suspect', NULL FROM suspect_payment s
    WHERE s.account_id = %(account)s AND %(of_caller)s::text IS NULL AND s.top_up_id IS NULL
      AND NOT EXISTS (SELECT FROM payment_attempt p WHERE p.suspect_id = s.id)
) found
WHERE (%(before)s::text IS NULL OR id < %(before)s)
  AND (%(id)s::text IS NULL OR %(id)s IN (id, other))
ORDER BY id DESC
LIMIT %(limit)s

-- name: suspects_by_id
-- What became of suspect payments, each with the account that its meter served, where there is one.
SELECT s.id, a.number, s.meter, y.currency, s.channel, s.amount_micro, ms_of(s.paid_at),
       ms_of(s.held_at), s.detail, s.decision, ms_of(s.decided_at), s.top_up_id
FROM suspect_payment s
LEFT JOIN account a ON a.id = s.account_id
LEFT JOIN tariff y ON y.id = a.tariff_id
WHERE s.id = ANY(%(ids)s::text[])
