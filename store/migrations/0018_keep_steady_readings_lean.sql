-- A steady reading (credit_engine.steady) moves few numbers of its account and makes one debit. Both
-- are kept in rows that are as small as that, so that the hot path writes three short rows (ADR 0019).

ALTER TABLE account_state
    -- what steady readings moved since `position` was written: the register, then the energy and the
    -- taxed charges in the order of `position` (credit_engine.position); null: nothing
    ADD COLUMN numbers bigint[],
    -- the newest steady word of the meter that serves the account, where `meter_state` is older
    ADD COLUMN heard_meter_id bigint,
    ADD COLUMN heard_boot bigint,
    ADD COLUMN heard_seq bigint,
    ADD COLUMN heard_ms bigint,           -- the reading's instant
    ADD COLUMN heard_relay_ms bigint,     -- that of the newest that told the relay
    ADD COLUMN heard_at_ms bigint;        -- our clock
-- What a steady reading leaves as it is, stands outside the row, so that it is not written again.
ALTER TABLE account_state ALTER COLUMN position SET STORAGE EXTERNAL;
ALTER TABLE account_state ALTER COLUMN numbers SET STORAGE PLAIN;
ALTER TABLE account_state SET (toast_tuple_target = 256);
CREATE INDEX account_state_heard ON account_state (heard_meter_id);

-- Meters as last heard: what they said of themselves, or in a steady reading.
CREATE VIEW meter_heard AS
SELECT s.meter_id, s.online, s.desired_relay, s.reported_relay, s.power_failed_at,
       CASE WHEN h.later THEN h.heard_boot ELSE s.boot END AS boot,
       CASE WHEN h.later THEN h.heard_seq ELSE s.seq END AS seq,
       CASE WHEN h.later THEN at_ms(h.heard_ms) ELSE s.seq_ts END AS seq_ts,
       greatest(s.seen_at, at_ms(h.heard_at_ms)) AS seen_at,
       greatest(s.reported_at, at_ms(h.heard_relay_ms)) AS reported_at
FROM meter_state s
LEFT JOIN LATERAL (
    SELECT a.heard_boot, a.heard_seq, a.heard_ms, a.heard_relay_ms, a.heard_at_ms,
           s.boot IS NOT NULL AND (a.heard_boot, a.heard_seq) > (s.boot, s.seq) AS later
    FROM account_state a WHERE a.heard_meter_id = s.meter_id
    ORDER BY a.heard_at_ms DESC LIMIT 1) h ON true;

-- A worker keeps what it knows of a meter as long as its state row is the same version; so whatever
-- else it knows of a meter shows there, too.
CREATE FUNCTION touch_meter_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'meter' THEN
        UPDATE meter_state SET meter_id = meter_id WHERE meter_id = NEW.id;
    ELSE
        UPDATE meter_state SET meter_id = meter_id WHERE meter_id = NEW.meter_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER installation_shows AFTER INSERT ON installation
    FOR EACH ROW EXECUTE FUNCTION touch_meter_state();
CREATE TRIGGER meter_change_shows AFTER UPDATE ON meter
    FOR EACH ROW EXECUTE FUNCTION touch_meter_state();
CREATE TRIGGER top_up_shows AFTER INSERT ON top_up
    FOR EACH ROW EXECUTE FUNCTION touch_meter_state();

-- What prices the energy of steady readings: a band of a version in a period, the block that all of
-- the energy falls into, the taxes on it, and the ledger accounts that a debit moves.
CREATE TABLE pricing (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sha256 bytea NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    band text NOT NULL,
    price_micro_per_wh bigint NOT NULL CHECK (price_micro_per_wh > 0),
    legs smallint[] NOT NULL,             -- ledger_account.id: customer, revenue, taxes in order
    body jsonb NOT NULL                   -- valid_from, period, method, taxes [{name, ppm, included}]
);
CREATE TRIGGER pricing_is_immutable BEFORE UPDATE OR DELETE ON pricing
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER pricing_is_not_truncated BEFORE TRUNCATE ON pricing
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The ledger is two tables of one sequence and one view. `ledger_posting` holds any transaction.
ALTER TABLE ledger_transaction RENAME TO ledger_posting;
-- What is corrected may stand in either; the audit's law `corrections_point_home` sees to it.
ALTER TABLE ledger_posting DROP CONSTRAINT ledger_transaction_corrects_fkey;

