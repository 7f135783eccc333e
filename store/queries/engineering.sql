-- name: request_engineering_token
-- A request waits for a second person.
INSERT INTO engineering_token (meter_id, class, subclass, fields, reason, requested_by,
                               requested_at)
VALUES (%(meter)s, %(class)s, %(subclass)s, %(fields)s, %(reason)s, %(by)s, at_ms(%(now_ms)s))
RETURNING id

-- name: lock_engineering_token
-- A request with what was decided, and the token that came of it.
SELECT e.id, m.number, e.meter_id, e.class, e.subclass, e.fields, e.reason, e.requested_by,
       ms_of(e.requested_at), e.decision, e.decided_by, ms_of(e.decided_at), e.decision_reason,
       (SELECT k.digits FROM token k WHERE k.engineering_token_id = e.id)
FROM engineering_token e JOIN meter m ON m.id = e.meter_id
WHERE e.id = %(id)s
FOR UPDATE OF e

-- name: engineering_tokens_newest
-- Requests newest first, all or those that wait for a decision.
SELECT e.id, m.number, e.meter_id, e.class, e.subclass, e.fields, e.reason, e.requested_by,
       ms_of(e.requested_at), e.decision, e.decided_by, ms_of(e.decided_at), e.decision_reason,
       (SELECT k.digits FROM token k WHERE k.engineering_token_id = e.id)
FROM engineering_token e JOIN meter m ON m.id = e.meter_id
WHERE (NOT %(waiting)s OR e.decision IS NULL) AND (%(before)s::bigint IS NULL OR e.id < %(before)s)
ORDER BY e.id DESC LIMIT %(limit)s

-- name: decide_engineering_token
-- The second person's decision; it is made once.
UPDATE engineering_token
SET decision = %(decision)s, decided_by = %(by)s, decided_at = at_ms(%(now_ms)s),
    decision_reason = %(reason)s
WHERE id = %(id)s AND decision IS NULL
