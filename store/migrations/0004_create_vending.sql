-- Money in, tokens and commands out.

CREATE TABLE top_up (
    id text PRIMARY KEY,                  -- UUIDv7: the order of rating.md section 7 is the order of ids
    account_id bigint NOT NULL REFERENCES account,
    meter_id bigint NOT NULL REFERENCES meter,
    channel text NOT NULL,
    partner_txn_id text NOT NULL,
    request_sha256 bytea NOT NULL,        -- the same key with another body is a conflict
    amount_micro bigint NOT NULL CHECK (amount_micro > 0),
    paid_at timestamptz NOT NULL,
    credited_ms bigint NOT NULL,          -- the fact's time
    receipt_number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    energy_wh bigint NOT NULL CHECK (energy_wh >= 0),
    lines jsonb NOT NULL,                 -- the quote at that instant, line by line
    msisdn text,
    token_issued_at timestamptz,
    delivered_at timestamptz,
    accepted_at timestamptz,
    on_supply_at timestamptz,
    rejected_at timestamptz,
    UNIQUE (channel, partner_txn_id)
);
CREATE INDEX top_up_by_account ON top_up (account_id, credited_ms);
CREATE INDEX top_up_before_supply ON top_up (meter_id) WHERE on_supply_at IS NULL;

CREATE TABLE reversal (
    top_up_id text PRIMARY KEY REFERENCES top_up,
    account_id bigint NOT NULL REFERENCES account,
    reversed_ms bigint NOT NULL,
    reason text NOT NULL
);
CREATE INDEX reversal_by_account ON reversal (account_id, reversed_ms);

CREATE TABLE emergency_request (
    account_id bigint NOT NULL REFERENCES account,
    requested_ms bigint NOT NULL,
    PRIMARY KEY (account_id, requested_ms)
);

CREATE TABLE command (
    id uuid PRIMARY KEY,                  -- UUIDv7
    meter_id bigint NOT NULL REFERENCES meter,
    ctr bigint NOT NULL,
    type text NOT NULL CHECK (type IN
        ('relay', 'arm', 'token', 'credit', 'limit', 'read', 'resend', 'display')),
    args jsonb NOT NULL,
    state text NOT NULL DEFAULT 'queued' CHECK (state IN
        ('queued', 'sent', 'accepted', 'executing', 'done', 'failed', 'refused', 'expired',
         'superseded', 'unknown')),
    issued_ms bigint NOT NULL,
    expires_ms bigint NOT NULL,
    sent_at timestamptz,
    answered_at timestamptz,
    answer jsonb,
    UNIQUE (meter_id, ctr)
);
CREATE INDEX command_outbox ON command (issued_ms) WHERE state = 'queued';
CREATE INDEX command_open ON command (expires_ms)
    WHERE state IN ('queued', 'sent', 'accepted', 'executing');

CREATE FUNCTION announce_command() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('command', '');
    RETURN NULL;
END $$;
CREATE TRIGGER command_is_announced AFTER INSERT ON command
    FOR EACH STATEMENT EXECUTE FUNCTION announce_command();

-- An STS token, stored before it is shown. A TID is used once per meter and key.
CREATE TABLE token (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter_id bigint NOT NULL REFERENCES meter,
    top_up_id text NOT NULL REFERENCES top_up,
    ordinal smallint NOT NULL,
    digits text NOT NULL CHECK (digits ~ '^[0-9]{20}$'),
    class smallint NOT NULL, subclass smallint NOT NULL,
    amount bigint NOT NULL,               -- in the unit of the subclass
    sgc text NOT NULL, krn smallint NOT NULL, base_date smallint NOT NULL,
    tid integer NOT NULL,
    issued_at timestamptz NOT NULL,
    command_id uuid REFERENCES command,
    result text,                          -- IEC 62055-41 result name, as the meter said
    answered_at timestamptz,
    UNIQUE (top_up_id, ordinal),
    UNIQUE (meter_id, sgc, krn, base_date, tid)
);
CREATE INDEX token_by_command ON token (command_id);

-- The demonstration's own time, when it runs faster than the wall clock.
CREATE TABLE simulated_clock (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    now_ms bigint NOT NULL
);
