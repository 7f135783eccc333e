-- name: make_bare
-- The floor of every write: a table without keys.
CREATE TABLE bare_reading (meter_id bigint, ts timestamptz, value_wh bigint)

-- name: copy_bare
-- Rows into it.
COPY bare_reading FROM STDIN (FORMAT BINARY)

-- name: make_raw
-- What the shell floor keeps: the line as it came. Nobody tidies a floor's tables while others run.
CREATE TABLE raw_reading (line text) WITH (autovacuum_enabled = false)

-- name: count_raw
-- How many of them are committed.
SELECT count(*) FROM raw_reading

-- name: empty_raw
-- After each repetition.
TRUNCATE raw_reading

-- name: make_literal
-- The tables of the literal stack: readings, balances and entries.
CREATE TABLE IF NOT EXISTS literal_reading (
    meter text NOT NULL, ts timestamptz NOT NULL, value_wh bigint NOT NULL, PRIMARY KEY (meter, ts)
) WITH (autovacuum_enabled = false);
CREATE TABLE IF NOT EXISTS literal_account (
    meter text PRIMARY KEY, value_wh bigint NOT NULL, balance_micro bigint NOT NULL
) WITH (autovacuum_enabled = false);
CREATE TABLE IF NOT EXISTS literal_entry (
    meter text NOT NULL, ts timestamptz NOT NULL, amount_micro bigint NOT NULL
) WITH (autovacuum_enabled = false);

-- name: fill_literal
-- Its accounts, as every meter stands after a slot.
INSERT INTO literal_account
SELECT lpad(n::text, 11, '0'), %(value_wh)s, 0 FROM generate_series(1, %(meters)s) AS n

-- name: empty_literal
-- After each repetition.
TRUNCATE literal_reading, literal_account, literal_entry

-- name: count_literal
-- How many readings are committed, and whether their entries are what left the balances.
SELECT (SELECT count(*) FROM literal_reading),
       (SELECT coalesce(sum(amount_micro), 0) FROM literal_entry)
       + (SELECT coalesce(sum(balance_micro), 0) FROM literal_account)

-- name: literal_write_reading
-- A reading, once.
INSERT INTO literal_reading (meter, ts, value_wh) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING

-- name: literal_write_entry
-- Its debit at a flat price.
INSERT INTO literal_entry (meter, ts, amount_micro)
SELECT %s, %s, (%s - value_wh) * 2459 FROM literal_account WHERE meter = %s

-- name: literal_write_balance
-- And what is left.
UPDATE literal_account SET balance_micro = balance_micro - (%s - value_wh) * 2459, value_wh = %s
WHERE meter = %s

-- name: node_insert
-- The batch of the npm client, which stores and does not debit.
INSERT INTO literal_reading (meter, ts, value_wh)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::bigint[]) ON CONFLICT DO NOTHING

-- name: count_readings
-- Stored readings of a fleet.
SELECT count(*) FROM reading

-- name: committed_readings
-- Which of these are stored: their places in the lists.
SELECT asked.place
FROM unnest(%(numbers)s::text[], %(ts_ms)s::bigint[]) WITH ORDINALITY AS asked (number, ts_ms, place)
JOIN meter m ON m.number = asked.number
WHERE EXISTS (SELECT FROM reading r WHERE r.meter_id = m.id AND r.register = '1.8.0'
                                      AND r.ts = at_ms(asked.ts_ms))

-- name: count_quarantined
-- What was refused meanwhile.
SELECT count(*) FROM quarantine

-- name: balances
-- Every different balance and how many accounts have it: one, where all meters say the same.
SELECT balance_micro, count(*) FROM account_state GROUP BY balance_micro ORDER BY count(*) DESC

-- name: count_differing
-- Balances that are not the sum of their entries.
SELECT count(*) FROM account_state s
WHERE s.balance_micro <> (SELECT sum(t.customer_micro) FROM ledger_transaction t
                          WHERE t.account_id = s.account_id)

