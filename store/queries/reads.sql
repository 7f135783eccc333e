-- name: principal_of_key
-- Whose access key or session this digest is; nobody's once it ended or its operator is disabled.
SELECT coalesce(o.role, k.role), k.customer_id, o.id, o.name, o.centres, NULL::bigint,
       NULL::bigint, 0::bigint, 0::bigint
FROM access_key k LEFT JOIN operator o ON o.id = k.operator_id
WHERE k.sha256 = %(sha256)s AND k.revoked_at IS NULL AND o.disabled_at IS NULL
UNION ALL
SELECT o.role, NULL, o.id, o.name, o.centres, NULL, NULL, 0, 0
FROM operator_session s JOIN operator o ON o.id = s.operator_id
WHERE s.sha256 = %(sha256)s AND s.ended_ms IS NULL AND s.expires_ms > %(wall_ms)s
  AND o.disabled_at IS NULL
UNION ALL
SELECT 'customer', 0, NULL, NULL, NULL, s.person_id, s.id, s.began_ms, s.seen_ms
FROM customer_session s
WHERE s.sha256 = %(sha256)s AND s.ended_ms IS NULL AND s.expires_ms > %(wall_ms)s
  AND s.seen_ms > %(wall_ms)s - %(idle_ms)s::bigint

-- name: accounts_of_customer
-- The accounts that a customer holds, each with the meter that serves it now; all for an operator.
SELECT a.id, a.number, c.name, t.currency, t.timezone, m.number,
       CASE WHEN %(customer)s::bigint IS NOT NULL THEN 'owner' END
FROM account a
JOIN customer c ON c.id = a.customer_id
JOIN tariff t ON t.id = a.tariff_id
LEFT JOIN LATERAL (SELECT m.number FROM installation i JOIN meter m ON m.id = i.meter_id
                   WHERE i.account_id = a.id ORDER BY i.opened_at DESC LIMIT 1) m ON true
WHERE (%(customer)s::bigint IS NULL OR a.customer_id = %(customer)s)
  AND (%(ids)s::bigint[] IS NULL OR a.id = ANY(%(ids)s))
  AND (%(number)s::text IS NULL OR a.number = %(number)s)
  AND (%(centres)s::smallint[] IS NULL OR a.centre_id = ANY(%(centres)s))
  AND (%(centre)s::text IS NULL
       OR a.centre_id = (SELECT e.id FROM centre e WHERE e.code = %(centre)s))
  AND (%(like)s::text IS NULL OR a.number ILIKE %(like)s || '%%' OR m.number LIKE %(like)s || '%%'
       OR c.name ILIKE '%%' || %(like)s || '%%')
  AND (%(after)s::bigint IS NULL OR a.id > %(after)s)
ORDER BY a.id
LIMIT %(limit)s

-- name: ids_of_accounts
-- Accounts by their numbers.
SELECT id FROM account
WHERE number = ANY(%(numbers)s)
  AND (%(centres)s::smallint[] IS NULL OR centre_id = ANY(%(centres)s))

-- name: account_served_by
-- The account that a meter serves now; none once another meter took its place.
SELECT a.id, a.number, c.name, t.currency, t.timezone, m.number
FROM meter m
JOIN LATERAL (SELECT account_id FROM installation i WHERE i.meter_id = m.id
              ORDER BY opened_at DESC LIMIT 1) i ON true
JOIN account a ON a.id = i.account_id
JOIN customer c ON c.id = a.customer_id
JOIN tariff t ON t.id = a.tariff_id
WHERE m.number = %(meter)s
  AND m.id = (SELECT meter_id FROM installation n WHERE n.account_id = a.id
              ORDER BY opened_at DESC LIMIT 1)

-- name: supply_of_account
-- What the account's meter should do, what it said, and its newest accepted reading.
SELECT m.number, s.desired_relay, s.reported_relay, ms_of(s.reported_at), s.online,
       ms_of(s.seen_at), ms_of(r.ts), r.value_wh
FROM installation i
JOIN meter m ON m.id = i.meter_id
JOIN meter_heard s ON s.meter_id = m.id
LEFT JOIN LATERAL (
    SELECT ts, value_wh FROM reading
    WHERE meter_id = m.id AND register = '1.8.0' AND verdict = 'accepted' AND ts > i.opened_at
    ORDER BY ts DESC LIMIT 1
) r ON true
WHERE i.account_id = %(account)s
ORDER BY i.opened_at DESC LIMIT 1

