-- name: steady_meters
-- Meters that serve an account now, with both state rows and the versions that these have; `waits`:
-- a top-up waits for the meter's word that the supply is on; `gap`: readings of it are missing;
-- `away`: it is called so.
SELECT m.number, m.id, g.number, m.trusted, s.clock, h.boot, h.seq, s.desired_relay,
       s.reported_relay,
       EXISTS (SELECT FROM top_up t WHERE t.meter_id = m.id AND t.on_supply_at IS NULL) AS waits,
       EXISTS (SELECT FROM gap p WHERE p.meter_id = m.id AND p.closed_at IS NULL) AS gap,
       s.online IS FALSE AS away,
       s.xmin::text::bigint, a.xmin::text::bigint,
       a.account_id, p.position::text, a.numbers, a.anchor_ms, a.opened_ms, a.newest_reading_ms,
       a.has_tail, a.settled_until_ms, a.due_ms, a.balance_micro, a.debt_micro, a.supply,
       a.emergency_in_use, a.terms_revision, a.low_credit_micro, a.low_credit, a.decided_supply,
       a.decisions, a.low_credit_days, a.expected_micro, a.expected_until_ms, a.zero_waits,
       a.emergency_waits
FROM meter m
JOIN meter_state s ON s.meter_id = m.id
JOIN meter_heard h ON h.meter_id = m.id
CROSS JOIN LATERAL (SELECT i.account_id FROM installation i WHERE i.meter_id = m.id
                    ORDER BY i.opened_at DESC LIMIT 1) i
JOIN account_state a ON a.account_id = i.account_id
JOIN account_position p ON p.account_id = a.account_id
LEFT JOIN gateway g ON g.id = m.gateway_id
WHERE m.number = ANY(%(numbers)s)

-- name: move_accounts
-- Where steady readings leave their accounts, in one order; only rows that still are the versions
-- that the readings were rated on.
-- `moves` holds the columns of each `n`, one after the other: an array is read faster than eleven.
UPDATE account_state s
SET anchor_ms = n.at_ms, newest_reading_ms = n.at_ms, balance_micro = n.balance_micro,
    settled_until_ms = greatest(s.settled_until_ms, n.at_ms, %(now_ms)s),
    numbers = (%(numbers)s::bigint[])[n.first : n.last],
    heard_meter_id = n.meter_id, heard_boot = n.boot, heard_seq = n.seq, heard_ms = n.at_ms,
    -- a late reading tells an older word than the newest
    heard_relay_ms = CASE WHEN n.relay_ms = 0 THEN s.heard_relay_ms
                          ELSE greatest(s.heard_relay_ms, n.relay_ms) END,
    heard_at_ms = %(now_ms)s
FROM generate_series(0, %(count)s::integer - 1) AS i
CROSS JOIN LATERAL (
    SELECT m[i * 11 + 1] AS account_id, m[i * 11 + 2]::integer AS account_version,
           m[i * 11 + 3] AS meter_id, m[i * 11 + 4]::integer AS meter_version,
           m[i * 11 + 5] AS at_ms, m[i * 11 + 6] AS balance_micro,
           m[i * 11 + 7]::integer AS first, m[i * 11 + 8]::integer AS last,
           m[i * 11 + 9] AS boot, m[i * 11 + 10] AS seq, m[i * 11 + 11] AS relay_ms
    FROM (SELECT %(moves)s::bigint[] AS m) each) n
JOIN meter_state h ON h.meter_id = n.meter_id AND h.xmin = n.meter_version
WHERE s.account_id = n.account_id AND s.xmin = n.account_version

