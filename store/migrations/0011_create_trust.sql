-- Who may speak for a device: certificates, enrolment, verification keys, and what was refused.

-- Every certificate that was ever signed. It is public; private keys are nowhere here.
CREATE TABLE certificate (
    serial text PRIMARY KEY CHECK (serial ~ '^[0-9a-f]{1,40}$'),
    role text NOT NULL CHECK (role IN ('meter', 'gateway', 'part', 'server', 'claim')),
    name text NOT NULL CHECK (name <> ''),      -- the common name
    pem text NOT NULL,
    public_key bytea NOT NULL,                  -- SubjectPublicKeyInfo, DER
    not_before timestamptz NOT NULL,
    not_after timestamptz NOT NULL,
    issued_by text NOT NULL,                    -- a person, or the claim that asked for it
    issued_at timestamptz NOT NULL,
    revoked_at timestamptz,
    revoked_by text,
    revocation_reason text,
    CHECK (not_after > not_before),
    CHECK (num_nulls(revoked_at, revoked_by, revocation_reason) IN (0, 3))
);
CREATE INDEX certificate_by_name ON certificate (name, not_after);
CREATE INDEX certificate_revoked ON certificate (not_after) WHERE revoked_at IS NOT NULL;
CREATE FUNCTION keep_certificate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.revoked_at IS NOT NULL
       OR (to_jsonb(OLD) - '{revoked_at,revoked_by,revocation_reason}'::text[])
          <> (to_jsonb(NEW) - '{revoked_at,revoked_by,revocation_reason}'::text[]) THEN
        RAISE EXCEPTION 'certificate % is kept as it was signed: revoke it, once', OLD.serial
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER certificate_is_kept BEFORE UPDATE OR DELETE ON certificate
    FOR EACH ROW EXECUTE FUNCTION keep_certificate();
CREATE TRIGGER certificate_is_not_truncated BEFORE TRUNCATE ON certificate
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Lists of revocations are numbered; a number may be skipped, never used twice.
CREATE SEQUENCE revocation_list_number;

-- An operator's leave to enrol a meter a second time, say after a repair; used once.
CREATE TABLE reenrolment (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter_id bigint NOT NULL REFERENCES meter,
    allowed_by text NOT NULL,
    reason text NOT NULL,
    allowed_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE UNIQUE INDEX reenrolment_open ON reenrolment (meter_id) WHERE used_at IS NULL;

-- The verification keys that every meter should hold; the id is the configuration's version.
CREATE TABLE command_key_set (
    version bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    keys text[] NOT NULL CHECK (cardinality(keys) BETWEEN 1 AND 2),
    published_by text NOT NULL,
    published_at timestamptz NOT NULL
);
CREATE TRIGGER command_key_set_is_immutable BEFORE UPDATE OR DELETE ON command_key_set
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- What the broker or the enrolment refused, counted by day: a stranger can ask often, not fill a disk.
CREATE TABLE trust_refusal (
    day date NOT NULL,
    device text NOT NULL,                       -- as it called itself; empty where nobody knows
    reason text NOT NULL,
    count bigint NOT NULL CHECK (count > 0),
    last_at timestamptz NOT NULL,
    last_detail text NOT NULL,
    PRIMARY KEY (day, device, reason)
);
