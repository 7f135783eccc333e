-- The double-entry ledger. One row is one transaction: its legs stand beside each other in two
-- arrays, so the database itself refuses a transaction that does not sum to zero.

CREATE TABLE ledger_account (
    id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code text NOT NULL UNIQUE
);
INSERT INTO ledger_account (code) VALUES
    ('customer'), ('revenue:energy'), ('revenue:standing'), ('debt'), ('opening');

CREATE FUNCTION sums_to_zero(amounts bigint[]) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE total numeric := 0; amount bigint;
BEGIN
    FOREACH amount IN ARRAY amounts LOOP total := total + amount; END LOOP;
    RETURN total = 0;
END $$;

CREATE TABLE ledger_transaction (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES account,
    -- the place of the posting in the ideal ledger, and how often it was corrected: the idempotency key
    key text NOT NULL,
    correction integer NOT NULL CHECK (correction >= 0),
    kind text NOT NULL CHECK (kind IN
        ('opening_debt', 'energy', 'standing', 'daily_debt', 'top_up', 'reversal')),
    from_ms bigint,                       -- energy: the segment is (from_ms, at]
    at_ms bigint NOT NULL,                -- the instant that it is for
    recorded_at timestamptz NOT NULL,     -- the instant that we knew it
    local_day date NOT NULL,
    band text,
    energy_wh bigint NOT NULL,
    legs smallint[] NOT NULL,             -- ledger_account.id
    amounts bigint[] NOT NULL,            -- micro-units, beside legs
    customer_micro bigint NOT NULL,       -- the customer's leg
    balance_micro bigint NOT NULL,        -- the customer's balance once this is recorded
    corrects bigint REFERENCES ledger_transaction,
    explanation jsonb NOT NULL,
    UNIQUE (account_id, key, correction),
    CHECK (cardinality(legs) = cardinality(amounts)),
    CHECK (sums_to_zero(amounts)),
    CHECK ((correction = 0) = (corrects IS NULL))
);
CREATE INDEX ledger_transaction_by_time ON ledger_transaction (account_id, at_ms);
CREATE INDEX ledger_transaction_by_id ON ledger_transaction (account_id, id);
CREATE TRIGGER ledger_transaction_is_append_only BEFORE UPDATE OR DELETE ON ledger_transaction
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_transaction_is_not_truncated BEFORE TRUNCATE ON ledger_transaction
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE VIEW ledger_entry AS
    SELECT t.id AS transaction_id, t.account_id, t.at_ms, t.recorded_at, a.code, e.amount AS amount_micro
    FROM ledger_transaction t
    CROSS JOIN LATERAL unnest(t.legs, t.amounts) AS e (leg, amount)
    JOIN ledger_account a ON a.id = e.leg;