-- name: daily_costs
-- What local days cost and used, by the net of all entries; days without entries are left out.
SELECT local_day, -sum(customer_micro)::bigint, sum(energy_wh)::bigint
FROM ledger_transaction
WHERE account_id = %(account)s AND at_ms >= %(from_ms)s AND at_ms <= %(to_ms)s
  AND kind IN ('energy', 'standing', 'daily_debt')
GROUP BY local_day

-- name: reading_points
-- Instants at which the account's register is known within a range, and the nearest beyond it on either side.
WITH mine AS (
    SELECT meter_id, opened_at,
           lead(opened_at) OVER (ORDER BY opened_at) AS closed_at
    FROM installation WHERE account_id = %(account)s
), known AS (
    SELECT ms_of(opened_at) AS at_ms FROM mine
    UNION
    SELECT ms_of(r.ts)
    FROM mine
    JOIN reading r ON r.meter_id = mine.meter_id
    WHERE r.register = '1.8.0' AND r.verdict = 'accepted'
      AND r.ts > mine.opened_at AND (mine.closed_at IS NULL OR r.ts <= mine.closed_at)
      AND r.ts >= at_ms(%(from_ms)s) AND r.ts <= at_ms(%(to_ms)s)
    UNION
    SELECT ms_of(b.ts) FROM mine CROSS JOIN LATERAL (
        SELECT r.ts FROM reading r
        WHERE r.meter_id = mine.meter_id AND r.register = '1.8.0' AND r.verdict = 'accepted'
          AND r.ts > mine.opened_at AND (mine.closed_at IS NULL OR r.ts <= mine.closed_at)
          AND r.ts < at_ms(%(from_ms)s)
        ORDER BY r.ts DESC LIMIT 1) b
    UNION
    SELECT ms_of(n.ts) FROM mine CROSS JOIN LATERAL (
        SELECT r.ts FROM reading r
        WHERE r.meter_id = mine.meter_id AND r.register = '1.8.0' AND r.verdict = 'accepted'
          AND r.ts > mine.opened_at AND (mine.closed_at IS NULL OR r.ts <= mine.closed_at)
          AND r.ts > at_ms(%(to_ms)s)
        ORDER BY r.ts LIMIT 1) n
)
SELECT at_ms FROM known ORDER BY at_ms

-- name: consumption_of_slots
-- Energy and its cost between consecutive edges: the net of each segment, later corrections
-- included, shared out by time with differences of values rounded down, so that sums stay exact.
WITH segment AS (
    SELECT min(from_ms) AS from_ms, min(at_ms) AS at_ms, sum(energy_wh) AS wh,
           -sum(customer_micro) AS micro
    FROM ledger_transaction
    WHERE account_id = %(account)s AND kind = 'energy'
      AND at_ms > (%(edges)s::bigint[])[1]
      AND from_ms < (%(edges)s::bigint[])[cardinality(%(edges)s::bigint[])]
    GROUP BY key
), placed AS (
    SELECT s.from_ms, s.at_ms, s.wh, s.micro, slot,
           greatest(s.from_ms, (%(edges)s::bigint[])[slot]) - s.from_ms AS lower,
           least(s.at_ms, (%(edges)s::bigint[])[slot + 1]) - s.from_ms AS upper
    FROM segment s
    CROSS JOIN LATERAL generate_series(
        greatest(width_bucket(s.from_ms, %(edges)s::bigint[]), 1),
        least(width_bucket(s.at_ms - 1, %(edges)s::bigint[]),
              cardinality(%(edges)s::bigint[]) - 1)) AS slot
    WHERE s.wh <> 0 OR s.micro <> 0
)
SELECT slot,
       sum(div(wh * upper, at_ms - from_ms) - div(wh * lower, at_ms - from_ms))::bigint,
       sum(div(micro * upper, at_ms - from_ms) - div(micro * lower, at_ms - from_ms))::bigint
FROM placed
GROUP BY slot