-- The debit of a steady reading: a ledger transaction by its numbers alone. Its account was locked
-- when it was written (so it exists), and it is the first of its key: `energy:FROM-AT`.
CREATE TABLE energy_debit (
    id bigint NOT NULL DEFAULT nextval('ledger_transaction_id_seq'),
    account_id bigint NOT NULL,
    meter_id bigint NOT NULL,
    from_ms bigint NOT NULL,
    at_ms bigint NOT NULL,
    recorded_ms bigint NOT NULL,
    to_wh bigint NOT NULL,                -- the register at at_ms
    energy_wh bigint NOT NULL CHECK (energy_wh > 0),
    position_wh bigint NOT NULL,          -- what the period had used in this band before
    balance_micro bigint NOT NULL,        -- the customer's balance once this is recorded
    pricing_id integer NOT NULL,
    local_day date NOT NULL,
    amounts bigint[] NOT NULL,            -- micro-units, beside the legs of its pricing
    bases bigint[] NOT NULL,              -- of each tax: the month's charges with this one
    PRIMARY KEY (account_id, at_ms),
    CHECK (cardinality(amounts) = cardinality(bases) + 2 AND cardinality(amounts) <= 6),
    CONSTRAINT energy_debit_sums_to_zero CHECK (amounts[1] + amounts[2] + coalesce(amounts[3], 0) + coalesce(amounts[4], 0)
           + coalesce(amounts[5], 0) + coalesce(amounts[6], 0) = 0)
);
-- Numbers grow with the table.
CREATE INDEX energy_debit_by_id ON energy_debit USING brin (id) WITH (pages_per_range = 32);
CREATE TRIGGER energy_debit_is_append_only BEFORE UPDATE OR DELETE ON energy_debit
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER energy_debit_is_not_truncated BEFORE TRUNCATE ON energy_debit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The explanation of an energy debit, as the engine words it (credit_engine.rating).
CREATE FUNCTION explain_debit(d energy_debit, p pricing) RETURNS jsonb
    LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'meter', (SELECT m.number FROM meter m WHERE m.id = d.meter_id),
        'registers', jsonb_build_object(
            'from', jsonb_build_object('at_ms', d.from_ms, 'wh', d.to_wh - d.energy_wh),
            'to', jsonb_build_object('at_ms', d.at_ms, 'wh', d.to_wh)),
        'segment', jsonb_build_object('from_ms', d.from_ms, 'to_ms', d.at_ms),
        'band', p.band, 'valid_from', p.body -> 'valid_from', 'period', p.body -> 'period',
        'position_wh', d.position_wh, 'method', p.body -> 'method',
        'blocks', jsonb_build_array(jsonb_build_object(
            'wh', d.energy_wh, 'price_micro_per_wh', p.price_micro_per_wh,
            'amount_micro', d.energy_wh * p.price_micro_per_wh)),
        'charge_micro', d.energy_wh * p.price_micro_per_wh,
        'taxes', coalesce((
            SELECT jsonb_agg(t.tax || jsonb_build_object(
                       'base_micro', d.bases[t.place],
                       -- rating.md section 6, half up
                       'due_micro', CASE WHEN (t.tax ->> 'included')::boolean
                           THEN div(2 * d.bases[t.place]::numeric * (t.tax ->> 'ppm')::bigint
                                    + 1000000 + (t.tax ->> 'ppm')::bigint,
                                    2 * (1000000 + (t.tax ->> 'ppm')::bigint))
                           ELSE div(2 * d.bases[t.place]::numeric * (t.tax ->> 'ppm')::bigint
                                    + 1000000, 2000000) END,
                       'amount_micro', d.amounts[t.place + 2]) ORDER BY t.place)
            FROM jsonb_array_elements(p.body -> 'taxes') WITH ORDINALITY AS t (tax, place)), '[]'))
$$;

CREATE VIEW ledger_transaction AS
    SELECT id, account_id, key, correction, kind, from_ms, at_ms, recorded_at, local_day, band,
           energy_wh, legs, amounts, customer_micro, balance_micro, corrects, explanation
    FROM ledger_posting
    UNION ALL
    SELECT d.id, d.account_id, 'energy:' || d.from_ms || '-' || d.at_ms, 0, 'energy', d.from_ms,
           d.at_ms, at_ms(d.recorded_ms), d.local_day, p.band, d.energy_wh, p.legs, d.amounts,
           d.amounts[1], d.balance_micro, NULL::bigint, explain_debit(d, p)
    FROM energy_debit d JOIN pricing p ON p.id = d.pricing_id;

CREATE OR REPLACE VIEW ledger_entry AS
    SELECT t.id AS transaction_id, t.account_id, t.at_ms, t.recorded_at, a.code,
           e.amount AS amount_micro
    FROM ledger_transaction t
    CROSS JOIN LATERAL unnest(t.legs, t.amounts) AS e (leg, amount)
    JOIN ledger_account a ON a.id = e.leg
    UNION ALL
    SELECT -s.id, NULL, s.at_ms, at_ms(s.at_ms), a.code, e.amount
    FROM suspense_transaction s
    CROSS JOIN LATERAL unnest(s.legs, s.amounts) AS e (leg, amount)
    JOIN ledger_account a ON a.id = e.leg;
