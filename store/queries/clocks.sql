-- name: insert_clock_changes
-- What changed about clocks, as judged; and as devices said that they set them.
INSERT INTO clock_change (meter_id, at, kind, judged, offset_ms)
SELECT meter_id, at_ms(%(now_ms)s), kind, judged, offset_ms
FROM unnest(%(meter_id)s::bigint[], %(kind)s::text[], %(judged)s::text[], %(offset_ms)s::bigint[])
    AS c (meter_id, kind, judged, offset_ms)

-- name: judge_clocks
-- The last judgement of each clock.
UPDATE meter_state s SET clock = n.judged
FROM unnest(%(meter_id)s::bigint[], %(judged)s::text[]) AS n (meter_id, judged)
WHERE s.meter_id = n.meter_id

-- name: lost_readings
-- Readings with a lost clock that nobody decided, and their instant by what is known of the clock:
-- the last time it was found lost before they came, or the first time it was set after.
SELECT m.number, r.register, ms_of(r.ts), r.value_wh, r.boot, r.seq, ms_of(r.received_at),
       ms_of(r.ts) - coalesce(
           (SELECT c.offset_ms FROM clock_change c
            WHERE c.meter_id = r.meter_id AND c.judged = 'lost' AND c.at <= r.received_at
            ORDER BY c.at DESC, c.id DESC LIMIT 1),
           (SELECT c.offset_ms FROM clock_change c
            WHERE c.meter_id = r.meter_id AND c.kind = 'set' AND c.at >= r.received_at
            ORDER BY c.at, c.id LIMIT 1))
FROM reading r JOIN meter m ON m.id = r.meter_id
WHERE r.verdict <> 'accepted' AND r.verdict = 'clock_lost'
  AND (%(meter)s::text IS NULL OR m.number = %(meter)s)
  AND NOT EXISTS (SELECT FROM clock_resolution x
                  WHERE x.meter_id = r.meter_id AND x.register = r.register AND x.ts = r.ts)
ORDER BY r.ts, r.meter_id, r.register
LIMIT %(limit)s

-- name: resolve_lost_reading
-- One decision per reading; no row when there is one, or when its clock was not lost.
INSERT INTO clock_resolution (meter_id, register, ts, decision, corrected_ts, decided_by, note,
                              decided_at)
SELECT r.meter_id, r.register, r.ts, %(decision)s, at_ms(%(corrected_ms)s), %(who)s, %(note)s,
       at_ms(%(now_ms)s)
FROM reading r
WHERE r.meter_id = %(meter)s AND r.register = %(register)s AND r.ts = at_ms(%(ts_ms)s)
  AND r.verdict = 'clock_lost'
ON CONFLICT (meter_id, register, ts) DO NOTHING

-- name: value_at
-- What a meter's register said at an instant.
SELECT value_wh FROM reading
WHERE meter_id = %(meter)s AND register = %(register)s AND ts = at_ms(%(corrected_ms)s)

-- name: insert_corrected_reading
-- The reading again, at its corrected instant; the one that came stays.
INSERT INTO reading (meter_id, register, ts, value_wh, boot, seq, clock, historical, received_at,
                     verdict, detail)
SELECT meter_id, register, at_ms(%(corrected_ms)s), value_wh, boot, seq, %(clock)s, true,
       at_ms(%(now_ms)s), %(verdict)s, detail
FROM reading
WHERE meter_id = %(meter)s AND register = %(register)s AND ts = at_ms(%(ts_ms)s)
