-- Payments that a customer starts with us: one row per attempt, every step kept, and the payments
-- that wait for a person for one more reason.

-- One try to pay by a configured method. Until its money is credited this row says what is known.
-- Columns in real time (`_wall_ms`) pace what we ask the channel; instants are the system's clock.
CREATE TABLE payment_attempt (
    id text PRIMARY KEY,                  -- UUIDv7, and what the channel knows the attempt by
    account_id bigint NOT NULL REFERENCES account,
    meter text NOT NULL,                  -- that served the account when it was started
    method text NOT NULL,                 -- names the ledger account clearing:METHOD for ever
    started_by text NOT NULL CHECK (btrim(started_by) <> ''),
    idempotency_key text NOT NULL,
    request_sha256 bytea NOT NULL CHECK (octet_length(request_sha256) = 32),
    amount_micro bigint NOT NULL CHECK (amount_micro > 0),
    unusual_confirmed boolean NOT NULL,   -- the payer was asked about a size that is unusual
    msisdn text,
    state text NOT NULL CHECK (state IN
        ('started', 'pending', 'unknown', 'received', 'paid', 'failed', 'expired')),
    order_reference text,                 -- the channel's own name for the order
    going_on jsonb,                       -- where the payer goes on: address, method, fields
    lapses_wall_ms bigint,                -- after it the channel takes no money for the order
    asked_wall_ms bigint,                 -- from then on money may have moved
    checks integer NOT NULL DEFAULT 0 CHECK (checks >= 0),
    next_check_wall_ms bigint,            -- null: nothing more is asked
    -- what the channel said of the money: its number, the amount where it named one, and when
    provider_reference text,
    told_micro bigint CHECK (told_micro > 0),
    paid_ms bigint,
    top_up_id text UNIQUE REFERENCES top_up,
    suspect_id text UNIQUE REFERENCES suspect_payment,
    UNIQUE (started_by, idempotency_key),
    -- one payment of a channel belongs to one attempt
    UNIQUE (method, provider_reference),
    CHECK ((state IN ('received', 'paid')) = (provider_reference IS NOT NULL)),
    CHECK ((provider_reference IS NULL) = (paid_ms IS NULL)),
    CHECK ((state = 'paid') = (num_nonnulls(top_up_id, suspect_id) = 1)),
    CHECK (num_nonnulls(top_up_id, suspect_id) < 2)
);
CREATE INDEX payment_attempt_by_account ON payment_attempt (account_id, id);
CREATE INDEX payment_attempt_due ON payment_attempt (next_check_wall_ms)
    WHERE next_check_wall_ms IS NOT NULL;
CREATE INDEX payment_attempt_open ON payment_attempt (id)
    WHERE state IN ('pending', 'unknown', 'received');

-- Every step of an attempt, with its time and who brought it.
CREATE TABLE payment_step (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    attempt_id text NOT NULL REFERENCES payment_attempt,
    state text NOT NULL,
    word text NOT NULL,                   -- what was said or done, as a short code
    brought_by text NOT NULL,             -- customer, channel, check, clock, or an operator
    detail text,
    at_ms bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX payment_step_by_attempt ON payment_step (attempt_id, id);
CREATE TRIGGER payment_step_is_append_only BEFORE UPDATE OR DELETE ON payment_step
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payment_step_is_not_truncated BEFORE TRUNCATE ON payment_step
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payment_attempt_is_not_truncated BEFORE TRUNCATE ON payment_attempt
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Notifications that nobody may believe: counted, since whoever forges them would fill a table.
CREATE TABLE notification_refusal (
    method text NOT NULL,
    reason text NOT NULL,
    day_ms bigint NOT NULL,
    count bigint NOT NULL CHECK (count > 0),
    PRIMARY KEY (method, reason, day_ms)
);

-- A channel may say another amount than was ordered, and money may come for nothing we ordered.
ALTER TABLE suspect_payment DROP CONSTRAINT suspect_payment_suspicion_check,
    ADD CONSTRAINT suspect_payment_suspicion_check CHECK (suspicion IN
        ('unknown_meter', 'unusual_amount', 'paid_twice', 'amount_differs'));
