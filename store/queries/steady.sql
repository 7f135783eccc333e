-- name: steady_meters
-- Meters that serve an account now, with both state rows and the versions that these have; `waits`:
-- a top-up waits for the meter's word that the supply is on; `gap`: readings of it are missing.
SELECT m.number, m.id, g.number, m.trusted, s.clock, h.boot, h.seq, s.desired_relay,
       s.reported_relay,
       EXISTS (SELECT FROM top_up t WHERE t.meter_id = m.id AND t.on_supply_at IS NULL) AS waits,
       EXISTS (SELECT FROM gap p WHERE p.meter_id = m.id AND p.closed_at IS NULL) AS gap,
       s.xmin::text::bigint, a.xmin::text::bigint,
       a.account_id, p.position::text, a.numbers, a.anchor_ms, a.opened_ms, a.newest_reading_ms,
       a.has_tail, a.settled_until_ms, a.due_ms, a.balance_micro, a.debt_micro, a.supply,
       a.emergency_in_use, a.terms_revision, a.low_credit_micro, a.low_credit, a.decided_supply,
       a.decisions, a.low_credit_days, a.expected_micro, a.expected_until_ms
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
    heard_relay_ms = CASE WHEN n.relay_ms = 0 THEN s.heard_relay_ms ELSE n.relay_ms END,
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
