-- Commands that are paced, retried and given up; guards before a cut, the fleet brake, and the
-- meter's own credit against the tokens that it took.

-- What operators set per centre (store.centres); a key that is not there has its default.
ALTER TABLE centre ADD COLUMN settings jsonb NOT NULL DEFAULT '{}';
CREATE INDEX account_by_centre ON account (centre_id);

ALTER TABLE command
    ADD COLUMN gateway_id bigint REFERENCES gateway,  -- who carries it, as it was queued
    ADD COLUMN version bigint,            -- relay, arm: the desired version that it carries out
    ADD COLUMN attempt integer NOT NULL DEFAULT 1 CHECK (attempt > 0),
    ADD COLUMN first_issued_ms bigint,    -- of the first attempt; null: this is it
    -- a dispatcher has it until then; it may have been said from the first claim on
    ADD COLUMN claimed_until_ms bigint,
    ADD COLUMN retry_ms bigint;           -- ended without effect: when a new command follows
UPDATE command c SET gateway_id = m.gateway_id FROM meter m
WHERE m.id = c.meter_id AND m.gateway_id IS NOT NULL AND c.state = 'queued';
CREATE INDEX command_to_meters ON command (issued_ms) WHERE state = 'queued' AND gateway_id IS NULL;
CREATE INDEX command_to_gateways ON command (gateway_id, issued_ms)
    WHERE state = 'queued' AND gateway_id IS NOT NULL;
CREATE INDEX command_unsaid ON command (meter_id, ctr) WHERE state = 'queued';
CREATE INDEX command_in_flight ON command (gateway_id, sent_at)
    WHERE state IN ('sent', 'accepted', 'executing') AND gateway_id IS NOT NULL;
CREATE INDEX command_to_retry ON command (retry_ms) WHERE retry_ms IS NOT NULL;
DROP INDEX command_outbox;
-- The pace of a gateway: nothing goes to it before this instant.
ALTER TABLE gateway ADD COLUMN next_send_ms bigint NOT NULL DEFAULT 0;

-- Reported {relay, version}: the version of the newest order that the meter says it carried out;
-- and when, by our clock, its newest word on the relay came.
ALTER TABLE meter_state
    ADD COLUMN reported_version bigint,
    ADD COLUMN reported_seen_at timestamptz;
UPDATE meter_state SET reported_seen_at = reported_at;

-- Answers that the table of states does not allow: kept, and without effect on the command.
CREATE TABLE ignored_answer (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    command_id uuid NOT NULL REFERENCES command,
    state text NOT NULL,                  -- of the command, as the answer came
    answer jsonb NOT NULL,
    received_at timestamptz NOT NULL
);
CREATE INDEX ignored_answer_by_command ON ignored_answer (command_id);

-- Commands that nobody tries any more, until a person decides.
CREATE TABLE dead_letter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    command_id uuid NOT NULL UNIQUE REFERENCES command,
    reason text NOT NULL,
    recorded_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'reopened', 'closed')),
    decided_by text,
    decided_at timestamptz,
    note text,
    CHECK (num_nulls(decided_by, decided_at, note) = CASE state WHEN 'open' THEN 3 ELSE 0 END)
);
CREATE INDEX dead_letter_open ON dead_letter (id) WHERE state = 'open';

-- What each guard found as the supply was decided: guard -> its words.
ALTER TABLE decision ADD COLUMN guards jsonb NOT NULL DEFAULT '{}';

-- A cut that is due and not made, for as long as the same guards stand.
CREATE TABLE withheld_cut (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES account,
    standing text[] NOT NULL CHECK (cardinality(standing) > 0),
    guards jsonb NOT NULL,
    from_ms bigint NOT NULL,
    ended_ms bigint,
    ended_by text CHECK (ended_by IN ('cut', 'credit', 'other_guards')),
    CHECK (num_nulls(ended_ms, ended_by) IN (0, 2))
);
CREATE UNIQUE INDEX withheld_cut_open ON withheld_cut (account_id) WHERE ended_ms IS NULL;
CREATE INDEX withheld_cut_by_account ON withheld_cut (account_id, id);

