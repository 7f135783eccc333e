-- name: open_gaps
-- Open gaps of meters, in the order of their counters.
SELECT meter_id, id, after_boot, after_seq, ms_of(after_ts), before_boot, before_seq,
       ms_of(before_ts), ms_of(opened_at), asks, ms_of(asked_at), requests::text[]
FROM gap
WHERE meter_id = ANY(%(meters)s) AND closed_at IS NULL
ORDER BY meter_id, after_boot, after_seq

-- name: first_open_gaps
-- Where what is held of these meters without a gap ends.
SELECT DISTINCT ON (meter_id) meter_id, after_boot, after_seq
FROM gap
WHERE meter_id = ANY(%(meters)s) AND closed_at IS NULL
ORDER BY meter_id, after_boot, after_seq

-- name: insert_gaps
-- New gaps, and the later parts of gaps that were filled in the middle.
INSERT INTO gap (meter_id, after_boot, after_seq, after_ts, before_boot, before_seq, before_ts,
                 opened_at, asks, asked_at, requests)
SELECT meter_id, after_boot, after_seq, at_ms(after_ts_ms), before_boot, before_seq,
       at_ms(before_ts_ms), at_ms(opened_ms), asks, at_ms(asked_ms), requests::uuid[]
FROM unnest(%(meter_id)s::bigint[], %(after_boot)s::bigint[], %(after_seq)s::bigint[],
            %(after_ts_ms)s::bigint[], %(before_boot)s::bigint[], %(before_seq)s::bigint[],
            %(before_ts_ms)s::bigint[], %(opened_ms)s::bigint[], %(asks)s::smallint[],
            %(asked_ms)s::bigint[], %(requests)s::text[])
    AS g (meter_id, after_boot, after_seq, after_ts_ms, before_boot, before_seq, before_ts_ms,
          opened_ms, asks, asked_ms, requests)

-- name: move_gaps
-- Gaps that are smaller now.
UPDATE gap g
SET after_boot = n.after_boot, after_seq = n.after_seq, after_ts = at_ms(n.after_ts_ms),
    before_boot = n.before_boot, before_seq = n.before_seq, before_ts = at_ms(n.before_ts_ms)
FROM unnest(%(id)s::bigint[], %(after_boot)s::bigint[], %(after_seq)s::bigint[],
            %(after_ts_ms)s::bigint[], %(before_boot)s::bigint[], %(before_seq)s::bigint[],
            %(before_ts_ms)s::bigint[])
    AS n (id, after_boot, after_seq, after_ts_ms, before_boot, before_seq, before_ts_ms)
WHERE g.id = n.id

-- name: close_gaps
-- Gaps that are over.
UPDATE gap SET closed_at = at_ms(%(now_ms)s), reason = %(reason)s
WHERE id = ANY(%(gaps)s) AND closed_at IS NULL

-- name: claim_gap_round
-- One worker asks at a time: the limits count what all of them asked.
SELECT pg_try_advisory_xact_lock(hashtext('prepaid.gaps'))

-- name: close_answered_gaps
-- Gaps whose meter answered every request and sent no more; or that were asked for often enough.
WITH answered AS (
    SELECT g.id,
           bool_or(c.answer ->> 'why' = %(not_supported)s) AS not_supported,
           bool_and(c.state IN ('done', 'failed', 'refused')
                    AND c.answered_at <= at_ms(%(settled_ms)s)) AS settled
    FROM gap g JOIN command c ON c.id = ANY(g.requests)
    WHERE g.closed_at IS NULL AND g.asked_at IS NOT NULL
    GROUP BY g.id
)
UPDATE gap g
SET closed_at = at_ms(%(now_ms)s),
    reason = CASE WHEN NOT a.settled THEN 'no_answer'
                  WHEN a.not_supported THEN 'not_supported'
                  ELSE 'not_kept' END
FROM answered a
WHERE g.id = a.id AND g.closed_at IS NULL
  AND (a.settled OR (g.asks >= %(most_asks)s AND g.asked_at <= at_ms(%(asked_before_ms)s)))

-- name: give_up_gaps
-- Gaps older than any meter's buffer.
UPDATE gap SET closed_at = at_ms(%(now_ms)s), reason = 'no_answer'
WHERE closed_at IS NULL AND opened_at <= at_ms(%(opened_before_ms)s)

-- name: gaps_asked_since
-- How many gaps were asked for lately, by any worker.
SELECT count(*) FROM gap WHERE asked_at > at_ms(%(since_ms)s)

-- name: gaps_due
-- Gaps to ask for, oldest first: not filled by the meter itself, not asked today, and the meter is
-- not known to be away.
SELECT g.meter_id, g.id
FROM gap g JOIN meter_state s ON s.meter_id = g.meter_id
WHERE g.closed_at IS NULL AND g.opened_at <= at_ms(%(opened_before_ms)s)
  AND (g.asked_at IS NULL OR g.asked_at <= at_ms(%(asked_before_ms)s))
  AND g.asks < %(most_asks)s
  AND s.online IS NOT FALSE
ORDER BY g.opened_at, g.id
LIMIT %(limit)s

-- name: lock_meter_states
-- State rows of meters by id, locked in the order of ingest.
SELECT meter_id FROM meter_state WHERE meter_id = ANY(%(meters)s) ORDER BY meter_id FOR UPDATE

-- name: mark_gap_asked
-- Asked now, with these commands.
UPDATE gap SET asks = asks + 1, asked_at = at_ms(%(now_ms)s), requests = %(requests)s::uuid[]
WHERE id = %(gap)s

-- name: gaps
-- Gaps for people, of one meter or of all.
SELECT g.id, m.number, g.after_boot, g.after_seq, ms_of(g.after_ts), g.before_boot, g.before_seq,
       ms_of(g.before_ts), ms_of(g.opened_at), g.asks, ms_of(g.asked_at), ms_of(g.closed_at),
       g.reason
FROM gap g JOIN meter m ON m.id = g.meter_id
WHERE (%(meter)s::text IS NULL OR m.number = %(meter)s)
  AND (%(closed)s OR g.closed_at IS NULL)
ORDER BY g.id DESC
LIMIT %(limit)s
