-- name: rows_of_account
-- Every transaction of an account, in the order of recording.
SELECT key, kind, at_ms, local_day, band, energy_wh, legs, amounts, correction, explanation
FROM ledger_transaction
WHERE account_id = %(account)s
ORDER BY id

-- name: readings_of_meters
-- Billable readings of meters with their verdicts.
SELECT m.number, ms_of(r.ts), r.value_wh, r.verdict
FROM reading r JOIN meter m ON m.id = r.meter_id
WHERE m.number = ANY(%(numbers)s) AND r.register = '1.8.0'
ORDER BY r.ts, r.value_wh

-- name: refused_readings_of_meters
-- Payloads of refused readings on the topics of meters.
SELECT split_part(topic, '/', 4), reason, payload
FROM quarantine
WHERE split_part(topic, '/', 4) = ANY(%(numbers)s)

-- name: account_of_entry
-- The number of the account that an entry belongs to.
SELECT a.number FROM ledger_transaction t JOIN account a ON a.id = t.account_id
WHERE t.id = %(entry)s
