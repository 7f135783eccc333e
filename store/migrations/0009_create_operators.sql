-- Operators have identity: who they are, what they may do and where; and what they did, for ever.

CREATE TABLE operator (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9._@-]{1,63}$'),
    role text NOT NULL
        CHECK (role IN ('desk', 'supervisor', 'finance', 'field', 'auditor', 'admin')),
    centres smallint[] CHECK (cardinality(centres) > 0),   -- null: every centre
    created_at timestamptz NOT NULL,
    disabled_at timestamptz
);

-- Who may say to be an operator: the subject of an issuer. Ours is `password`, with the operator's
-- name; a directory (OIDC) is another issuer with its own subjects, and brings no password.
CREATE TABLE operator_identity (
    issuer text NOT NULL,
    subject text NOT NULL,
    operator_id bigint NOT NULL REFERENCES operator,
    password_hash text CHECK (password_hash LIKE '$argon2id$%'),
    totp_secret text,                     -- base32 (RFC 6238); null: no second factor
    totp_step bigint NOT NULL DEFAULT 0,  -- the newest step that was used: a code serves once
    PRIMARY KEY (issuer, subject),
    CHECK ((issuer = 'password') = (password_hash IS NOT NULL)),
    CHECK (totp_secret IS NULL OR password_hash IS NOT NULL)
);
CREATE INDEX operator_identity_by_operator ON operator_identity (operator_id);

-- Sessions live by real time, whatever a demonstration's clock says.
CREATE TABLE operator_session (
    sha256 bytea PRIMARY KEY CHECK (octet_length(sha256) = 32),
    operator_id bigint NOT NULL REFERENCES operator,
    began_ms bigint NOT NULL,
    expires_ms bigint NOT NULL CHECK (expires_ms > began_ms),
    ended_ms bigint
);
CREATE INDEX operator_session_live ON operator_session (operator_id) WHERE ended_ms IS NULL;
CREATE INDEX operator_session_by_expiry ON operator_session (expires_ms);

-- An operator's program has a key of its own; the prefix is shown, the rest is known once.
ALTER TABLE access_key
    ADD COLUMN operator_id bigint REFERENCES operator,
    ADD COLUMN prefix text UNIQUE,
    ADD COLUMN label text;
-- Keys from the time before names could do everything.
INSERT INTO operator (name, role, created_at)
SELECT 'operator', 'admin', min(created_at) FROM access_key WHERE role = 'operator'
HAVING count(*) > 0;
UPDATE access_key SET operator_id = (SELECT id FROM operator WHERE name = 'operator')
WHERE role = 'operator';
ALTER TABLE access_key ADD CHECK ((role = 'operator') = (operator_id IS NOT NULL));
CREATE INDEX access_key_by_operator ON access_key (operator_id) WHERE operator_id IS NOT NULL;

-- How often something was tried in a window of time. It may be lost: then counting begins anew.
CREATE UNLOGGED TABLE attempt (
    subject bytea NOT NULL,               -- digest of what is counted: a name, an address
    window_ms bigint NOT NULL,            -- when the window began
    tries integer NOT NULL,
    PRIMARY KEY (subject, window_ms)
);
CREATE INDEX attempt_by_window ON attempt (window_ms);

-- What operators did. Written in the transaction of the write itself.
CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    who text NOT NULL CHECK (btrim(who) <> ''),
    operator_id bigint REFERENCES operator,   -- null: somebody at the server's own command line
    action text NOT NULL,
    subject text NOT NULL,
    centre_id smallint REFERENCES centre,     -- null: it belongs to no one centre
    reason text,
    before jsonb,
    after jsonb
);
CREATE INDEX audit_log_by_subject ON audit_log (subject, id);
CREATE INDEX audit_log_by_who ON audit_log (who, id);
CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_log_is_not_truncated BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The first answer to a request that moves money or issues a token, under the caller's key.
CREATE TABLE idempotency (
    operator_id bigint NOT NULL REFERENCES operator,
    key text NOT NULL,
    request_sha256 bytea NOT NULL,
    answered_at timestamptz NOT NULL,
    answer jsonb,
    PRIMARY KEY (operator_id, key)
);

-- What was looked into in the quarantine, and what came of it. Nothing in it is ever removed.
CREATE TABLE quarantine_closing (
    item text PRIMARY KEY,                -- message-ID, or reading-METER-REGISTER-MS
    closed_by text NOT NULL CHECK (btrim(closed_by) <> ''),
    note text NOT NULL CHECK (btrim(note) <> ''),
    closed_at timestamptz NOT NULL
);
CREATE TRIGGER quarantine_closing_is_immutable BEFORE UPDATE OR DELETE ON quarantine_closing
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- As before, with the number of a message, by which it is closed.
CREATE OR REPLACE VIEW quarantined AS
    SELECT received_at, reason, detail, topic, NULL::bigint AS meter_id, NULL::timestamptz AS ts,
           NULL::bigint AS value_wh, id AS message_id
    FROM quarantine
    UNION ALL
    SELECT received_at, verdict, register, 'reading', meter_id, ts, value_wh, NULL
    FROM reading WHERE verdict <> 'accepted';

-- What operators look through: what waits for somebody, and how much somebody asked for.
CREATE INDEX adjustment_requested ON adjustment (id) WHERE state = 'requested';
CREATE INDEX tariff_draft_open ON tariff_draft (id) WHERE state = 'drafted';
CREATE INDEX engineering_token_by_requester ON engineering_token (requested_by, requested_at);