-- name: sample_accounts
-- Accounts of no order, to rate again.
SELECT account_id FROM account_state ORDER BY md5(account_id::text) LIMIT %(limit)s

-- name: add_gateways
-- Gateways with so many meters each, in order of number.
WITH made AS (
    INSERT INTO gateway (number)
    SELECT 'G' || n FROM generate_series(0, (%(meters)s - 1) / %(each)s) AS n
    RETURNING id, number
)
UPDATE meter SET gateway_id = made.id
FROM made WHERE made.number = 'G' || (meter.number::bigint - 1) / %(each)s

-- name: give_key
-- Key attributes for one meter that takes tokens.
UPDATE meter SET meter_pan = %(pan)s, sgc = %(sgc)s, krn = %(krn)s, kt = %(kt)s, ken = %(ken)s,
       ti = %(ti)s, base_date = %(base_date)s, ea = %(ea)s, dkga = %(dkga)s
WHERE number = %(number)s

-- name: backend_pids
-- The database backends of one role of ours.
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name = %(name)s

-- name: reading_sizes
-- Rows, and bytes of the rows themselves, of indexes and of the rest, over all chunks.
SELECT (SELECT count(*) FROM reading), sum(pg_relation_size(c)), sum(pg_indexes_size(c)),
       sum(pg_total_relation_size(c))
FROM show_chunks('reading') AS c

-- name: relation_sizes
-- The same of one plain table.
SELECT pg_relation_size(%(name)s::regclass), pg_indexes_size(%(name)s::regclass),
       pg_total_relation_size(%(name)s::regclass)

-- name: count_entries
-- Rows of the ledger that are no debits of steady readings.
SELECT count(*) FROM ledger_posting

-- name: count_debits
-- Debits of steady readings.
SELECT count(*) FROM energy_debit

-- name: compress
-- All chunks, as the policy does after 30 days. Timescale licence only.
SELECT compress_chunk(c) FROM show_chunks('reading') AS c

-- name: compressed_size
-- Bytes of all compressed chunks with their indexes.
SELECT sum(after_compression_total_bytes) FROM chunk_compression_stats('reading')

-- name: count_top_ups
-- Payments that were credited.
SELECT count(*) FROM top_up WHERE channel = 'bench-bank'

-- name: give_sessions
-- The accounts of some meters get holders of their own, who signed in an hour ago: of meter n, `number`, the
-- key of the session is %(prefix)s and the number.
WITH chosen AS MATERIALIZED (
    SELECT number, 'B-' || number::bigint AS account, '+222' || number AS phone
    FROM unnest(%(numbers)s::text[]) AS number
), holder AS (
    INSERT INTO customer (name, created_at)
    SELECT 'Holder ' || number, at_ms(%(wall_ms)s) FROM chosen
    RETURNING id, name
), moved AS (
    UPDATE account a SET customer_id = h.id
    FROM chosen c JOIN holder h ON h.name = 'Holder ' || c.number
    WHERE a.number = c.account
), reached AS (
    INSERT INTO contact (customer_id, channel, address, registered_ms, verified_ms)
    SELECT h.id, 'phone', c.phone, %(wall_ms)s, %(wall_ms)s
    FROM chosen c JOIN holder h ON h.name = 'Holder ' || c.number
), known AS (
    INSERT INTO person (phone, created_ms) SELECT phone, %(wall_ms)s FROM chosen
    RETURNING id, phone
)
INSERT INTO customer_session (sha256, person_id, began_ms, seen_ms, expires_ms)
SELECT sha256(convert_to(%(prefix)s || c.number, 'UTF8')), k.id, %(wall_ms)s - 3600000,
       %(wall_ms)s - 3600000, %(wall_ms)s + 86400000
FROM chosen c JOIN known k ON k.phone = c.phone

-- name: row_of_account
-- The floor of a balance: one row of one table, by the number of its account.
SELECT s.balance_micro FROM account a JOIN account_state s ON s.account_id = a.id
WHERE a.number = %(account)s
