-- name: overview_counts
-- The state of an installation in numbers.
SELECT (SELECT count(*) FROM account_state),
       (SELECT count(*) FROM account_state WHERE supply = 'connected'),
       (SELECT count(*) FROM account_state WHERE supply = 'protected'),
       (SELECT count(*) FROM account_state WHERE supply = 'disconnected'),
       (SELECT count(*) FROM meter_state WHERE reported_relay = 'open'),
       (SELECT count(*) FROM meter_state WHERE reported_relay = 'closed'),
       (SELECT count(*) FROM meter_state WHERE online),
       (SELECT coalesce(sum(balance_micro), 0)::bigint FROM account_state),
       (SELECT count(*) FROM token),
       (SELECT count(*) FROM token WHERE result IN ('Accept', 'UsedError')),
       (SELECT count(*) FROM token WHERE result IS NOT NULL AND result NOT IN ('Accept', 'UsedError')),
       (SELECT count(*) FROM command WHERE state = 'queued'),
       (SELECT count(*) FROM command WHERE state IN ('sent', 'accepted', 'executing')),
       (SELECT count(*) FROM top_up WHERE channel <> 'opening-credit'),
       (SELECT count(*) FROM quarantine)

-- name: overview_quarantine
-- What was refused, by reason.
SELECT reason, count(*) FROM quarantined GROUP BY reason ORDER BY count(*) DESC, reason

-- name: overview_accounts
-- Accounts nearest to their end of credit, and those that are cut.
SELECT a.number, m.number, s.balance_micro, s.supply, ms.desired_relay, ms.reported_relay
FROM account_state s
JOIN account a ON a.id = s.account_id
JOIN LATERAL (SELECT meter_id FROM installation i WHERE i.account_id = a.id
              ORDER BY opened_at DESC LIMIT 1) i ON true
JOIN meter m ON m.id = i.meter_id
JOIN meter_state ms ON ms.meter_id = m.id
ORDER BY s.balance_micro
LIMIT %(limit)s

-- name: overview_top_ups
-- The newest payments, and how far each has come.
SELECT a.number, m.number, t.amount_micro, t.energy_wh, ms_of(t.token_issued_at),
       t.credited_ms, ms_of(t.delivered_at), ms_of(t.accepted_at), ms_of(t.rejected_at),
       ms_of(t.on_supply_at)
FROM top_up t JOIN account a ON a.id = t.account_id JOIN meter m ON m.id = t.meter_id
WHERE t.channel <> 'opening-credit'
ORDER BY t.credited_ms DESC, t.id DESC
LIMIT %(limit)s

-- name: overview_reconnections
-- Median and 99th percentile from payment to supply reported on, of the newest thousand.
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY took_ms),
       percentile_disc(0.99) WITHIN GROUP (ORDER BY took_ms)
FROM (SELECT ms_of(on_supply_at) - credited_ms AS took_ms FROM top_up
      WHERE reconnects AND on_supply_at IS NOT NULL
      ORDER BY on_supply_at DESC LIMIT 1000) newest