-- name: entries_of_account
-- Ledger entries, newest first by the order in which they were recorded.
(SELECT id, kind, from_ms, at_ms, ms_of(recorded_at), customer_micro, balance_micro, energy_wh, band,
        corrects
 FROM ledger_posting
 WHERE account_id = %(account)s AND (%(before)s::bigint IS NULL OR id < %(before)s)
 ORDER BY id DESC
 LIMIT %(limit)s)
UNION ALL
-- Of steady readings the order of recording is that of their instants, which has the index.
(SELECT d.id, 'energy', d.from_ms, d.at_ms, d.recorded_ms, d.amounts[1], d.balance_micro, d.energy_wh,
        p.band, NULL
 FROM energy_debit d JOIN pricing p ON p.id = d.pricing_id
 WHERE d.account_id = %(account)s AND (%(before)s::bigint IS NULL OR d.id < %(before)s)
 ORDER BY d.at_ms DESC
 LIMIT %(limit)s)
ORDER BY id DESC
LIMIT %(limit)s

-- name: entry_of_account
-- One entry with its legs, its explanation and the entries that correct it.
SELECT t.id, t.kind, t.from_ms, t.at_ms, ms_of(t.recorded_at), t.customer_micro, t.balance_micro,
       t.energy_wh, t.band, t.corrects,
       (SELECT jsonb_agg(jsonb_build_array(a.code, e.amount) ORDER BY e.place)
        FROM unnest(t.legs, t.amounts) WITH ORDINALITY AS e (leg, amount, place)
        JOIN ledger_account a ON a.id = e.leg),
       t.explanation,
       ARRAY(SELECT n.id FROM ledger_posting n
             WHERE n.account_id = t.account_id AND n.key = t.key AND n.corrects = t.id
             ORDER BY n.id)
FROM ledger_transaction t
WHERE t.account_id = %(account)s AND t.id = %(entry)s

-- name: top_ups_of_account
-- Top-ups newest first, or one; the ledger holds what of each became credit and what went to debt.
SELECT t.id, a.number, m.number, y.currency, t.channel, t.partner_txn_id, t.amount_micro,
       ms_of(t.paid_at), t.credited_ms, t.receipt_number, t.energy_wh, t.lines,
       ms_of(t.token_issued_at), ms_of(t.delivered_at), ms_of(t.accepted_at),
       ms_of(t.on_supply_at), ms_of(t.rejected_at), r.reversed_ms,
       ARRAY(SELECT k.digits FROM token k
             WHERE k.top_up_id = t.id
               AND NOT EXISTS (SELECT FROM token_replacement p WHERE p.replaced_token_id = k.id)
             ORDER BY k.ordinal)
FROM top_up t
JOIN account a ON a.id = t.account_id
JOIN tariff y ON y.id = a.tariff_id
JOIN meter m ON m.id = t.meter_id
LEFT JOIN reversal r ON r.top_up_id = t.id
WHERE t.account_id = %(account)s AND (%(before)s::text IS NULL OR t.id < %(before)s)
  AND (%(top_ups)s::text[] IS NULL OR t.id = ANY(%(top_ups)s))
ORDER BY t.id DESC
LIMIT %(limit)s

-- name: top_up_by_payment
-- The top-up of a channel's payment, as in top_ups_of_account.
SELECT t.id, a.number, m.number, y.currency, t.channel, t.partner_txn_id, t.amount_micro,
       ms_of(t.paid_at), t.credited_ms, t.receipt_number, t.energy_wh, t.lines,
       ms_of(t.token_issued_at), ms_of(t.delivered_at), ms_of(t.accepted_at),
       ms_of(t.on_supply_at), ms_of(t.rejected_at), r.reversed_ms,
       ARRAY(SELECT k.digits FROM token k
             WHERE k.top_up_id = t.id
               AND NOT EXISTS (SELECT FROM token_replacement p WHERE p.replaced_token_id = k.id)
             ORDER BY k.ordinal)
FROM top_up t
JOIN account a ON a.id = t.account_id
JOIN tariff y ON y.id = a.tariff_id
JOIN meter m ON m.id = t.meter_id
LEFT JOIN reversal r ON r.top_up_id = t.id
WHERE t.channel = %(channel)s AND t.partner_txn_id = %(partner_txn_id)s

