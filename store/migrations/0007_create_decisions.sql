-- What operators enter beside payments, and what crossing a threshold decided.

-- On which side of its thresholds an account stands; the edges between two settlements are decisions.
ALTER TABLE account_state
    -- warn at or below this balance; 20 units of the account's currency unless an operator sets it
    ADD COLUMN low_credit_micro bigint NOT NULL DEFAULT 20000000 CHECK (low_credit_micro >= 0),
    -- a new account is low until its first credit: it arms the warning, nothing warns of nothing
    ADD COLUMN low_credit boolean NOT NULL DEFAULT true,
    -- the supply as decided: with holds, and a cut that stands while a window lasts
    ADD COLUMN decided_supply text NOT NULL DEFAULT 'connected'
        CHECK (decided_supply IN ('connected', 'protected', 'disconnected')),
    ADD COLUMN decisions integer NOT NULL DEFAULT 0;
UPDATE account_state SET low_credit = balance_micro <= low_credit_micro, decided_supply = supply;

-- One row per crossing, written with the postings that cross. The place in the account's own
-- sequence is the key: a repeat, a re-rating or a second worker finds the level crossed already.
CREATE TABLE decision (
    account_id bigint NOT NULL REFERENCES account,
    ordinal integer NOT NULL CHECK (ordinal > 0),
    threshold text NOT NULL CHECK (threshold IN ('low_credit', 'zero', 'emergency', 'supply')),
    kind text NOT NULL CHECK (kind IN
        ('low_credit', 'low_credit_cleared', 'zero', 'credit_restored', 'emergency_begun',
         'emergency_ended', 'connected', 'protected', 'disconnected')),
    at_ms bigint NOT NULL,                -- the instant that crossed, as the facts gave it
    recorded_at timestamptz NOT NULL,     -- the instant that we knew it
    balance_micro bigint NOT NULL,
    cause text NOT NULL,
    PRIMARY KEY (account_id, ordinal)
);
CREATE TRIGGER decision_is_append_only BEFORE UPDATE OR DELETE ON decision
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Keeps a supply from being cut, whatever the balance; it restores none.
CREATE TABLE hold (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES account,
    kind text NOT NULL CHECK (kind IN
        ('medical', 'dispute', 'data', 'contact', 'maintenance', 'tamper', 'other')),
    from_ms bigint NOT NULL,
    until_ms bigint CHECK (until_ms > from_ms),   -- null: until it is released
    placed_by text NOT NULL,
    reason text NOT NULL,
    placed_at timestamptz NOT NULL,
    released_ms bigint,                   -- also at its end, when the supply was decided again
    released_by text,
    release_reason text,
    CHECK (num_nulls(released_ms, released_by, release_reason) IN (0, 3))
);
CREATE INDEX hold_open ON hold (account_id) WHERE released_ms IS NULL;
CREATE INDEX hold_ending ON hold (until_ms) WHERE released_ms IS NULL;

-- An operator's correction of a balance. It is a fact from `adjusted_ms` on, when nobody is asked
-- any more; above the limit only a second person makes it one.
CREATE TABLE adjustment (
    id text PRIMARY KEY,                  -- UUIDv7, or the number of the account at its conversion
    account_id bigint NOT NULL REFERENCES account,
    amount_micro bigint NOT NULL CHECK (amount_micro <> 0),
    reason text NOT NULL,
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL,
    state text NOT NULL CHECK (state IN ('requested', 'posted', 'refused')),
    decided_by text,                      -- the second person, where one was needed
    adjusted_ms bigint,
    CHECK (decided_by <> requested_by),
    CHECK ((state = 'posted') = (adjusted_ms IS NOT NULL))
);
CREATE INDEX adjustment_by_account ON adjustment (account_id, adjusted_ms);
CREATE FUNCTION refuse_change_of_posted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.state <> 'requested' THEN
        RAISE EXCEPTION '% % is decided: enter a new one', TG_TABLE_NAME, OLD.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER adjustment_is_final BEFORE UPDATE OR DELETE ON adjustment
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_posted();

ALTER TABLE ledger_transaction DROP CONSTRAINT ledger_transaction_kind_check;
ALTER TABLE ledger_transaction ADD CONSTRAINT ledger_transaction_kind_check CHECK (kind IN
    ('opening_debt', 'energy', 'standing', 'daily_debt', 'top_up', 'reversal', 'adjustment'));
INSERT INTO ledger_account (code) VALUES ('adjustment') ON CONFLICT DO NOTHING;

-- A version on its way: drafted by one person, approved by another, then immutable.
CREATE TABLE tariff_draft (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tariff_id integer NOT NULL REFERENCES tariff,
    valid_from date NOT NULL,
    body jsonb NOT NULL,
    note text NOT NULL,
    state text NOT NULL CHECK (state IN ('drafted', 'approved', 'withdrawn')),
    drafted_by text NOT NULL,
    drafted_at timestamptz NOT NULL,
    decided_by text,
    decided_at timestamptz,
    CHECK (state <> 'approved' OR decided_by <> drafted_by),
    CHECK ((state = 'drafted') = (decided_by IS NULL)),
    CHECK (num_nulls(decided_by, decided_at) IN (0, 2))
);

-- An account's tariff from a local date on; before its first row it is `account.tariff_id`.
CREATE TABLE tariff_assignment (
    account_id bigint NOT NULL REFERENCES account,
    valid_from date NOT NULL,
    tariff_id integer NOT NULL REFERENCES tariff,
    assigned_by text NOT NULL,
    reason text NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, valid_from)
);
CREATE INDEX tariff_assignment_by_tariff ON tariff_assignment (tariff_id);
CREATE TRIGGER tariff_assignment_is_immutable BEFORE UPDATE OR DELETE ON tariff_assignment
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- What an account is priced by: each assigned tariff's versions for its stretch, the one in force
-- at its first day from that day on (rating.md section 4 knows one series of versions).
CREATE VIEW account_version AS
WITH assigned AS (
    SELECT id AS account_id, tariff_id, date '0001-01-01' AS from_day FROM account
    UNION ALL
    SELECT account_id, tariff_id, valid_from FROM tariff_assignment
), stretch AS (
    SELECT account_id, tariff_id, from_day,
           lead(from_day) OVER (PARTITION BY account_id ORDER BY from_day) AS to_day
    FROM assigned
)
SELECT s.account_id, s.tariff_id, greatest(v.valid_from, s.from_day) AS valid_from, v.body
FROM stretch s
JOIN tariff_version v ON v.tariff_id = s.tariff_id
WHERE (s.to_day IS NULL OR v.valid_from < s.to_day)
  AND NOT EXISTS (SELECT FROM tariff_version later
                  WHERE later.tariff_id = s.tariff_id AND later.valid_from > v.valid_from
                    AND later.valid_from <= s.from_day);
