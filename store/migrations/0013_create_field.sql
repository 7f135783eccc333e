-- Meters in the field: who is behind what, which readings never came, whose clock is wrong, who
-- looks like two, and where the supply itself is away.

ALTER TABLE gateway
    ADD COLUMN online boolean,
    ADD COLUMN seen_at timestamptz;
ALTER TABLE meter
    -- the transformer that feeds it, as the grid names it
    ADD COLUMN transformer text CHECK (transformer ~ '^[[:graph:]]{1,64}$'),
    -- how often it reads; null: not known
    ADD COLUMN interval_s integer CHECK (interval_s BETWEEN 1 AND 86400);
CREATE INDEX meter_by_gateway ON meter (gateway_id) WHERE gateway_id IS NOT NULL;
CREATE INDEX meter_by_transformer ON meter (transformer) WHERE transformer IS NOT NULL;

ALTER TABLE meter_state
    -- its last word was that the supply fails; null once it speaks of itself again
    ADD COLUMN power_failed_at timestamptz,
    ADD COLUMN clock text NOT NULL DEFAULT 'sync' CHECK (clock IN ('sync', 'drift', 'lost')),
    -- connections since an instant: two devices of one name take the connection from each other
    ADD COLUMN hellos_since timestamptz,
    ADD COLUMN hellos integer NOT NULL DEFAULT 0;

-- Readings that a meter's counter says it made and that never came: all between two that did, in
-- the order (boot, seq).
CREATE TABLE gap (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter_id bigint NOT NULL REFERENCES meter,
    after_boot bigint NOT NULL, after_seq bigint NOT NULL, after_ts timestamptz NOT NULL,
    before_boot bigint NOT NULL, before_seq bigint NOT NULL, before_ts timestamptz NOT NULL,
    opened_at timestamptz NOT NULL,
    asks smallint NOT NULL DEFAULT 0,
    asked_at timestamptz,
    -- the resend commands of the last ask
    requests uuid[] NOT NULL DEFAULT '{}',
    closed_at timestamptz,
    reason text CHECK (reason IN ('filled', 'not_kept', 'not_supported', 'no_answer')),
    CHECK ((after_boot, after_seq) < (before_boot, before_seq)),
    CHECK ((closed_at IS NULL) = (reason IS NULL))
);
CREATE INDEX gap_open ON gap (meter_id) WHERE closed_at IS NULL;
CREATE INDEX gap_waiting ON gap (opened_at) WHERE closed_at IS NULL;
CREATE INDEX gap_asked ON gap (asked_at) WHERE asked_at IS NOT NULL;
CREATE INDEX gap_by_meter ON gap (meter_id, id);

-- Meters that look like two, or like another: a list for people, one open row per meter and kind.
CREATE TABLE meter_flag (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter_id bigint NOT NULL REFERENCES meter,
    kind text NOT NULL CHECK (kind IN ('seq_reused', 'boot_reused', 'take_over')),
    detail text NOT NULL,                 -- of the first time
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    times integer NOT NULL DEFAULT 1,
    cleared_at timestamptz,
    cleared_by text,
    note text,
    CHECK (num_nulls(cleared_at, cleared_by, note) IN (0, 3))
);
CREATE UNIQUE INDEX meter_flag_open ON meter_flag (meter_id, kind) WHERE cleared_at IS NULL;

-- What is known of a meter's clock: a judgement of ours that differs from the one before, or the
-- meter's own word that it set it. `offset_ms` is by how much the meter's clock was ahead of ours.
CREATE TABLE clock_change (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter_id bigint NOT NULL REFERENCES meter,
    at timestamptz NOT NULL,              -- our clock
    kind text NOT NULL CHECK (kind IN ('measured', 'set')),
    judged text NOT NULL CHECK (judged IN ('sync', 'drift', 'lost')),
    offset_ms bigint NOT NULL
);
CREATE INDEX clock_change_by_meter ON clock_change (meter_id, at);

-- What a person made of a reading with a lost clock; the reading itself stays as it came.
CREATE TABLE clock_resolution (
    meter_id bigint NOT NULL REFERENCES meter,
    register text NOT NULL,
    ts timestamptz NOT NULL,              -- as the meter said
    decision text NOT NULL CHECK (decision IN ('accepted', 'discarded')),
    corrected_ts timestamptz,
    decided_by text NOT NULL CHECK (btrim(decided_by) <> ''),
    note text NOT NULL CHECK (btrim(note) <> ''),
    decided_at timestamptz NOT NULL,
    PRIMARY KEY (meter_id, register, ts),
    CHECK ((decision = 'accepted') = (corrected_ts IS NOT NULL))
);
CREATE TRIGGER clock_resolution_is_append_only BEFORE UPDATE OR DELETE ON clock_resolution
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER clock_resolution_is_not_truncated BEFORE TRUNCATE ON clock_resolution
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Most meters of a gateway or of a transformer silent at once. While it lasts nothing is decided
-- against them.
CREATE TABLE outage (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope text NOT NULL CHECK (scope IN ('gateway', 'transformer')),
    name text NOT NULL,
    cause text NOT NULL CHECK (cause IN ('power_fail', 'gateway_offline', 'silence')),
    started_at timestamptz NOT NULL,      -- when most of them were last heard
    opened_at timestamptz NOT NULL,       -- when we knew
    meters integer NOT NULL,
    silent integer NOT NULL,              -- as it was opened
    ended_at timestamptz
);
CREATE UNIQUE INDEX outage_open ON outage (scope, name) WHERE ended_at IS NULL;
CREATE INDEX outage_by_time ON outage (opened_at);
CREATE INDEX outage_by_name ON outage (scope, name, started_at);

-- Duties that one worker at a time does for all, and when each was last done.
CREATE TABLE duty (
    name text PRIMARY KEY,
    done_at timestamptz NOT NULL
);

-- Gateways report, too.
ALTER TABLE event
    ALTER COLUMN meter_id DROP NOT NULL,
    ADD COLUMN gateway_id bigint REFERENCES gateway,
    ADD CHECK (num_nonnulls(meter_id, gateway_id) = 1),
    ADD CONSTRAINT event_of_gateway_once UNIQUE (gateway_id, fingerprint);
