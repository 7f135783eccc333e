-- name: held_readings
-- Stored billable readings from an instant on, with their verdicts.
SELECT m.number, ms_of(r.ts), r.value_wh, r.verdict
FROM reading r JOIN meter m ON m.id = r.meter_id
WHERE r.register = '1.8.0' AND r.ts >= at_ms(%(since_ms)s)

-- name: held_refusals
-- What was refused after a row of the quarantine, oldest first.
SELECT id, reason, topic, content_type, payload FROM quarantine WHERE id > %(after)s ORDER BY id

-- name: held_sums
-- Of each account what the ledger adds up to, and the balance that stands with it.
SELECT a.number, coalesce(l.energy_wh, 0)::bigint, coalesce(l.customer_micro, 0)::bigint,
       s.balance_micro
FROM account a
JOIN account_state s ON s.account_id = a.id
LEFT JOIN (SELECT account_id, sum(energy_wh) AS energy_wh, sum(customer_micro) AS customer_micro
           FROM ledger_transaction GROUP BY account_id) l ON l.account_id = a.id

-- name: held_payments
-- Payments of a channel by its own numbers: how often each is there, and with how much.
SELECT partner_txn_id, count(*), sum(amount_micro)::bigint
FROM top_up WHERE channel = %(channel)s GROUP BY partner_txn_id

-- name: held_tokens
-- Tokens with their meters and the meters' word on them.
SELECT k.digits, m.number, k.result FROM token k JOIN meter m ON m.id = k.meter_id

-- name: held_commands
-- Commands with their meters and states.
SELECT c.id::text, m.number, c.type, c.state FROM command c JOIN meter m ON m.id = c.meter_id

-- name: held_relays
-- Relays as the meters last reported them.
SELECT m.number, s.reported_relay FROM meter m JOIN meter_state s ON s.meter_id = m.id

-- name: newest_entry
-- The newest row of the ledger: it grows with each commit that moves money.
SELECT greatest((SELECT max(id) FROM ledger_posting),
                -- of the last numbers that were given out
                (SELECT max(id) FROM energy_debit
                 WHERE id > (SELECT last_value FROM ledger_transaction_id_seq) - 10000), 0)

-- name: backends_of
-- Connections of one part of the system, by the name that it gives.
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name = %(name)s ORDER BY pid

-- name: end_backends
-- End the connections of one part of the system.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = %(name)s

-- name: end_sessions
-- Send everybody away from a database.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %(database)s