-- Notice of a cut. It is over when the credit is back.
CREATE TABLE cut_notice (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES account,
    channel text NOT NULL,
    command_id uuid REFERENCES command,   -- display: the command that carries it
    asked_ms bigint NOT NULL,
    given_ms bigint,                      -- other channels: when it was delivered
    lapsed_ms bigint,
    CHECK ((channel = 'display') = (command_id IS NOT NULL))
);
CREATE INDEX cut_notice_current ON cut_notice (account_id) WHERE lapsed_ms IS NULL;

-- Money that a channel has or may have, and that is not credited yet.
CREATE TABLE unsettled_payment (
    channel text NOT NULL,
    partner_txn_id text NOT NULL,
    account_id bigint NOT NULL REFERENCES account,
    state text NOT NULL CHECK (state IN ('received', 'pending', 'suspect')),
    amount_micro bigint NOT NULL CHECK (amount_micro > 0),
    received_ms bigint NOT NULL,
    settled_ms bigint,
    PRIMARY KEY (channel, partner_txn_id)
);
CREATE INDEX unsettled_payment_open ON unsettled_payment (account_id) WHERE settled_ms IS NULL;

-- The fleet brake: cuts per centre and minute, counted under the lock of the centre's row.
CREATE TABLE cut_count (
    centre_id smallint NOT NULL REFERENCES centre,
    minute_ms bigint NOT NULL,
    cuts integer NOT NULL CHECK (cuts > 0),
    PRIMARY KEY (centre_id, minute_ms)
);
CREATE TABLE brake (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    centre_id smallint NOT NULL REFERENCES centre,
    pulled_ms bigint NOT NULL,
    cuts integer NOT NULL,                -- made within the span, as it was pulled
    wanted integer NOT NULL,              -- more that the run at hand asked for
    most integer NOT NULL,                -- that the settings let go within the span
    state text NOT NULL DEFAULT 'pulled' CHECK (state IN ('pulled', 'released', 'closed')),
    decided_by text,
    reason text,
    decided_ms bigint,
    free_until_ms bigint,                 -- released: until then nothing of the centre is counted
    CHECK (num_nulls(decided_by, reason, decided_ms) = CASE state WHEN 'pulled' THEN 3 ELSE 0 END)
);
CREATE UNIQUE INDEX brake_pulled ON brake (centre_id) WHERE state = 'pulled';
CREATE INDEX brake_by_centre ON brake (centre_id, id);

-- A top-up that found the supply off: the stopwatch of the reconnection runs.
ALTER TABLE top_up ADD COLUMN reconnects boolean NOT NULL DEFAULT false;
CREATE INDEX top_up_reconnected ON top_up (on_supply_at) WHERE reconnects;

-- Where the meter's credit and the tokens agreed: credit + register - accepted tokens is constant.
CREATE TABLE credit_base (
    meter_id bigint PRIMARY KEY REFERENCES meter,
    read_at timestamptz NOT NULL,         -- the reading of the newest agreement
    boot bigint NOT NULL,
    seq bigint NOT NULL,
    base_wh bigint NOT NULL
);
CREATE TABLE credit_exception (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter_id bigint NOT NULL REFERENCES meter,
    class text NOT NULL CHECK (class IN ('missed_token', 'missed_reading', 'tamper_suspect')),
    gap_wh bigint NOT NULL,               -- the meter's credit above (+) or below (-) the books
    credit_wh bigint NOT NULL,
    read_at timestamptz NOT NULL,
    first_seen_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    closed_at timestamptz,
    closed_by text,
    note text,
    CHECK (num_nulls(closed_at, closed_by, note) IN (0, 3))
);
CREATE UNIQUE INDEX credit_exception_open ON credit_exception (meter_id) WHERE closed_at IS NULL;
CREATE INDEX credit_exception_by_id ON credit_exception (id) WHERE closed_at IS NULL;
-- Up to which instant of receipt credit was compared; whoever compares holds this row.
CREATE TABLE credit_compared (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    received_at timestamptz NOT NULL
);
INSERT INTO credit_compared (received_at) VALUES ('-infinity');
CREATE INDEX reading_with_credit ON reading (received_at)
    WHERE detail ? 'credit' AND register = '1.8.0';