-- name: debited_gaps
-- Of late readings, the gap that each falls into, with the balance at its newer end and the debit over
-- it: of gaps within one boot, in whose instants nothing happened but that debit, uncorrected, and
-- before which nothing was recorded since; and the meter's oldest gap, and whether it has just one.
-- `from_ms`: how old the older end may be, of all of them `first_ms`, so that the planner leaves out
-- the chunks before it.
SELECT q.place, g.id, g.after_boot, g.after_seq, g.before_seq, o.ids[1], o.boots[1], o.seqs[1],
       cardinality(o.ids) = 1,
       s.balance_micro - l.later_micro, s.terms_revision, t.amounts, t.explanation
FROM unnest(%(meters)s::bigint[], %(accounts)s::bigint[], %(boots)s::bigint[], %(seqs)s::bigint[],
            %(from_ms)s::bigint[])
    WITH ORDINALITY AS q (meter_id, account_id, boot, seq, from_ms, place)
JOIN account_state s ON s.account_id = q.account_id
CROSS JOIN LATERAL (
    SELECT id, after_boot, after_seq, before_seq, ms_of(after_ts) AS after_ms,
           ms_of(before_ts) AS before_ms
    FROM gap
    WHERE meter_id = q.meter_id AND closed_at IS NULL
      AND after_boot = q.boot AND before_boot = q.boot AND after_seq < q.seq AND q.seq < before_seq
      AND after_ts >= at_ms(q.from_ms)
    OFFSET 0) g
CROSS JOIN LATERAL (
    SELECT array_agg(id ORDER BY after_boot, after_seq) AS ids,
           array_agg(after_boot ORDER BY after_boot, after_seq) AS boots,
           array_agg(after_seq ORDER BY after_boot, after_seq) AS seqs
    FROM gap WHERE meter_id = q.meter_id AND closed_at IS NULL) o
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE at_ms <= g.before_ms
                            AND NOT (at_ms = g.before_ms AND kind = 'energy')) AS others,
           count(*) FILTER (WHERE corrects IS NOT NULL AND at_ms = g.before_ms
                            AND from_ms = g.after_ms) AS corrections,
           coalesce(sum(customer_micro) FILTER (WHERE at_ms > g.before_ms), 0)::bigint AS later_micro
    FROM ledger_transaction
    WHERE account_id = q.account_id AND at_ms >= g.after_ms
      AND (at_ms > g.after_ms OR kind <> 'energy')
    OFFSET 0) l
CROSS JOIN LATERAL (
    SELECT id, amounts, explanation FROM ledger_transaction
    WHERE account_id = q.account_id AND at_ms = g.before_ms AND correction = 0
      AND key = 'energy:' || g.after_ms || '-' || g.before_ms
    OFFSET 0) t
WHERE l.others = 0 AND l.corrections = 0
  -- what the debit says of the month before it still stands
  AND NOT EXISTS (SELECT FROM ledger_posting o
                  WHERE o.account_id = q.account_id AND o.id > t.id AND o.at_ms <= g.after_ms)
  -- what lies between is judged by the reading before it
  AND NOT EXISTS (SELECT FROM reading r WHERE r.meter_id = q.meter_id AND r.register = '1.8.0'
                  AND r.ts > at_ms(%(first_ms)s)
                  AND r.ts > at_ms(g.after_ms) AND r.ts < at_ms(g.before_ms))
  AND NOT EXISTS (SELECT FROM emergency_request e WHERE e.account_id = q.account_id
                  AND e.requested_ms BETWEEN g.after_ms AND g.before_ms)
  AND t.explanation #>> '{registers,from,at_ms}' = g.after_ms::text
  AND t.explanation #>> '{registers,to,at_ms}' = g.before_ms::text

-- name: reverse_debits
-- Debits that others take the place of, reversed in the order given.
-- `debits` holds the columns of each `n`, one after the other.
INSERT INTO ledger_posting (account_id, key, correction, kind, from_ms, at_ms, recorded_at, local_day,
                            band, energy_wh, legs, amounts, customer_micro, balance_micro, corrects,
                            explanation)
