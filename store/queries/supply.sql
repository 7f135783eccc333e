-- name: meters_of_accounts
-- The meter that serves each of these accounts now, with what it should do and what it said; none
-- where that meter was taken to another account.
SELECT w.account, m.id, m.number, s.desired_relay, s.reported_relay, a.centre_id
FROM unnest(%(accounts)s::bigint[]) AS w (account)
JOIN account a ON a.id = w.account
CROSS JOIN LATERAL (SELECT meter_id FROM installation i WHERE i.account_id = w.account
                    ORDER BY opened_at DESC LIMIT 1) mine
JOIN meter m ON m.id = mine.meter_id
JOIN meter_state s ON s.meter_id = m.id
WHERE w.account = (SELECT account_id FROM installation later WHERE later.meter_id = m.id
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
INSERT INTO command (id, meter_id, gateway_id, ctr, type, args, issued_ms, expires_ms, version,
                     attempt, first_issued_ms)
SELECT %(id)s, m.id, m.gateway_id, %(ctr)s, %(type)s, %(args)s, %(issued_ms)s, %(expires_ms)s,
       CASE WHEN %(type)s IN ('relay', 'arm') THEN s.desired_version END,
       %(attempt)s, %(first_issued_ms)s
FROM meter m JOIN meter_state s ON s.meter_id = m.id
WHERE m.id = %(meter)s

-- name: supersede_relay_commands
-- One outstanding relay intention per meter: older ones are over.
UPDATE command SET state = 'superseded'
WHERE meter_id = %(meter)s AND type IN ('relay', 'arm') AND state = ANY(%(from_states)s)

-- name: mark_reconnects
-- The payment of this instant found the supply off: its stopwatch is one of a reconnection.
UPDATE top_up SET reconnects = true
WHERE meter_id = %(meter)s AND credited_ms = %(now_ms)s AND on_supply_at IS NULL

-- name: queued_commands
-- The outbox, oldest first.
SELECT c.id::text, m.number, g.number, c.type, c.ctr, c.issued_ms, c.expires_ms, c.args
FROM command c
JOIN meter m ON m.id = c.meter_id
LEFT JOIN gateway g ON g.id = c.gateway_id
WHERE c.state = 'queued'
ORDER BY c.issued_ms, c.ctr
LIMIT %(limit)s

-- name: outbox_standing
-- How many commands wait to be sent, and since when.
SELECT count(*), min(issued_ms) FROM command WHERE state = 'queued'

-- name: last_relay_order
-- The newest order for a meter's relay, and what became of it.
SELECT c.attempt, c.issued_ms, coalesce(c.first_issued_ms, c.issued_ms), c.id::text, d.state
FROM command c LEFT JOIN dead_letter d ON d.command_id = c.id
WHERE c.meter_id = %(meter)s AND c.type IN ('relay', 'arm')
ORDER BY c.ctr DESC LIMIT 1

-- name: meters_of_commands
-- Whose commands these are.
SELECT DISTINCT meter_id FROM command WHERE id = ANY(%(ids)s::uuid[])

-- name: mark_sent
-- The broker has these; only the meter's own answer goes further.
UPDATE command SET state = 'sent', sent_at = at_ms(%(now_ms)s), claimed_until_ms = NULL
WHERE id = ANY(%(ids)s::uuid[]) AND state = ANY(%(from_states)s)

-- name: mark_delivering
-- Tokens on their way.
UPDATE top_up t SET delivered_at = at_ms(%(now_ms)s)
FROM token k
WHERE k.command_id = ANY(%(ids)s::uuid[]) AND t.id = k.top_up_id AND t.delivered_at IS NULL

-- name: command_to_answer
-- A command of this meter, locked; it was said if it is sent, or claimed once.
SELECT c.id::text, c.meter_id, c.type, c.state, c.claimed_until_ms IS NOT NULL, c.attempt,
       coalesce(c.first_issued_ms, c.issued_ms), c.issued_ms, c.version, c.answer ->> 'why',
       CASE WHEN c.type = 'token' THEN jsonb_array_length(c.args -> 'tokens') END
FROM command c JOIN meter m ON m.id = c.meter_id
WHERE c.id = %(id)s::uuid AND m.number = %(meter)s
FOR UPDATE OF c

-- name: answer_command
-- A meter's word on a command. One that ends it ends what was planned after silence, too.
UPDATE command
SET state = %(state)s, answered_at = at_ms(%(now_ms)s), answer = %(answer)s,
    sent_at = coalesce(sent_at, at_ms(%(now_ms)s)), claimed_until_ms = NULL,
    retry_ms = CASE WHEN %(state)s = ANY(%(final)s) THEN NULL ELSE retry_ms END
WHERE id = %(id)s::uuid

-- name: ignore_answer
-- An answer that the state of its command does not allow.
INSERT INTO ignored_answer (command_id, state, answer, received_at)
VALUES (%(id)s::uuid, %(before)s, %(answer)s, at_ms(%(now_ms)s))

-- name: report_version
-- The meter carried out the order of this version.
UPDATE meter_state SET reported_version = greatest(reported_version, %(version)s)
WHERE meter_id = %(meter)s

-- name: kinds_of_command_tokens
-- Class and subclass of each token of a command, in their order.
SELECT k.class, k.subclass
FROM command c
CROSS JOIN jsonb_array_elements_text(c.args -> 'tokens') WITH ORDINALITY AS d (digits, place)
LEFT JOIN LATERAL (SELECT class, subclass FROM token
                   WHERE digits = d.digits AND meter_id = c.meter_id LIMIT 1) k ON true
WHERE c.id = %(command)s::uuid
ORDER BY d.place

-- name: answer_tokens
-- What the meter said to the tokens of a command, in their order; NULL where it did not tell. It
-- said it to the digits: whatever else printed or carries them is answered too, and a late word on
-- an old command still counts.
UPDATE token k
SET result = n.result, answered_at = at_ms(%(now_ms)s)
FROM command c,
     jsonb_array_elements_text(c.args -> 'tokens') WITH ORDINALITY AS d (digits, place),
     unnest(%(results)s::text[]) WITH ORDINALITY AS n (result, place)
WHERE c.id = %(command)s::uuid AND n.place = d.place AND n.result IS NOT NULL
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
-- The meter's newest word is closed: the stopwatch of each top-up that waited for it stops.
-- Returns how long the reconnections took.
UPDATE top_up t SET on_supply_at = at_ms(%(now_ms)s)
FROM meter_state s
WHERE t.meter_id = ANY(%(meters)s) AND t.on_supply_at IS NULL
  AND s.meter_id = t.meter_id AND s.reported_relay = 'closed'
RETURNING t.reconnects, %(now_ms)s - t.credited_ms

-- name: meters_with_overdue_commands
-- Meters whose commands `expire_commands` or `give_up_silent_tokens` would end.
SELECT c.meter_id FROM command c
WHERE c.state IN ('queued', 'sent', 'accepted', 'executing') AND c.expires_ms <= %(now_ms)s
UNION
SELECT c.meter_id FROM command c JOIN meter_state s ON s.meter_id = c.meter_id
WHERE c.type = 'token' AND c.state IN ('sent', 'accepted', 'executing')
  AND c.expires_ms > %(now_ms)s AND c.sent_at <= at_ms(%(silent_ms)s)
  AND s.seen_at > c.sent_at + %(silence_ms)s * interval '1 ms'

-- name: expire_commands
-- Unsaid at expiry is expired; said, or maybe said, and unanswered is unknown.
UPDATE command
SET state = CASE WHEN state = 'queued' AND claimed_until_ms IS NULL THEN 'expired'
            ELSE 'unknown' END,
    claimed_until_ms = NULL
WHERE state IN ('queued', 'sent', 'accepted', 'executing') AND expires_ms <= %(now_ms)s
  AND meter_id = ANY(%(meters)s)
RETURNING id::text, meter_id, type, state, attempt, coalesce(first_issued_ms, issued_ms), issued_ms

-- name: give_up_silent_tokens
-- Tokens that were sent and never answered for good, though their meter was heard long after: a
-- broker that died took the command or its answer with it. The back-off runs from now on, so that a
-- meter that has just come back answers first.
UPDATE command c SET state = 'unknown', claimed_until_ms = NULL
FROM meter_state s
WHERE s.meter_id = c.meter_id AND c.type = 'token' AND c.state IN ('sent', 'accepted', 'executing')
  AND c.meter_id = ANY(%(meters)s)
  AND c.expires_ms > %(now_ms)s
  AND c.sent_at <= at_ms(%(silent_ms)s) AND s.seen_at > c.sent_at + %(silence_ms)s * interval '1 ms'
RETURNING c.id::text, c.meter_id, c.type, c.state, c.attempt,
          coalesce(c.first_issued_ms, c.issued_ms), %(now_ms)s::bigint

-- name: unreconciled_meters
-- Accounts whose meter reports another relay than desired, and where no order is under way: the
-- last one was never said, or the meter spoke after it ended; and its back-off is over. `armed` is
-- what an order to arm asks for; an armed meter that is to be off is not off.
SELECT i.account_id
FROM meter_state s
JOIN LATERAL (SELECT account_id FROM installation i WHERE i.meter_id = s.meter_id
              ORDER BY opened_at DESC LIMIT 1) i ON true
LEFT JOIN LATERAL (SELECT id, state, attempt, issued_ms, expires_ms, answered_at FROM command c
                   WHERE c.meter_id = s.meter_id AND c.type IN ('relay', 'arm')
                   ORDER BY c.ctr DESC LIMIT 1) o ON true
WHERE s.reported_relay <> s.desired_relay
  AND NOT (s.reported_relay = 'armed' AND s.desired_relay = 'closed')
  AND (o.id IS NULL
       OR (o.state NOT IN ('queued', 'sent', 'accepted', 'executing')
           AND (o.state = 'expired'
                OR s.reported_seen_at > coalesce(o.answered_at, at_ms(o.expires_ms)))
           AND o.issued_ms + least(%(base_ms)s::bigint << least(o.attempt - 1, 20), %(most_ms)s)
               <= %(now_ms)s
           AND NOT EXISTS (SELECT FROM dead_letter d
                           WHERE d.command_id = o.id AND d.state <> 'reopened')))
ORDER BY s.reported_seen_at
LIMIT %(limit)s

-- name: drop_reading_chunks
-- Chunks of readings that end before an instant.
SELECT drop_readings_before(%(before_ms)s)

-- name: waiting_for_people
-- Dead letters and credit exceptions that nobody has decided about.
SELECT (SELECT count(*) FROM dead_letter WHERE state = 'open'),
       (SELECT count(*) FROM credit_exception WHERE closed_at IS NULL)