-- name: tokens_of_account
-- Tokens newest first, each with the state of the command that carries it and the meter's result.
SELECT k.id, m.number, k.top_up_id, k.ordinal, k.digits, k.class, k.subclass, k.amount,
       ms_of(k.issued_at), c.state, k.result, ms_of(k.answered_at), p.token_id IS NOT NULL
FROM token k
JOIN top_up t ON t.id = k.top_up_id
JOIN meter m ON m.id = k.meter_id
LEFT JOIN token_replacement p ON p.replaced_token_id = k.id
LEFT JOIN command c ON c.id = k.command_id
WHERE t.account_id = %(account)s AND (%(before)s::bigint IS NULL OR k.id < %(before)s)
ORDER BY k.id DESC
LIMIT %(limit)s

-- name: quarantined_newest
-- What was refused or charges nothing, newest first; rows of one instant in a fixed order.
SELECT ms_of(q.received_at), q.reason, q.detail, q.topic, m.number, ms_of(q.ts), q.value_wh,
       i.item, k.closed_by, ms_of(k.closed_at), k.note
FROM quarantined q
CROSS JOIN LATERAL (SELECT coalesce('message-' || q.message_id, 'reading-' || q.meter_id || '-'
                                    || q.detail || '-' || ms_of(q.ts)) AS item) i
LEFT JOIN meter m ON m.id = q.meter_id
LEFT JOIN quarantine_closing k ON k.item = i.item
WHERE (%(centres)s::smallint[] IS NULL OR coalesce(m.centre_id, (
          SELECT t.centre_id FROM meter t
          WHERE split_part(q.topic, '/', 3) = 'm' AND t.number = split_part(q.topic, '/', 4)))
       = ANY(%(centres)s))
  AND (%(closed)s::boolean IS NULL OR (k.item IS NOT NULL) = %(closed)s)
  AND (%(until_ms)s::bigint IS NULL OR q.received_at <= at_ms(%(until_ms)s))
  AND (%(reason)s::text IS NULL OR q.reason = %(reason)s)
ORDER BY q.received_at DESC, q.topic, q.meter_id, q.ts, q.reason, q.detail
OFFSET %(skip)s LIMIT %(limit)s

-- name: quarantined_item
-- One item of the quarantine, by its id.
SELECT ms_of(q.received_at), q.reason, q.detail, q.topic, m.number, ms_of(q.ts), q.value_wh,
       i.item, k.closed_by, ms_of(k.closed_at), k.note
FROM quarantined q
CROSS JOIN LATERAL (SELECT coalesce('message-' || q.message_id, 'reading-' || q.meter_id || '-'
                                    || q.detail || '-' || ms_of(q.ts)) AS item) i
LEFT JOIN meter m ON m.id = q.meter_id
LEFT JOIN quarantine_closing k ON k.item = i.item
WHERE (q.message_id = %(message)s
       OR (q.meter_id = %(meter)s AND q.ts = at_ms(%(at_ms)s) AND q.detail = %(register)s))
  AND (%(centres)s::smallint[] IS NULL OR coalesce(m.centre_id, (
          SELECT t.centre_id FROM meter t
          WHERE split_part(q.topic, '/', 3) = 'm' AND t.number = split_part(q.topic, '/', 4)))
       = ANY(%(centres)s))

-- name: close_quarantined
-- What came of an item, once.
INSERT INTO quarantine_closing (item, closed_by, note, closed_at)
VALUES (%(item)s, %(who)s, %(note)s, at_ms(%(now_ms)s))
ON CONFLICT (item) DO NOTHING
RETURNING item

-- name: commands_newest
-- Commands newest first: their ids sort by the instant of issue.
SELECT c.id::text, m.number, c.type, c.state, c.ctr, c.issued_ms, c.expires_ms, ms_of(c.sent_at),
       ms_of(c.answered_at), CASE WHEN c.type <> 'token' THEN c.args END, c.answer
FROM command c JOIN meter m ON m.id = c.meter_id
WHERE (%(before)s::uuid IS NULL OR c.id < %(before)s)
  AND (%(state)s::text IS NULL OR c.state = %(state)s)
  AND (%(meter)s::text IS NULL OR m.number = %(meter)s)
  AND (%(centres)s::smallint[] IS NULL OR m.centre_id = ANY(%(centres)s))
  AND (%(centre)s::text IS NULL
       OR m.centre_id = (SELECT e.id FROM centre e WHERE e.code = %(centre)s))
