-- name: meter_of_account
-- The meter that serves an account now, with what it should do and what it said; none once that
-- meter was taken to another account.
SELECT m.id, m.number, s.desired_relay, s.reported_relay
FROM installation i
JOIN meter m ON m.id = i.meter_id
JOIN meter_state s ON s.meter_id = m.id
WHERE (i.account_id, i.opened_at) = (SELECT account_id, opened_at FROM installation
                                     WHERE account_id = %(account)s
                                     ORDER BY opened_at DESC LIMIT 1)
  AND i.account_id = (SELECT account_id FROM installation later WHERE later.meter_id = i.meter_id
                      ORDER BY later.opened_at DESC LIMIT 1)

-- name: desire_relay
-- A new relay intention; no row when it is the intention already.
UPDATE meter_state
SET desired_relay = %(relay)s, desired_version = desired_version + 1
WHERE meter_id = %(meter)s AND desired_relay <> %(relay)s
RETURNING desired_version

-- name: next_ctr
-- The meter's next command counter; it only grows.
UPDATE meter_state SET next_ctr = next_ctr + 1 WHERE meter_id = %(meter)s RETURNING next_ctr - 1

-- name: insert_command
-- A queued command is the outbox row: the dispatcher sends it until the meter answers or it expires.
INSERT INTO command (id, meter_id, ctr, type, args, issued_ms, expires_ms)
VALUES (%(id)s, %(meter)s, %(ctr)s, %(type)s, %(args)s, %(issued_ms)s, %(expires_ms)s)

-- name: supersede_relay_commands
-- One outstanding relay intention per meter: older ones are over.
UPDATE command SET state = 'superseded'
WHERE meter_id = %(meter)s AND type = 'relay' AND state IN ('queued', 'sent', 'accepted', 'unknown')

-- name: queued_commands
-- The outbox, oldest first, and a meter's commands in the order of their counters: credit under an
-- old key must not come behind the set that ends it.
SELECT c.id::text, m.number, g.number, c.type, c.ctr, c.issued_ms, c.expires_ms, c.args
FROM command c
JOIN meter m ON m.id = c.meter_id
LEFT JOIN gateway g ON g.id = m.gateway_id
WHERE c.state = 'queued'
ORDER BY c.issued_ms, c.ctr
LIMIT %(limit)s

-- name: mark_sent
-- The broker has these; only the meter's own answer goes further.
UPDATE command SET state = 'sent', sent_at = at_ms(%(now_ms)s)
WHERE id = ANY(%(ids)s::uuid[]) AND state = 'queued'

-- name: mark_delivering
-- Tokens on their way.
UPDATE top_up t SET delivered_at = at_ms(%(now_ms)s)
FROM token k
WHERE k.command_id = ANY(%(ids)s::uuid[]) AND t.id = k.top_up_id AND t.delivered_at IS NULL

-- name: answer_command
-- A meter's word on a command; a final state stays.
UPDATE command c
SET state = %(state)s, answered_at = at_ms(%(now_ms)s), answer = %(answer)s
FROM meter m
WHERE c.id = %(id)s::uuid AND m.id = c.meter_id AND m.number = %(meter)s
  AND c.state IN ('queued', 'sent', 'accepted', 'executing', 'unknown')
RETURNING c.type

-- name: command_exists
-- Whether this meter was ever given this command.
SELECT EXISTS (SELECT FROM command c JOIN meter m ON m.id = c.meter_id
               WHERE c.id = %(id)s::uuid AND m.number = %(meter)s)

-- name: answer_tokens
-- What the meter said to the tokens of a command, in their order. It said it to the digits: whatever
-- else printed or carries them is answered too, and a late word on an old command still counts.
UPDATE token k
SET result = n.result, answered_at = at_ms(%(now_ms)s)
FROM command c,
     jsonb_array_elements_text(c.args -> 'tokens') WITH ORDINALITY AS d (digits, place),
     unnest(%(results)s::text[]) WITH ORDINALITY AS n (result, place)
WHERE c.id = %(command)s::uuid AND n.place = d.place
  AND k.digits = d.digits AND k.meter_id = c.meter_id
  AND (k.result IS NULL OR k.result NOT IN ('Accept', 'UsedError'))
RETURNING k.top_up_id, k.key_change_id, k.class, k.result

-- name: conclude_top_ups
-- A top-up is accepted when its credit was, rejected when that was refused. A key change set before
-- it is the way there: a meter that has taken the set already cannot read it any more. Of a token
-- and its replacement one is credited: either of them accepts, and only the newer one refuses.
UPDATE top_up t
SET accepted_at = CASE WHEN r.accepted THEN coalesce(t.accepted_at, at_ms(%(now_ms)s)) END,
    rejected_at = CASE WHEN r.refused THEN coalesce(t.rejected_at, at_ms(%(now_ms)s)) END
FROM (SELECT k.top_up_id,
             bool_or(k.result IN ('Accept', 'UsedError')) AS accepted,
             bool_or(k.result NOT IN ('Accept', 'UsedError') AND p.token_id IS NULL)
                 AND NOT coalesce(bool_or(k.result IN ('Accept', 'UsedError')), false) AS refused
      FROM token k
      LEFT JOIN token_replacement p ON p.replaced_token_id = k.id
      WHERE k.top_up_id = ANY(%(top_ups)s) AND k.class = 0
      GROUP BY k.top_up_id) r
WHERE t.id = r.top_up_id

-- name: mark_on_supply
-- The meter itself reports closed: the stopwatch of each top-up that waited for it stops.
UPDATE top_up SET on_supply_at = at_ms(%(now_ms)s)
WHERE meter_id = ANY(%(meters)s) AND on_supply_at IS NULL

-- name: expire_commands
-- Unsaid at expiry is expired; said and unanswered is unknown, until the meter is read.
UPDATE command
SET state = CASE state WHEN 'queued' THEN 'expired' ELSE 'unknown' END
WHERE state IN ('queued', 'sent', 'accepted', 'executing') AND expires_ms <= %(now_ms)s
RETURNING id::text, meter_id, type, state

-- name: unreconciled_meters
-- Accounts whose meter was heard after the last order and reports another relay than desired.
SELECT i.account_id
FROM meter_state s
JOIN LATERAL (SELECT account_id FROM installation i WHERE i.meter_id = s.meter_id
              ORDER BY opened_at DESC LIMIT 1) i ON true
WHERE s.reported_relay IN ('open', 'closed') AND s.reported_relay <> s.desired_relay
  AND s.reported_at > at_ms(%(heard_since_ms)s)
  AND NOT EXISTS (SELECT FROM command c
                  WHERE c.meter_id = s.meter_id AND c.type = 'relay'
                    AND (c.state IN ('queued', 'sent', 'accepted', 'executing')
                         OR at_ms(c.issued_ms) >= s.reported_at))
LIMIT %(limit)s

-- name: drop_reading_chunks
-- Chunks of readings that end before an instant.
SELECT drop_chunks('reading', older_than => at_ms(%(before_ms)s))
