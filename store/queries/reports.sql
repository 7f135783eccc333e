-- name: insert_events
-- What meters and gateways report beside readings, and what we noticed; the same report twice is one.
INSERT INTO event (meter_id, gateway_id, kind, received_at, body, fingerprint)
SELECT meter_id, gateway_id, kind, at_ms(%(now_ms)s), body::jsonb, fingerprint
FROM unnest(%(meter_id)s::bigint[], %(gateway_id)s::bigint[], %(kind)s::text[], %(body)s::text[],
            %(fingerprint)s::bytea[])
    AS e (meter_id, gateway_id, kind, body, fingerprint)
ON CONFLICT DO NOTHING

-- name: gateways_of_batch
-- The gateways that speak in a batch, and whether they are called away.
SELECT number, id, online IS FALSE FROM gateway WHERE number = ANY(%(numbers)s)

-- name: update_gateways
-- Gateways that were heard, or whose last will was; one that was held back, where no birth of just
-- now is newer.
UPDATE gateway g
SET online = CASE WHEN n.online OR n.prompt OR g.online_at IS NULL
                       OR g.online_at <= at_ms(%(born_before_ms)s)
                  THEN coalesce(n.online, g.online) ELSE g.online END,
    online_at = CASE WHEN n.online AND n.prompt THEN at_ms(%(online_now_ms)s) ELSE g.online_at END,
    seen_at = CASE WHEN n.spoke THEN at_ms(%(now_ms)s) ELSE g.seen_at END
FROM unnest(%(id)s::bigint[], %(online)s::boolean[], %(prompt)s::boolean[], %(spoke)s::boolean[])
    AS n (id, online, prompt, spoke)
WHERE g.id = n.id

-- name: mark_power
-- Meters whose supply fails by their own word, or is back: the newest word by their time, once.
UPDATE meter_state s
SET power_failed_at = CASE WHEN n.failed THEN at_ms(%(now_ms)s) END, power_said_at = at_ms(n.at_ms)
FROM unnest(%(meter_id)s::bigint[], %(at_ms)s::bigint[], %(failed)s::boolean[])
    AS n (meter_id, at_ms, failed)
WHERE s.meter_id = n.meter_id
  AND (s.power_said_at IS NULL OR at_ms(n.at_ms) > s.power_said_at
       OR (NOT n.failed AND at_ms(n.at_ms) = s.power_said_at))

-- name: count_hellos
-- One more connection of each meter, counted from a first one that is not too old.
UPDATE meter_state s
SET hellos = CASE WHEN s.hellos_since > at_ms(%(since_ms)s) THEN s.hellos + n.hellos ELSE n.hellos END,
    hellos_since = CASE WHEN s.hellos_since > at_ms(%(since_ms)s) THEN s.hellos_since
                        ELSE at_ms(%(now_ms)s) END
FROM unnest(%(meter_id)s::bigint[], %(hellos)s::integer[]) AS n (meter_id, hellos)
WHERE s.meter_id = n.meter_id
RETURNING s.meter_id, s.hellos

-- name: raise_flags
-- Meters that look wrong, for people: the first time opens the row, each further one counts.
INSERT INTO meter_flag (meter_id, kind, detail, first_at, last_at)
SELECT meter_id, kind, detail, at_ms(%(now_ms)s), at_ms(%(now_ms)s)
FROM unnest(%(meter_id)s::bigint[], %(kind)s::text[], %(detail)s::text[])
    AS f (meter_id, kind, detail)
ON CONFLICT (meter_id, kind) WHERE cleared_at IS NULL
DO UPDATE SET times = meter_flag.times + 1, last_at = excluded.last_at
RETURNING meter_id, kind, detail, times

-- name: flags
-- Flagged meters, newest first.
SELECT f.id, m.number, f.kind, f.detail, ms_of(f.first_at), ms_of(f.last_at), f.times,
       ms_of(f.cleared_at), f.cleared_by, f.note
FROM meter_flag f JOIN meter m ON m.id = f.meter_id
WHERE (%(meter)s::text IS NULL OR m.number = %(meter)s)
  AND (%(cleared)s OR f.cleared_at IS NULL)
ORDER BY f.last_at DESC, f.id DESC
LIMIT %(limit)s

-- name: clear_flags
-- A person looked at the meter and says why it is in order again.
UPDATE meter_flag SET cleared_at = at_ms(%(now_ms)s), cleared_by = %(who)s, note = %(note)s
WHERE meter_id = %(meter)s AND cleared_at IS NULL

-- name: forget_counter
-- The meter's counters begin anew with its next reading.
WITH unheard AS (UPDATE account_state SET heard_meter_id = NULL WHERE heard_meter_id = %(meter)s)
UPDATE meter_state SET boot = NULL, seq = NULL, seq_ts = NULL, hellos = 0, hellos_since = NULL
WHERE meter_id = %(meter)s