ORDER BY c.id DESC
LIMIT %(limit)s

-- name: meter_report
-- A meter as registered and as it last spoke.
SELECT m.number, c.code, g.number, m.meter_pan, m.sgc, m.krn, m.kt, m.ken, m.ti, m.base_date, m.ea,
       m.dkga, m.third_kct, s.online, ms_of(s.seen_at), s.boot, s.seq, s.desired_relay,
       s.reported_relay, ms_of(s.reported_at),
       (SELECT a.number FROM installation i JOIN account a ON a.id = i.account_id
        WHERE i.meter_id = m.id
          AND NOT EXISTS (SELECT FROM installation n WHERE n.account_id = i.account_id
                          AND n.opened_at > i.opened_at)
        ORDER BY i.opened_at DESC LIMIT 1),
       (SELECT jsonb_agg(jsonb_build_array(r.register, ms_of(r.ts), r.value_wh) ORDER BY r.register)
        FROM (SELECT DISTINCT ON (register) register, ts, value_wh FROM reading
              WHERE meter_id = m.id AND ts > coalesce(s.seq_ts, s.seen_at) - interval '7 days'
              ORDER BY register, ts DESC) r)
FROM meter m
JOIN centre c ON c.id = m.centre_id
JOIN meter_heard s ON s.meter_id = m.id
LEFT JOIN gateway g ON g.id = m.gateway_id
WHERE m.number = %(number)s
  AND (%(centres)s::smallint[] IS NULL OR m.centre_id = ANY(%(centres)s))

-- name: meters_seen
-- Meters in the order of their registration, each with the account that it serves now.
SELECT m.id, m.number, c.code, g.number, m.meter_pan IS NOT NULL, s.online, ms_of(s.seen_at),
       s.desired_relay, s.reported_relay, ms_of(s.reported_at), i.account
FROM meter m
JOIN centre c ON c.id = m.centre_id
JOIN meter_heard s ON s.meter_id = m.id
LEFT JOIN gateway g ON g.id = m.gateway_id
LEFT JOIN LATERAL (
    SELECT a.number AS account FROM installation i JOIN account a ON a.id = i.account_id
    WHERE i.meter_id = m.id
      AND NOT EXISTS (SELECT FROM installation n WHERE n.account_id = i.account_id
                      AND n.opened_at > i.opened_at)
    ORDER BY i.opened_at DESC LIMIT 1) i ON true
WHERE (%(centres)s::smallint[] IS NULL OR m.centre_id = ANY(%(centres)s))
  AND (%(centre)s::text IS NULL OR c.code = %(centre)s)
  AND (%(gateway)s::text IS NULL OR g.number = %(gateway)s)
  AND (%(like)s::text IS NULL OR m.number LIKE %(like)s || '%%'
       OR i.account ILIKE %(like)s || '%%')
  AND (%(after)s::bigint IS NULL OR m.id > %(after)s)
ORDER BY m.id
LIMIT %(limit)s

-- name: newest_commit
-- When the ledger last grew.
SELECT max(recorded_ms) FROM (
    (SELECT ms_of(recorded_at) AS recorded_ms FROM ledger_posting ORDER BY id DESC LIMIT 1)
    UNION ALL
    -- Of the last numbers that were given out.
    (SELECT max(recorded_ms) FROM energy_debit
     WHERE id > (SELECT last_value FROM ledger_transaction_id_seq) - 10000)) newest

-- name: vending_key_in_use
-- The vending key of some meter.
SELECT sgc, krn FROM meter WHERE sgc IS NOT NULL ORDER BY sgc, id LIMIT 1

-- name: find_centre
-- A centre by its code.
SELECT id FROM centre WHERE code = %(code)s

-- name: lines_of_top_up
-- The receipt of a top-up, line by line.
SELECT l ->> 'name', l ->> 'amount'
FROM top_up t CROSS JOIN LATERAL jsonb_array_elements(t.lines) WITH ORDINALITY AS e (l, place)
WHERE t.id = %(top_up)s
ORDER BY place
