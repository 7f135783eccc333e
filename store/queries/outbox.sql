-- name: claim_for_meters
-- Take the oldest queued commands of meters without a gateway, one per meter: the next counter goes
-- once the one before it has gone, whoever sends.
WITH oldest AS (
    SELECT c.id FROM command c
    WHERE c.state = 'queued' AND c.gateway_id IS NULL AND c.expires_ms > %(alive_ms)s
      AND (c.claimed_until_ms IS NULL OR c.claimed_until_ms <= %(now_ms)s)
      AND NOT EXISTS (SELECT FROM command e
                      WHERE e.meter_id = c.meter_id AND e.ctr < c.ctr AND e.state = 'queued'
                        AND e.expires_ms > %(alive_ms)s)
    ORDER BY c.issued_ms
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE command c SET claimed_until_ms = %(until_ms)s
FROM oldest, meter m
WHERE c.id = oldest.id AND m.id = c.meter_id
RETURNING c.id::text, m.number, NULL::text, c.type, c.ctr, c.issued_ms, c.expires_ms, c.args

-- name: claim_for_gateways
-- The same behind gateways, each at its pace: so many that the meters have not answered within the
-- time of an answer, and a pause after each. What brings supply back goes first.
WITH ready AS (
    SELECT g.id,
           least(%(at_once)s - (SELECT count(*) FROM command c
                                WHERE c.gateway_id = g.id
                                  AND c.state IN ('sent', 'accepted', 'executing')
                                  AND c.sent_at > at_ms(%(flying_since_ms)s))
                             - (SELECT count(*) FROM command c
                                WHERE c.gateway_id = g.id AND c.state = 'queued'
                                  AND c.claimed_until_ms > %(now_ms)s),
                 CASE WHEN %(spacing_ms)s > 0 THEN 1 ELSE %(at_once)s END) AS room
    FROM gateway g
    WHERE g.next_send_ms <= %(now_ms)s
      AND EXISTS (SELECT FROM command c WHERE c.gateway_id = g.id AND c.state = 'queued'
                    AND c.expires_ms > %(alive_ms)s
                    AND (c.claimed_until_ms IS NULL OR c.claimed_until_ms <= %(now_ms)s))
    ORDER BY g.next_send_ms
    LIMIT %(limit)s
    FOR UPDATE OF g SKIP LOCKED
), picked AS (
    SELECT p.id, r.id AS gateway_id
    FROM ready r
    CROSS JOIN LATERAL (
        SELECT c.id FROM command c
        WHERE c.gateway_id = r.id AND c.state = 'queued' AND c.expires_ms > %(alive_ms)s
          AND (c.claimed_until_ms IS NULL OR c.claimed_until_ms <= %(now_ms)s)
          AND NOT EXISTS (SELECT FROM command e
                          WHERE e.meter_id = c.meter_id AND e.ctr < c.ctr AND e.state = 'queued'
                            AND e.expires_ms > %(alive_ms)s)
        ORDER BY coalesce(c.type IN ('token', 'arm') OR c.args ->> 'to' = 'close', false) DESC,
                 c.issued_ms
        LIMIT greatest(r.room, 0)
    ) p
), paced AS (
    UPDATE gateway g SET next_send_ms = %(now_ms)s + %(spacing_ms)s
    FROM (SELECT DISTINCT gateway_id FROM picked) p
    WHERE g.id = p.gateway_id
)
UPDATE command c SET claimed_until_ms = %(until_ms)s
FROM picked p, meter m, gateway g
WHERE c.id = p.id AND m.id = c.meter_id AND g.id = p.gateway_id
RETURNING c.id::text, m.number, g.number, c.type, c.ctr, c.issued_ms, c.expires_ms, c.args

-- name: release_claims
-- A dispatcher lost its broker: these go again at once. They may have been said.
UPDATE command SET claimed_until_ms = 0
WHERE id = ANY(%(ids)s::uuid[]) AND state = 'queued'

-- name: plan_retry
-- A command ended without its effect, and a new one follows.
UPDATE command SET retry_ms = %(retry_ms)s WHERE id = %(id)s::uuid

-- name: meters_to_retry
-- Meters with commands whose retry is due.
SELECT DISTINCT meter_id
FROM (SELECT meter_id FROM command WHERE retry_ms <= %(now_ms)s
      ORDER BY retry_ms LIMIT %(limit)s) AS due

-- name: retries_due
-- Commands of these meters whose retry is due; other workers' are skipped.
SELECT id::text FROM command WHERE retry_ms <= %(now_ms)s AND meter_id = ANY(%(meters)s)
ORDER BY retry_ms LIMIT %(limit)s
FOR UPDATE SKIP LOCKED

-- name: end_retries
-- Their retries are issued.
UPDATE command SET retry_ms = NULL WHERE id = ANY(%(ids)s::uuid[])

-- name: insert_dead_letter
-- Nobody tries this command any more.
INSERT INTO dead_letter (command_id, reason, recorded_at)
VALUES (%(id)s::uuid, %(reason)s, at_ms(%(now_ms)s))
ON CONFLICT (command_id) DO NOTHING

-- name: dead_letters
-- Commands that were given up, newest first: the open ones, or all.
SELECT d.id, m.number, c.id::text, c.type, c.args, c.state, c.attempt,
       coalesce(c.first_issued_ms, c.issued_ms), d.reason, ms_of(d.recorded_at), d.state,
       d.decided_by, ms_of(d.decided_at), d.note
FROM dead_letter d
JOIN command c ON c.id = d.command_id
JOIN meter m ON m.id = c.meter_id
WHERE d.state = 'open' OR %(all)s
ORDER BY d.id DESC
LIMIT %(limit)s

-- name: dead_letter_to_decide
-- A dead letter, locked, with what it takes to issue it anew.
SELECT d.state, c.id::text, c.meter_id, c.type, c.args, c.expires_ms - c.issued_ms
FROM dead_letter d JOIN command c ON c.id = d.command_id
WHERE d.id = %(letter)s
FOR UPDATE OF d

-- name: decide_dead_letter
-- A person has decided.
UPDATE dead_letter
SET state = %(state)s, decided_by = %(by)s, decided_at = at_ms(%(now_ms)s), note = %(note)s
WHERE id = %(letter)s

-- name: ignored_answers_of_command
-- Words of a meter that changed nothing, oldest first.
SELECT state, answer, ms_of(received_at) FROM ignored_answer
WHERE command_id = %(command)s::uuid ORDER BY id
