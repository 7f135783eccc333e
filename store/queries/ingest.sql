-- name: accounts_of_meters
-- The accounts that these meters ever measured: the rows to lock.
SELECT DISTINCT i.account_id
FROM meter m JOIN installation i ON i.meter_id = m.id
WHERE m.number = ANY(%(numbers)s)

-- name: lock_meters
-- State rows of meters, locked in one order: here a reading of a meter in stock and its
-- installation meet, for such a meter has no account whose lock would part them.
SELECT s.meter_id FROM meter m JOIN meter_state s ON s.meter_id = m.id
WHERE m.number = ANY(%(numbers)s)
ORDER BY s.meter_id
FOR UPDATE OF s

-- name: meters_of_batch
-- The meters of a batch with their assignment, state and places of installation.
SELECT m.number, m.id, g.number AS gateway, h.boot, h.seq, ms_of(h.seq_ts) AS seq_ms,
       s.desired_relay, m.interval_s * 1000 AS interval_ms, s.clock, m.trusted,
       coalesce(array_agg(i.account_id ORDER BY i.opened_at)
                FILTER (WHERE i.account_id IS NOT NULL), '{}') AS accounts,
       coalesce(array_agg(ms_of(i.opened_at) ORDER BY i.opened_at)
                FILTER (WHERE i.account_id IS NOT NULL), '{}') AS opened,
       s.online IS FALSE AS away
FROM meter m
JOIN meter_state s ON s.meter_id = m.id
JOIN meter_heard h ON h.meter_id = m.id
LEFT JOIN gateway g ON g.id = m.gateway_id
LEFT JOIN installation i ON i.meter_id = m.id
WHERE m.number = ANY(%(numbers)s)
GROUP BY m.id, g.number, s.meter_id, h.boot, h.seq, h.seq_ts

-- name: known_readings
-- Which of these keys are stored, and with what value; the range leaves out all other chunks.
-- `OFFSET 0`: key by key, never all that was read in the range.
SELECT k.meter_id, k.register, k.ts, r.value_wh
FROM unnest(%(meters)s::bigint[], %(registers)s::text[], %(ts)s::bigint[]) AS k (meter_id, register, ts)
CROSS JOIN LATERAL (
    SELECT value_wh FROM reading
    WHERE meter_id = k.meter_id AND register = k.register AND ts = at_ms(k.ts)
      AND ts BETWEEN at_ms(%(first_ms)s) AND at_ms(%(last_ms)s)
    OFFSET 0
) r

-- name: counted_readings
-- Of these readings, those whose count is stored at another instant near theirs, which was believed;
-- what a gap missed was never counted. The range leaves out all other chunks.
SELECT k.meter_id, k.boot, k.seq, ms_of(r.ts)
FROM (SELECT meter_id, register, boot, seq, ts
      FROM unnest(%(meters)s::bigint[], %(registers)s::text[], %(boots)s::bigint[],
                  %(seqs)s::bigint[], %(ts)s::bigint[]) AS c (meter_id, register, boot, seq, ts)
      WHERE NOT EXISTS (SELECT FROM gap g WHERE g.meter_id = c.meter_id AND g.closed_at IS NULL
                        AND (g.after_boot, g.after_seq) < (c.boot, c.seq)
                        AND (c.boot, c.seq) < (g.before_boot, g.before_seq))
      OFFSET 0) k
CROSS JOIN LATERAL (
    SELECT ts FROM reading
    WHERE meter_id = k.meter_id AND register = k.register AND boot = k.boot AND seq = k.seq
      AND clock IN ('sync', 'drift')
      AND ts BETWEEN at_ms(k.ts - %(around_ms)s) AND at_ms(k.ts + %(around_ms)s)
      AND ts BETWEEN at_ms(%(first_ms)s) AND at_ms(%(last_ms)s)
    ORDER BY ts LIMIT 1
) r

-- name: insert_readings
-- New readings with their verdicts. A key that came in between by another worker stays as it is.
INSERT INTO reading (meter_id, register, ts, value_wh, boot, seq, clock, historical, received_at,
                     verdict, detail)
