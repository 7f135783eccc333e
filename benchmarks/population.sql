-- A fleet for measurements: copies of one account that the production code opened and rated.
-- A copy for each of %(numbers)s; copy n has the meter whose number is n in 11 digits.

INSERT INTO meter (number, centre_id)
SELECT lpad(n::text, 11, '0'), (SELECT centre_id FROM meter WHERE id = %(meter)s)
FROM unnest(%(numbers)s::bigint[]) AS n;

INSERT INTO meter_state (meter_id, boot, seq, seq_ts, online, seen_at, desired_relay,
                         reported_relay, reported_at)
SELECT m.id, s.boot, s.seq, s.seq_ts, s.online, s.seen_at, s.desired_relay, s.reported_relay,
       s.reported_at
FROM meter m CROSS JOIN meter_state s WHERE s.meter_id = %(meter)s AND m.id > %(meter)s;

INSERT INTO account (number, customer_id, centre_id, tariff_id, terms, opened_at)
SELECT 'B-' || n, a.customer_id, a.centre_id, a.tariff_id, a.terms, a.opened_at
FROM account a CROSS JOIN unnest(%(numbers)s::bigint[]) AS n WHERE a.id = %(account)s;

CREATE TEMP TABLE copied ON COMMIT DROP AS
SELECT a.id AS account_id, a.number AS account, m.id AS meter_id, m.number
FROM account a JOIN meter m ON m.number = lpad(substr(a.number, 3), 11, '0')
WHERE a.id > %(account)s;

INSERT INTO installation (account_id, opened_at, meter_id, opening_wh, closing_wh, max_power_w,
                          modulus_wh, recorded_at)
SELECT c.account_id, i.opened_at, c.meter_id, i.opening_wh, i.closing_wh, i.max_power_w,
       i.modulus_wh, i.recorded_at
FROM copied c CROSS JOIN installation i WHERE i.account_id = %(account)s;

-- The rows of a table that are the template's, once for each copy, with other values where `instead`
-- gives an expression.
CREATE OR REPLACE FUNCTION pg_temp.copy_rows(rows_of regclass, template text, instead jsonb) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    names text;
    said text;
BEGIN
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum),
           string_agg(coalesce(instead ->> attname::text, 's.' || quote_ident(attname)), ', '
                      ORDER BY attnum)
    INTO names, said
    FROM pg_attribute WHERE attrelid = rows_of AND attnum > 0 AND NOT attisdropped;
    EXECUTE format('INSERT INTO %%s (%%s) SELECT %%s FROM copied c CROSS JOIN %%s s WHERE %%s',
                   rows_of, names, said, rows_of, template);
END $$;

SELECT pg_temp.copy_rows('account_state', 's.account_id = %(account)s',
                         '{"account_id": "c.account_id",
                           "heard_meter_id": "s.heard_meter_id + c.meter_id - s.heard_meter_id"}');
SELECT pg_temp.copy_rows('adjustment', 's.account_id = %(account)s',
                         '{"account_id": "c.account_id", "id": "''carried-over-'' || c.account"}');
-- The newest reading alone: balances and ledger rest on no others.
SELECT pg_temp.copy_rows('reading', 's.meter_id = %(meter)s AND s.ts = (SELECT max(ts) FROM reading
                                     WHERE meter_id = %(meter)s)', '{"meter_id": "c.meter_id"}');

-- A position names its meter.
CREATE TEMP TABLE said ON COMMIT DROP AS
SELECT anchor_ms, replace(position::text, %(number)s, '@meter') AS position
FROM checkpoint WHERE account_id = %(account)s
UNION ALL
SELECT NULL, replace(position::text, %(number)s, '@meter')
FROM account_position WHERE account_id = %(account)s;

INSERT INTO account_position (account_id, position)
SELECT c.account_id, replace(s.position, '@meter', c.number)::json
FROM copied c CROSS JOIN said s WHERE s.anchor_ms IS NULL;

INSERT INTO checkpoint (account_id, anchor_ms, position)
SELECT c.account_id, s.anchor_ms, replace(s.position, '@meter', c.number)::json
FROM copied c CROSS JOIN said s WHERE s.anchor_ms IS NOT NULL;

-- What the ledger of the template holds is numbered in the order in which it was recorded, and the
-- ledger of a copy in the same one; of all accounts the first comes before the second of any.
CREATE TEMP TABLE numbered ON COMMIT DROP AS
SELECT id, (row_number() OVER (ORDER BY id) - 1) * (SELECT count(*) FROM copied) AS before
FROM ledger_transaction WHERE account_id = %(account)s;
CREATE TEMP TABLE begun ON COMMIT DROP AS
SELECT nextval('ledger_transaction_id_seq') AS id,
       (SELECT min(account_id) FROM copied) AS account_id;

INSERT INTO ledger_posting (id, account_id, key, correction, kind, from_ms, at_ms, recorded_at,
    local_day, band, energy_wh, legs, amounts, customer_micro, balance_micro, corrects, explanation)
OVERRIDING SYSTEM VALUE
SELECT b.id + n.before + c.account_id - b.account_id, c.account_id,
    replace(t.key, %(template)s, c.account), t.correction, t.kind, t.from_ms, t.at_ms, t.recorded_at,
    t.local_day, t.band, t.energy_wh, t.legs, t.amounts, t.customer_micro, t.balance_micro, NULL,
    t.explanation
FROM begun b CROSS JOIN copied c CROSS JOIN ledger_posting t JOIN numbered n ON n.id = t.id
WHERE t.account_id = %(account)s
ORDER BY c.account_id, t.id;

-- Debits in the order in which a fleet's readings come: an account's neighbours are strangers.
INSERT INTO energy_debit (id, account_id, meter_id, from_ms, at_ms, recorded_ms, to_wh, energy_wh,
    position_wh, balance_micro, pricing_id, local_day, amounts, bases)
SELECT b.id + n.before + c.account_id - b.account_id, c.account_id, c.meter_id, d.from_ms, d.at_ms,
    d.recorded_ms, d.to_wh, d.energy_wh, d.position_wh, d.balance_micro, d.pricing_id, d.local_day,
    d.amounts, d.bases
FROM begun b CROSS JOIN copied c CROSS JOIN energy_debit d JOIN numbered n ON n.id = d.id
WHERE d.account_id = %(account)s
ORDER BY d.at_ms, c.account_id;

-- The numbers are taken, for whoever records something next.
SELECT count(nextval('ledger_transaction_id_seq'))
FROM generate_series(1, (SELECT count(*) FROM numbered) * (SELECT count(*) FROM copied));
