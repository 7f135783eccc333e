-- People: how they are reached, what they agreed to, how they sign in, who may pay for whom; paper.

ALTER TABLE customer
    ADD COLUMN language text NOT NULL DEFAULT 'ar'
        CHECK (language IN ('ar', 'fr', 'en', 'ff', 'snk', 'wo')),
    -- a customer of a centre without paper who wants it all the same
    ADD COLUMN paper_requested_ms bigint;
-- From then on nobody of this centre gets paper but who asked for it.
ALTER TABLE centre ADD COLUMN paper_ended_ms bigint;

-- How a customer is reached. An address is personal: it is erased here, and nowhere else written.
CREATE TABLE contact (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customer,
    channel text NOT NULL CHECK (channel IN ('phone', 'whatsapp', 'email')),
    address text,                         -- E.164 or an e-mail address; null once erased
    registered_ms bigint NOT NULL,
    verified_ms bigint,                   -- null: nobody has shown yet that it is theirs
    -- the newest consent; null: none, or withdrawn
    consent_ms bigint,
    wording text,                         -- the version of the words that were agreed to
    ended_ms bigint,
    CHECK (address IS NOT NULL OR ended_ms IS NOT NULL),
    CHECK (num_nulls(consent_ms, wording) IN (0, 2))
);
-- One that is used, and one that waits to take its place.
CREATE UNIQUE INDEX contact_current ON contact (customer_id, channel)
    WHERE ended_ms IS NULL AND verified_ms IS NOT NULL;
CREATE UNIQUE INDEX contact_pending ON contact (customer_id, channel)
    WHERE ended_ms IS NULL AND verified_ms IS NULL;
CREATE INDEX contact_by_address ON contact (address) WHERE address IS NOT NULL;
CREATE INDEX contact_by_customer ON contact (customer_id, id);
CREATE INDEX contact_ended ON contact (ended_ms) WHERE address IS NOT NULL AND ended_ms IS NOT NULL;

-- What happened to contacts, for ever; without addresses, so that nothing in it need be erased.
CREATE TABLE contact_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    contact_id bigint NOT NULL REFERENCES contact,
    customer_id bigint NOT NULL REFERENCES customer,
    channel text NOT NULL,
    kind text NOT NULL CHECK (kind IN
        ('registered', 'verified_by_code', 'verified_at_desk', 'consent_given',
         'consent_withdrawn', 'replaced', 'removed', 'erased')),
    at_ms bigint NOT NULL,
    by text NOT NULL CHECK (btrim(by) <> ''),  -- an operator's name, person:ID or customer:ID
    wording text,
    place text,                           -- a centre, or online
    note text,
    CHECK ((kind = 'consent_given') = (wording IS NOT NULL))
);
CREATE INDEX contact_event_by_customer ON contact_event (customer_id, id);
CREATE TRIGGER contact_event_is_append_only BEFORE UPDATE OR DELETE ON contact_event
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER contact_event_is_not_truncated BEFORE TRUNCATE ON contact_event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Who signs in: whoever holds a phone that is a verified contact, or that somebody gave a grant.
-- The number is what all but it knows a person by; once erased the row is a pseudonym.
CREATE TABLE person (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    phone text UNIQUE,
    created_ms bigint NOT NULL
);

-- Another person's part in an account: `holder` sees and pays, `payer` pays and sees nothing.
CREATE TABLE account_grant (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES account,
    person_id bigint NOT NULL REFERENCES person,
    role text NOT NULL CHECK (role IN ('holder', 'payer')),
    given_ms bigint NOT NULL,
    given_by text NOT NULL,
    withdrawn_ms bigint,
    withdrawn_by text,
    CHECK (num_nulls(withdrawn_ms, withdrawn_by) IN (0, 2))
);
CREATE UNIQUE INDEX account_grant_live ON account_grant (account_id, person_id)
    WHERE withdrawn_ms IS NULL;
CREATE INDEX account_grant_by_person ON account_grant (person_id) WHERE withdrawn_ms IS NULL;
CREATE INDEX account_grant_by_account ON account_grant (account_id, id);

-- Codes and sessions live by real time. A code that was asked for a number that nobody has is kept
-- like any other and fits nobody, so that asking and answering tell nothing.
CREATE TABLE one_time_code (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject bytea NOT NULL CHECK (octet_length(subject) = 32),  -- digest of purpose and address
    code_hash text NOT NULL CHECK (code_hash LIKE '$argon2id$%'),
    person_id bigint REFERENCES person,
    contact_id bigint REFERENCES contact,
    expires_ms bigint NOT NULL,
    tries smallint NOT NULL DEFAULT 0,
    used_ms bigint
);
CREATE INDEX one_time_code_by_subject ON one_time_code (subject, id);
CREATE INDEX one_time_code_by_expiry ON one_time_code (expires_ms);

-- Codes on their way. Address and code are gone from the row as soon as it left or is too late.
CREATE TABLE code_message (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel text NOT NULL CHECK (channel IN ('phone', 'whatsapp', 'email')),
    address text,
    code text,
    language text NOT NULL,
    queued_ms bigint NOT NULL,
    expires_ms bigint NOT NULL,
    -- void: asked for a number that nobody has
    state text NOT NULL CHECK (state IN ('queued', 'sent', 'late', 'void')),
    claimed_until_ms bigint,
    attempts smallint NOT NULL DEFAULT 0,
    CHECK (num_nulls(address, code) = CASE state WHEN 'queued' THEN 0 ELSE 2 END)
);
CREATE INDEX code_message_queued ON code_message (id) WHERE state = 'queued';
CREATE INDEX code_message_by_expiry ON code_message (expires_ms);

CREATE TABLE customer_session (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sha256 bytea NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    person_id bigint NOT NULL REFERENCES person,
    began_ms bigint NOT NULL,
    seen_ms bigint NOT NULL,
    expires_ms bigint NOT NULL CHECK (expires_ms > began_ms),
    ended_ms bigint
);
CREATE INDEX customer_session_by_person ON customer_session (person_id, id);
CREATE INDEX customer_session_by_expiry ON customer_session (expires_ms);
