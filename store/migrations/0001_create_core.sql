-- Who is supplied, by what meter, at what price; and the state that the engine keeps per account.

CREATE EXTENSION IF NOT EXISTS timescaledb;

-- Instants travel as integer milliseconds (rating.md section 1); these two are exact inverses.
CREATE FUNCTION at_ms(ms bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$ SELECT timestamptz '1970-01-01 00:00:00+00' + ms * interval '1 millisecond' $$;
CREATE FUNCTION ms_of(at timestamptz) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$ SELECT (extract(epoch FROM at) * 1000)::bigint $$;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: write a new row that corrects the old one', TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE TABLE centre (
    id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code text NOT NULL UNIQUE,
    name text NOT NULL
);

CREATE TABLE customer (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    created_at timestamptz NOT NULL
);

-- Credentials of people and programs; only the SHA-256 of a key is kept.
CREATE TABLE access_key (
    sha256 bytea PRIMARY KEY CHECK (octet_length(sha256) = 32),
    role text NOT NULL CHECK (role IN ('customer', 'operator')),
    customer_id bigint REFERENCES customer,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    CHECK ((role = 'customer') = (customer_id IS NOT NULL))
);

-- A tariff is a series of immutable versions (rating.md section 4).
CREATE TABLE tariff (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code text NOT NULL UNIQUE,
    name text NOT NULL,
    currency text NOT NULL,
    timezone text NOT NULL,
    holidays jsonb NOT NULL DEFAULT '[]'
);
CREATE TABLE tariff_version (
    tariff_id integer NOT NULL REFERENCES tariff,
    valid_from date NOT NULL,
    body jsonb NOT NULL,
    PRIMARY KEY (tariff_id, valid_from)
);
CREATE TRIGGER tariff_version_is_immutable BEFORE UPDATE OR DELETE ON tariff_version
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- One account per supply point. `terms` is the `account` part of rating.md section 10.
CREATE TABLE account (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number text NOT NULL UNIQUE,
    customer_id bigint NOT NULL REFERENCES customer,
    centre_id smallint NOT NULL REFERENCES centre,
    tariff_id integer NOT NULL REFERENCES tariff,
    terms jsonb NOT NULL,
    opened_at timestamptz NOT NULL
);
CREATE INDEX account_by_customer ON account (customer_id);

-- What the engine knows at the anchor, and what follows from it; the only row of an account that
-- the hot path updates, and the row whose lock serialises everything about the account.
CREATE TABLE account_state (
    account_id bigint PRIMARY KEY REFERENCES account,
    position jsonb NOT NULL,
    anchor_ms bigint NOT NULL,
    -- the first meter's opening: readings up to it are before the installation
    opened_ms bigint NOT NULL,
    -- the newest reading of any verdict: a reading after it is in order
    newest_reading_ms bigint NOT NULL,
    -- true when facts or postings beside energy stand at or after the anchor: they are rated again
    has_tail boolean NOT NULL,
    settled_until_ms bigint NOT NULL,
    -- the next instant at which time alone may change something; the clockwork's schedule
    due_ms bigint NOT NULL,
    balance_micro bigint NOT NULL,
    debt_micro bigint NOT NULL CHECK (debt_micro >= 0),
    supply text NOT NULL CHECK (supply IN ('connected', 'protected', 'disconnected')),
    emergency_in_use boolean NOT NULL,
    -- grows when a tariff version or a term changes: workers keep parsed terms by it
    terms_revision integer NOT NULL DEFAULT 1
) WITH (fillfactor = 70);
CREATE INDEX account_state_due ON account_state (due_ms);

-- Stored positions to rate again from when a fact arrives late. They affect cost, never meaning.
CREATE TABLE checkpoint (
    account_id bigint NOT NULL REFERENCES account,
    anchor_ms bigint NOT NULL,
    position jsonb NOT NULL,
    PRIMARY KEY (account_id, anchor_ms)
);

CREATE TABLE gateway (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number text NOT NULL UNIQUE
);

-- A payment meter. The STS columns are IEC 62055-41 key attributes; all null when it takes no tokens.
CREATE TABLE meter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number text NOT NULL UNIQUE,
    centre_id smallint NOT NULL REFERENCES centre,
    gateway_id bigint REFERENCES gateway,
    meter_pan text,
    sgc text, krn smallint, kt smallint, ken smallint, ti text,
    base_date smallint, ea smallint, dkga smallint,
    CHECK (num_nulls(meter_pan, sgc, krn, kt, ken, ti, base_date, ea, dkga) IN (0, 9))
);

-- What the meter last said and what it should do: desired against reported (mqtt.md section 3).
CREATE TABLE meter_state (
    meter_id bigint PRIMARY KEY REFERENCES meter,
    boot bigint, seq bigint, seq_ts timestamptz,
    online boolean,
    seen_at timestamptz,
    next_ctr bigint NOT NULL DEFAULT 1,
    desired_relay text NOT NULL DEFAULT 'closed' CHECK (desired_relay IN ('open', 'closed')),
    desired_version bigint NOT NULL DEFAULT 0,
    reported_relay text CHECK (reported_relay IN ('open', 'closed', 'armed')),
    reported_at timestamptz
) WITH (fillfactor = 70);
CREATE INDEX meter_state_unreconciled ON meter_state (meter_id)
    WHERE reported_relay <> desired_relay;

-- Which meter measured which account, and when: `(opened_at, next opened_at]` of the account.
CREATE TABLE installation (
    account_id bigint NOT NULL REFERENCES account,
    opened_at timestamptz NOT NULL,
    meter_id bigint NOT NULL REFERENCES meter,
    opening_wh bigint NOT NULL CHECK (opening_wh >= 0),
    -- the closing value of the meter that this one replaces; null for the first
    closing_wh bigint CHECK (closing_wh >= 0),
    max_power_w bigint CHECK (max_power_w > 0),
    modulus_wh bigint NOT NULL CHECK (modulus_wh > 0),
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, opened_at)
);
CREATE INDEX installation_by_meter ON installation (meter_id, opened_at);
CREATE TRIGGER installation_is_immutable BEFORE UPDATE OR DELETE ON installation
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
