-- Payments that somebody must look at, payments that moved, and what partners say they sent.

-- Money that we have and do not know whose it is. It stands in `suspense` until an operator decides.
CREATE TABLE suspect_payment (
    id text PRIMARY KEY,                  -- UUIDv7
    channel text NOT NULL,
    partner_txn_id text NOT NULL,
    request_sha256 bytea NOT NULL,
    meter text NOT NULL,                  -- the number as given
    account_id bigint REFERENCES account, -- null: no account has that meter
    amount_micro bigint NOT NULL CHECK (amount_micro > 0),
    paid_at timestamptz NOT NULL,
    msisdn text,
    suspicion text NOT NULL CHECK (suspicion IN ('unknown_meter', 'unusual_amount', 'paid_twice')),
    detail text NOT NULL,
    held_at timestamptz NOT NULL,
    decision text CHECK (decision IN ('credited', 'returned')),
    decided_by text,
    decided_at timestamptz,
    reason text,
    top_up_id text UNIQUE REFERENCES top_up,
    UNIQUE (channel, partner_txn_id),
    CHECK (num_nulls(decision, decided_by, decided_at, reason) IN (0, 4)),
    CHECK ((decision IS NOT DISTINCT FROM 'credited') = (top_up_id IS NOT NULL))
);
CREATE INDEX suspect_payment_open ON suspect_payment (held_at) WHERE decision IS NULL;

INSERT INTO ledger_account (code) VALUES ('suspense') ON CONFLICT DO NOTHING;
-- Ledger transactions of no customer's account: what a channel cleared into suspense, and out again.
CREATE TABLE suspense_transaction (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    suspect_id text NOT NULL REFERENCES suspect_payment,
    kind text NOT NULL CHECK (kind IN ('held', 'released')),
    at_ms bigint NOT NULL,
    legs smallint[] NOT NULL,             -- ledger_account.id
    amounts bigint[] NOT NULL,
    UNIQUE (suspect_id, kind),
    CHECK (cardinality(legs) = cardinality(amounts)),
    CHECK (sums_to_zero(amounts))
);
CREATE TRIGGER suspense_transaction_is_append_only BEFORE UPDATE OR DELETE ON suspense_transaction
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER suspense_transaction_is_not_truncated BEFORE TRUNCATE ON suspense_transaction
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

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

-- A payment to the wrong meter: its top-up is reversed and this one takes its place elsewhere.
ALTER TABLE top_up ADD COLUMN moved_from text UNIQUE REFERENCES top_up;

-- Daily reconciliation: what a partner says it sent on a business date, file by file.
CREATE TABLE reconciliation_file (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel text NOT NULL,
    business_date date NOT NULL,
    sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
    line_count integer NOT NULL CHECK (line_count >= 0),
    sum_micro bigint NOT NULL,
    received_at timestamptz NOT NULL,
    received_from text NOT NULL
);
-- A file that comes again after another is the newest again.
CREATE INDEX reconciliation_file_by_date ON reconciliation_file (channel, business_date, id);
CREATE TABLE reconciliation_line (
    file_id bigint NOT NULL REFERENCES reconciliation_file,
    ordinal integer NOT NULL CHECK (ordinal > 0),
    partner_txn_id text NOT NULL,
    meter text NOT NULL,
    amount_micro bigint NOT NULL,
    paid_at timestamptz NOT NULL,
    PRIMARY KEY (file_id, ordinal)
);
CREATE INDEX reconciliation_line_by_number ON reconciliation_line (partner_txn_id);
CREATE TRIGGER reconciliation_file_is_append_only BEFORE UPDATE OR DELETE ON reconciliation_file
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER reconciliation_line_is_append_only BEFORE UPDATE OR DELETE ON reconciliation_line
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- What the two sides come to, payment by payment. `place` is the payment of either side, so that
-- the same day matched again finds its items.
CREATE TABLE reconciliation_item (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel text NOT NULL,
    business_date date NOT NULL,
    place text NOT NULL,
    class text NOT NULL CHECK (class IN
        ('matched', 'ours_only', 'theirs_only', 'amount_differs', 'duplicate', 'late')),
    partner_txn_id text NOT NULL,
    payment_id text,                      -- our top-up or suspect payment
    their_micro bigint,
    our_micro bigint,
    owner text NOT NULL,                  -- who acts
    action text NOT NULL,                 -- what is to be done
    opened_at timestamptz NOT NULL,
    decision text,                        -- null: open
    note text,
    closed_by text,
    closed_at timestamptz,
    UNIQUE (channel, business_date, place),
    CHECK (num_nulls(decision, note, closed_by, closed_at) IN (0, 4))
);
CREATE INDEX reconciliation_item_open ON reconciliation_item (opened_at) WHERE decision IS NULL;
