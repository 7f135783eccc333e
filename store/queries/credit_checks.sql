-- name: lock_credit_compared
-- Up to where credit was compared; nobody else compares meanwhile.
SELECT CASE WHEN isfinite(received_at) THEN ms_of(received_at) END FROM credit_compared
FOR UPDATE SKIP LOCKED

-- name: set_credit_compared
-- Credit is compared up to here.
UPDATE credit_compared SET received_at = at_ms(%(until_ms)s)

-- name: readings_with_credit
-- The newest reading with credit of each meter that was heard between two instants.
SELECT DISTINCT ON (r.meter_id) r.meter_id, ms_of(r.ts), r.boot, r.seq, r.value_wh,
       r.detail -> 'credit' -> 'wh', m.centre_id
FROM reading r JOIN meter m ON m.id = r.meter_id
WHERE r.received_at > at_ms(%(from_ms)s) AND r.received_at <= at_ms(%(until_ms)s)
  -- a meter's clock may be off by minutes; older rows are replayed and say nothing of now
  AND r.ts > at_ms(%(from_ms)s) - interval '1 day'
  AND r.detail ? 'credit' AND r.register = '1.8.0'
  AND NOT r.historical AND r.verdict = 'accepted'
ORDER BY r.meter_id, r.ts DESC

-- name: credit_bases
-- Where these meters last agreed, and whether their credit was set otherwise since.
SELECT b.meter_id, ms_of(b.read_at), b.boot, b.seq, b.base_wh,
       EXISTS (SELECT FROM command c
               WHERE c.meter_id = b.meter_id AND c.type = 'credit' AND c.answered_at > b.read_at)
       OR EXISTS (SELECT FROM token k
                  WHERE k.meter_id = b.meter_id AND k.class = 2 AND k.subclass = 1
                    AND k.answered_at > b.read_at AND k.result IN ('Accept', 'UsedError'))
FROM credit_base b WHERE b.meter_id = ANY(%(meters)s)

-- name: tokens_around
-- The credit of meters in tokens, around a reading of each: accepted before it, so near that it may
-- be on either side, not answered, and accepted since an instant.
SELECT w.meter_id,
       coalesce(sum(wh) FILTER (WHERE accepted AND answered_ms <= w.at_ms - w.margin_ms), 0)::bigint,
       coalesce(array_agg(wh ORDER BY k.id) FILTER
           (WHERE accepted AND answered_ms > w.at_ms - w.margin_ms
              AND issued_ms <= w.at_ms + w.margin_ms), '{}'),
       coalesce(array_agg(wh ORDER BY k.id DESC) FILTER
           (WHERE NOT answered AND issued_ms <= w.at_ms + w.margin_ms), '{}'),
       coalesce(array_agg(wh ORDER BY k.id DESC) FILTER
           (WHERE accepted AND answered_ms > w.since_ms - w.margin_ms
              AND answered_ms <= w.at_ms - w.margin_ms), '{}')
FROM unnest(%(meters)s::bigint[], %(at)s::bigint[], %(since)s::bigint[], %(margins)s::bigint[])
    AS w (meter_id, at_ms, since_ms, margin_ms)
LEFT JOIN LATERAL (
    SELECT id, amount * 100 AS wh, result IN ('Accept', 'UsedError') AS accepted,
           result IS NOT NULL AS answered, ms_of(answered_at) AS answered_ms,
           ms_of(issued_at) AS issued_ms
    FROM token WHERE token.meter_id = w.meter_id AND class = 0) k ON true
GROUP BY w.meter_id

-- name: rows_since
-- How many readings of a boot came after one counter up to another.
SELECT count(DISTINCT seq) FROM reading
WHERE meter_id = %(meter)s AND register = '1.8.0' AND ts > at_ms(%(from_ms)s)
  AND ts <= at_ms(%(until_ms)s) AND boot = %(boot)s AND seq > %(after)s AND seq <= %(upto)s

-- name: keep_credit_base
-- The meter's credit and its tokens agree at this reading.
INSERT INTO credit_base (meter_id, read_at, boot, seq, base_wh)
VALUES (%(meter)s, at_ms(%(at_ms)s), %(boot)s, %(seq)s, %(base_wh)s)
ON CONFLICT (meter_id) DO UPDATE
SET read_at = excluded.read_at, boot = excluded.boot, seq = excluded.seq, base_wh = excluded.base_wh

-- name: note_credit_exception
-- A meter's credit and its tokens do not agree; while that is open, what it says now.
INSERT INTO credit_exception (meter_id, class, gap_wh, credit_wh, read_at, first_seen_at, seen_at)
VALUES (%(meter)s, %(class)s, %(gap_wh)s, %(credit_wh)s, at_ms(%(at_ms)s), at_ms(%(now_ms)s),
        at_ms(%(now_ms)s))
ON CONFLICT (meter_id) WHERE closed_at IS NULL DO UPDATE
SET class = excluded.class, gap_wh = excluded.gap_wh, credit_wh = excluded.credit_wh,
    read_at = excluded.read_at, seen_at = excluded.seen_at

-- name: end_credit_exception
-- The meter agrees again by itself: an answer came late.
UPDATE credit_exception SET closed_at = at_ms(%(now_ms)s), closed_by = %(by)s, note = %(note)s
WHERE meter_id = %(meter)s AND closed_at IS NULL

-- name: credit_exceptions
-- Meters whose credit and tokens do not agree, newest first: the open ones, or all.
SELECT e.id, m.number, e.class, e.gap_wh, e.credit_wh, ms_of(e.read_at), ms_of(e.first_seen_at),
       ms_of(e.closed_at), e.closed_by, e.note
FROM credit_exception e JOIN meter m ON m.id = e.meter_id
WHERE e.closed_at IS NULL OR %(all)s
ORDER BY e.id DESC
LIMIT %(limit)s

-- name: close_credit_exception
-- A person has looked at it.
UPDATE credit_exception SET closed_at = at_ms(%(now_ms)s), closed_by = %(by)s, note = %(note)s
WHERE id = %(exception)s AND closed_at IS NULL
RETURNING meter_id

-- name: drop_credit_base
-- The next reading of this meter is where both sides begin anew.
DELETE FROM credit_base WHERE meter_id = %(meter)s

-- name: credit_exception_exists
-- Whether there is such an exception.
SELECT EXISTS (SELECT FROM credit_exception WHERE id = %(exception)s)
