-- name: export_accounts_of_centres
-- Accounts in the order of their opening, with what was settled last.
SELECT a.id, a.number, h.name, e.code, t.code, t.currency, m.number, s.decided_supply,
       s.balance_micro, s.debt_micro, s.settled_until_ms, ms_of(a.opened_at)
FROM account a
JOIN account_state s ON s.account_id = a.id
JOIN customer h ON h.id = a.customer_id
JOIN centre e ON e.id = a.centre_id
JOIN tariff t ON t.id = a.tariff_id
LEFT JOIN LATERAL (SELECT m.number FROM installation i JOIN meter m ON m.id = i.meter_id
                   WHERE i.account_id = a.id ORDER BY i.opened_at DESC LIMIT 1) m ON true
WHERE (%(after)s::bigint IS NULL OR a.id > %(after)s)
  AND (%(centres)s::smallint[] IS NULL OR e.id = ANY(%(centres)s))
  AND (%(centre)s::text IS NULL OR e.code = %(centre)s)
ORDER BY a.id
LIMIT %(limit)s

-- name: export_meters_of_centres
-- Meters in the order of their registration, with what they last said; no keys.
SELECT m.id, m.number, e.code, g.number, m.transformer, i.account, m.meter_pan, m.sgc, m.krn, m.ti,
       s.online, ms_of(s.seen_at), s.desired_relay, s.reported_relay
FROM meter m
JOIN centre e ON e.id = m.centre_id
JOIN meter_heard s ON s.meter_id = m.id
LEFT JOIN gateway g ON g.id = m.gateway_id
LEFT JOIN LATERAL (
    SELECT a.number AS account FROM installation i JOIN account a ON a.id = i.account_id
    WHERE i.meter_id = m.id
      AND NOT EXISTS (SELECT FROM installation n WHERE n.account_id = i.account_id
                      AND n.opened_at > i.opened_at)
    ORDER BY i.opened_at DESC LIMIT 1) i ON true
WHERE (%(after)s::bigint IS NULL OR m.id > %(after)s)
  AND (%(centres)s::smallint[] IS NULL OR e.id = ANY(%(centres)s))
  AND (%(centre)s::text IS NULL OR e.code = %(centre)s)
ORDER BY m.id
LIMIT %(limit)s

-- name: export_top_ups_of_centres
-- Top-ups credited within a time, in the order of their ids, which is nearly that of time; no digits.
SELECT p.id, p.id, p.receipt_number, a.number, m.number, e.code, p.channel, p.partner_txn_id,
       p.amount_micro, t.currency, p.energy_wh, ms_of(p.paid_at), p.credited_ms, r.reversed_ms
FROM top_up p
JOIN account a ON a.id = p.account_id
JOIN centre e ON e.id = a.centre_id
JOIN tariff t ON t.id = a.tariff_id
JOIN meter m ON m.id = p.meter_id
LEFT JOIN reversal r ON r.top_up_id = p.id
WHERE p.id > coalesce(%(after)s::text, %(first_id)s::text) AND p.id < %(end_id)s::text
  AND p.credited_ms >= %(from_ms)s AND p.credited_ms < %(to_ms)s
  AND (%(centres)s::smallint[] IS NULL OR e.id = ANY(%(centres)s))
  AND (%(centre)s::text IS NULL OR e.code = %(centre)s)
ORDER BY p.id
LIMIT %(limit)s

-- name: export_acts_of_centres
-- What operators did within a time, oldest first.
SELECT l.id, l.id, ms_of(l.at), l.who, l.action, l.subject, e.code, l.reason, l.before, l.after
FROM audit_log l
LEFT JOIN centre e ON e.id = l.centre_id
WHERE (%(after)s::bigint IS NULL OR l.id > %(after)s)
  AND l.at >= at_ms(%(from_ms)s) AND l.at < at_ms(%(to_ms)s)
  AND (%(centres)s::smallint[] IS NULL OR l.centre_id = ANY(%(centres)s))
  AND (%(centre)s::text IS NULL OR e.code = %(centre)s)
ORDER BY l.id
LIMIT %(limit)s
