-- Vending with a memory: vending keys and their succession, key changes, campaigns, engineering
-- tokens, reprints.

-- Which vending key a supply group uses from when on. The octets are in the security module alone;
-- `check_value` is what people compare. The current one of a group is the newest that has begun.
CREATE TABLE vending_key (
    sgc text NOT NULL CHECK (sgc ~ '^[0-9]{6}$'),
    current_from timestamptz NOT NULL,
    krn smallint NOT NULL CHECK (krn BETWEEN 1 AND 9),
    ken smallint NOT NULL CHECK (ken BETWEEN 0 AND 255),
    base_date smallint NOT NULL CHECK (base_date IN (1993, 2014, 2035)),
    dkga smallint NOT NULL CHECK (dkga IN (2, 4)),
    check_value text NOT NULL CHECK (check_value ~ '^[0-9A-F]{6}$'),
    recorded_by text NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (sgc, current_from)
);
CREATE TRIGGER vending_key_is_immutable BEFORE UPDATE OR DELETE ON vending_key
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- The STS columns of a meter are what it holds, as it reported or an operator confirmed. These say
-- what it should hold instead; null where that is the same.
ALTER TABLE meter
    ADD COLUMN wanted_sgc text CHECK (wanted_sgc ~ '^[0-9]{6}$'),
    ADD COLUMN wanted_ti text CHECK (wanted_ti ~ '^[0-9]{2}$'),
    -- an EA07 meter of the 2014 edition knows the third key change token, which carries the SGC
    ADD COLUMN third_kct boolean NOT NULL DEFAULT false;
CREATE INDEX meter_by_sgc ON meter (sgc, id) WHERE sgc IS NOT NULL;

-- A set of key change tokens. Until it is confirmed the meter may hold either key, so that a meter
-- has at most one open set, and its credit goes under the new key, behind the set.
CREATE TABLE key_change (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter_id bigint NOT NULL REFERENCES meter,
    from_sgc text NOT NULL, from_krn smallint NOT NULL, from_kt smallint NOT NULL,
    from_ken smallint NOT NULL, from_ti text NOT NULL, from_base_date smallint NOT NULL,
    from_ea smallint NOT NULL, from_dkga smallint NOT NULL,
    to_sgc text NOT NULL, to_krn smallint NOT NULL, to_kt smallint NOT NULL,
    to_ken smallint NOT NULL, to_ti text NOT NULL, to_base_date smallint NOT NULL,
    to_ea smallint NOT NULL, to_dkga smallint NOT NULL,
    digits text[] NOT NULL CHECK (cardinality(digits) BETWEEN 2 AND 4),
    subclasses smallint[] NOT NULL CHECK (cardinality(subclasses) = cardinality(digits)),
    issued_at timestamptz NOT NULL,
    entered_at timestamptz,                -- the meter took a first token of the set
    confirmed_at timestamptz,              -- the new key is in force
    confirmed_by text,                     -- an operator, or null for the meter's own word
    abandoned_at timestamptz,
    abandoned_by text,
    abandoned_reason text,
    CHECK ((abandoned_at IS NULL) = (abandoned_reason IS NULL))
);
CREATE UNIQUE INDEX key_change_open ON key_change (meter_id)
    WHERE confirmed_at IS NULL AND abandoned_at IS NULL;
CREATE INDEX key_change_by_meter ON key_change (meter_id, id);

-- A roll-over of a supply group's meters to its current vending key, in batches.
CREATE TABLE campaign (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code text NOT NULL UNIQUE,
    sgc text NOT NULL,
    krn smallint NOT NULL, base_date smallint NOT NULL, ken smallint NOT NULL,
    reason text NOT NULL,
    planned_by text NOT NULL,
    planned_at timestamptz NOT NULL
);
CREATE TABLE campaign_meter (
    campaign_id integer NOT NULL REFERENCES campaign,
    meter_id bigint NOT NULL REFERENCES meter,
    batch integer NOT NULL CHECK (batch > 0),
    key_change_id bigint REFERENCES key_change,
    refusal text,                          -- why no set could be issued, as a sentence
    PRIMARY KEY (campaign_id, meter_id)
);
CREATE INDEX campaign_meter_batch ON campaign_meter (campaign_id, batch, meter_id);

-- Tokens for work on a meter: asked for by one person with a reason, approved by another.
CREATE TABLE engineering_token (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter_id bigint NOT NULL REFERENCES meter,
    class smallint NOT NULL,
    subclass smallint NOT NULL,
    fields jsonb NOT NULL,
    reason text NOT NULL CHECK (btrim(reason) <> ''),
    requested_by text NOT NULL CHECK (btrim(requested_by) <> ''),
    requested_at timestamptz NOT NULL,
    decision text CHECK (decision IN ('approved', 'refused')),
    decided_by text,
    decided_at timestamptz,
    decision_reason text,
    CHECK (num_nulls(decision, decided_by, decided_at) IN (0, 3)),
    CHECK (decision IS DISTINCT FROM 'approved'
           OR lower(btrim(decided_by)) <> lower(btrim(requested_by)))
);
CREATE INDEX engineering_token_open ON engineering_token (requested_at) WHERE decision IS NULL;

-- A token belongs to a top-up, a key change set or an engineering request. Class 1 is in clear and
-- the sections of a key change carry no TID.
ALTER TABLE token
    ALTER COLUMN top_up_id DROP NOT NULL,
    ALTER COLUMN tid DROP NOT NULL,
    ALTER COLUMN sgc DROP NOT NULL,
    ALTER COLUMN krn DROP NOT NULL,
    ALTER COLUMN base_date DROP NOT NULL,
    ADD COLUMN key_change_id bigint REFERENCES key_change,
    ADD COLUMN engineering_token_id bigint UNIQUE REFERENCES engineering_token,
    ADD CHECK (num_nonnulls(top_up_id, key_change_id, engineering_token_id) > 0),
    ADD CHECK (class <> 0 OR (top_up_id IS NOT NULL AND tid IS NOT NULL)),
    ADD CHECK (class = 1 OR (sgc IS NOT NULL AND krn IS NOT NULL AND base_date IS NOT NULL)),
    -- A meter keeps the TIDs that it took when its key changes, as long as the base date stays:
    -- the same minute under the new key would be a used one.
    DROP CONSTRAINT token_meter_id_sgc_krn_base_date_tid_key,
    ADD CONSTRAINT token_tid_is_used_once UNIQUE (meter_id, base_date, tid);
CREATE INDEX token_by_digits ON token (digits);
CREATE INDEX token_by_key_change ON token (key_change_id) WHERE key_change_id IS NOT NULL;

-- Tokens that were shown again: to whom, and why.
CREATE TABLE reprint (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    top_up_id text NOT NULL REFERENCES top_up,
    reprinted_by text NOT NULL,
    reason text NOT NULL,
    reprinted_at timestamptz NOT NULL
);
CREATE INDEX reprint_by_top_up ON reprint (top_up_id);
CREATE TRIGGER reprint_is_immutable BEFORE UPDATE OR DELETE ON reprint
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER vending_key_is_not_truncated BEFORE TRUNCATE ON vending_key
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER reprint_is_not_truncated BEFORE TRUNCATE ON reprint
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