SELECT meter_id, register, at_ms(ts), value_wh, boot, seq, clock, historical,
       at_ms(%(now_ms)s), verdict, detail::jsonb
FROM unnest(%(meter_id)s::bigint[], %(register)s::text[], %(ts)s::bigint[], %(value_wh)s::bigint[],
            %(boot)s::bigint[], %(seq)s::bigint[], %(clock)s::text[], %(historical)s::boolean[],
            %(verdict)s::text[], %(detail)s::text[])
    AS r (meter_id, register, ts, value_wh, boot, seq, clock, historical, verdict, detail)
ON CONFLICT (meter_id, register, ts) DO NOTHING

-- name: insert_quarantine
-- What the contract refuses, kept with its reason; the same refusal twice is one row.
INSERT INTO quarantine (received_at, reason, detail, topic, row_index, payload, content_type,
                        fingerprint)
SELECT at_ms(%(now_ms)s), reason, detail, topic, row_index, payload, content_type, fingerprint
FROM unnest(%(reason)s::text[], %(detail)s::text[], %(topic)s::text[], %(row_index)s::integer[],
            %(payload)s::bytea[], %(content_type)s::text[], %(fingerprint)s::bytea[])
    AS q (reason, detail, topic, row_index, payload, content_type, fingerprint)
ON CONFLICT (fingerprint) DO NOTHING

-- name: update_meters
-- What the meters of a batch reported: the newest counter and relay win, whatever the order.
UPDATE meter_state s
SET boot = CASE WHEN n.boot IS NOT NULL AND (s.boot IS NULL OR (n.boot, n.seq) > (s.boot, s.seq))
                THEN n.boot ELSE s.boot END,
    seq = CASE WHEN n.boot IS NOT NULL AND (s.boot IS NULL OR (n.boot, n.seq) > (s.boot, s.seq))
               THEN n.seq ELSE s.seq END,
    seq_ts = CASE WHEN n.boot IS NOT NULL AND (s.boot IS NULL OR (n.boot, n.seq) > (s.boot, s.seq))
                  THEN at_ms(n.seq_ms) ELSE s.seq_ts END,
    reported_relay = CASE WHEN n.relay IS NOT NULL
                               AND (s.reported_at IS NULL OR at_ms(n.relay_ms) >= s.reported_at)
                          THEN n.relay ELSE s.reported_relay END,
    reported_at = CASE WHEN n.relay IS NOT NULL
                            AND (s.reported_at IS NULL OR at_ms(n.relay_ms) >= s.reported_at)
                       THEN at_ms(n.relay_ms) ELSE s.reported_at END,
    reported_seen_at = CASE WHEN n.relay IS NOT NULL
                                 AND (s.reported_at IS NULL OR at_ms(n.relay_ms) >= s.reported_at)
                            THEN at_ms(%(now_ms)s) ELSE s.reported_seen_at END,
    seen_at = at_ms(%(now_ms)s)
FROM unnest(%(meter_id)s::bigint[], %(boot)s::bigint[], %(seq)s::bigint[], %(seq_ms)s::bigint[],
            %(relay)s::text[], %(relay_ms)s::bigint[])
    AS n (meter_id, boot, seq, seq_ms, relay, relay_ms)
WHERE s.meter_id = n.meter_id

-- name: mark_online
-- Meters that are there or gone; a will that was held back, where no birth of just now is newer.
UPDATE meter_state s
SET online = n.online,
    online_at = CASE WHEN n.online AND n.prompt THEN at_ms(%(online_now_ms)s) ELSE s.online_at END
FROM unnest(%(meters)s::bigint[], %(online)s::boolean[], %(prompt)s::boolean[])
    AS n (meter_id, online, prompt)
WHERE s.meter_id = n.meter_id
  AND (n.online OR n.prompt OR s.online_at IS NULL OR s.online_at <= at_ms(%(born_before_ms)s))

-- name: remember_newest
-- Readings that are stored and not rated count for what is in order, too.
UPDATE account_state s SET newest_reading_ms = greatest(s.newest_reading_ms, n.newest)
FROM unnest(%(accounts)s::bigint[], %(newest)s::bigint[]) AS n (account, newest)
WHERE s.account_id = n.account