SELECT n.account_id, t.key, 1, t.kind, n.from_ms, n.at_ms, at_ms(%(now_ms)s), t.local_day, t.band,
       -t.energy_wh, t.legs,
       ARRAY(SELECT -u.amount FROM unnest(t.amounts) WITH ORDINALITY AS u (amount, place)
             ORDER BY u.place),
       -t.customer_micro, n.balance_micro, t.id,
       jsonb_build_object('corrects', t.id, 'reversed', true)
FROM generate_series(0, %(count)s::integer - 1) AS i
CROSS JOIN LATERAL (
    SELECT d[i * 4 + 1] AS account_id, d[i * 4 + 2] AS from_ms, d[i * 4 + 3] AS at_ms,
           d[i * 4 + 4] AS balance_micro
    FROM (SELECT %(debits)s::bigint[] AS d) each) n
CROSS JOIN LATERAL (
    SELECT id, key, kind, local_day, band, energy_wh, legs, amounts, customer_micro
    FROM ledger_transaction
    WHERE account_id = n.account_id AND at_ms = n.at_ms AND correction = 0
      AND key = 'energy:' || n.from_ms || '-' || n.at_ms
    OFFSET 0) t
ORDER BY i

-- name: fill_gaps
-- Gaps that are filled up to a counter, or whole; only those that still begin where they began.
UPDATE gap g
SET after_seq = CASE WHEN n.closed THEN g.after_seq ELSE n.seq END,
    after_ts = CASE WHEN n.closed THEN g.after_ts ELSE at_ms(n.ts_ms) END,
    closed_at = CASE WHEN n.closed THEN at_ms(%(now_ms)s) END,
    reason = CASE WHEN n.closed THEN 'filled' END
FROM generate_series(0, %(count)s::integer - 1) AS i
CROSS JOIN LATERAL (
    SELECT e[i * 6 + 1] AS id, e[i * 6 + 2] AS boot, e[i * 6 + 3] AS from_seq, e[i * 6 + 4] AS seq,
           e[i * 6 + 5] AS ts_ms, e[i * 6 + 6] = 1 AS closed
    FROM (SELECT %(ends)s::bigint[] AS e) each) n
WHERE g.id = n.id AND g.closed_at IS NULL AND g.after_boot = n.boot AND g.after_seq = n.from_seq

-- name: changed_meters
-- Of these meters, those that one of the two rows is another version of.
SELECT n.number
FROM unnest(%(number)s::text[], %(account_id)s::bigint[], %(account_version)s::integer[],
            %(meter_id)s::bigint[], %(meter_version)s::integer[])
    AS n (number, account_id, account_version, meter_id, meter_version)
WHERE NOT EXISTS (
    SELECT FROM account_state s JOIN meter_state m ON m.meter_id = n.meter_id
    WHERE s.account_id = n.account_id AND s.xmin = n.account_version AND m.xmin = n.meter_version)

-- name: own_version
-- The version of the rows that this transaction writes.
SELECT pg_current_xact_id()::text::bigint

-- name: find_pricing
-- A pricing by its content.
SELECT id FROM pricing WHERE sha256 = %(sha256)s

-- name: add_pricing
-- A pricing that no reading had before; another worker may have added it meanwhile.
INSERT INTO pricing (sha256, band, price_micro_per_wh, legs, body)
VALUES (%(sha256)s, %(band)s, %(price)s, %(legs)s, %(body)s)
ON CONFLICT (sha256) DO NOTHING

-- name: copy_steady_readings
-- Accepted readings and what came with them, as `store.steady_rows` packs them.
COPY reading (meter_id, register, ts, value_wh, boot, seq, clock, historical, received_at, verdict,
              detail)
FROM STDIN (FORMAT BINARY)

-- name: copy_debits
-- Debits of steady readings, as `store.steady_rows` packs them.
COPY energy_debit (account_id, meter_id, from_ms, at_ms, recorded_ms, to_wh, energy_wh, position_wh,
                   balance_micro, pricing_id, local_day, amounts, bases)
FROM STDIN (FORMAT BINARY)
