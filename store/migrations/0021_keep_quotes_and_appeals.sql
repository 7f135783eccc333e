-- What partners were quoted, what their payments then made of it, and what only an operator may grant.

-- A quote that was given out, with all that it was worked out from. It binds nobody; a payment may
-- name it, and is told what changed in between. Old ones are removed (store.quotes).
CREATE TABLE partner_quote (
    id text PRIMARY KEY,                  -- UUIDv7
    channel text NOT NULL,
    account_id bigint NOT NULL REFERENCES account,
    meter text NOT NULL,
    amount_micro bigint NOT NULL CHECK (amount_micro > 0),
    energy_wh bigint NOT NULL CHECK (energy_wh >= 0),
    lines jsonb NOT NULL,
    basis jsonb NOT NULL,
    quoted_ms bigint NOT NULL,
    valid_until_ms bigint NOT NULL
);
CREATE INDEX partner_quote_by_age ON partner_quote (quoted_ms);

-- The quote that a payment named. `equal` and `changed` are known once it is credited.
CREATE TABLE payment_quote (
    channel text NOT NULL,
    partner_txn_id text NOT NULL,
    quote_id text NOT NULL,
    equal boolean,
    changed jsonb,
    PRIMARY KEY (channel, partner_txn_id),
    CHECK ((equal IS NULL) = (changed IS NULL))
);

-- Asked by a partner, a customer or an operator about a payment whose tokens are out: take it back,
-- or move it to another meter. A person decides; a large one takes two.
CREATE TABLE appeal (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('reversal', 'move')),
    top_up_id text NOT NULL REFERENCES top_up,
    to_meter text,
    asked_by text NOT NULL CHECK (btrim(asked_by) <> ''),
    reason text NOT NULL CHECK (btrim(reason) <> ''),
    asked_at timestamptz NOT NULL,
    proposed_by text,                     -- the first of two people who grant it
    proposed_at timestamptz,
    decision text CHECK (decision IN ('granted', 'refused')),
    decided_by text,
    decided_at timestamptz,
    note text,
    CHECK ((kind = 'move') = (to_meter IS NOT NULL)),
    CHECK (num_nulls(proposed_by, proposed_at) IN (0, 2)),
    CHECK (num_nulls(decision, decided_by, decided_at, note) IN (0, 4)),
    CHECK (decision IS DISTINCT FROM 'granted' OR proposed_by IS DISTINCT FROM decided_by)
);
CREATE UNIQUE INDEX appeal_open ON appeal (top_up_id) WHERE decision IS NULL;
CREATE INDEX appeal_by_top_up ON appeal (top_up_id, id);

-- The first answer to a customer's request that moves money, under the customer's key.
CREATE TABLE customer_answer (
    caller text NOT NULL,                 -- customer:ID or person:ID
    key text NOT NULL,
    request_sha256 bytea NOT NULL,
    answered_at timestamptz NOT NULL,
    answer jsonb,
    PRIMARY KEY (caller, key)
);

-- Each payment asks what its meter was paid before; a desk asks by a bank's number alone; a file of
-- a business date asks for a channel's day.
CREATE INDEX top_up_by_meter ON top_up (meter_id, credited_ms);
CREATE INDEX top_up_by_number ON top_up (partner_txn_id);
CREATE INDEX top_up_by_payment_time ON top_up (channel, paid_at);
CREATE INDEX suspect_payment_by_number ON suspect_payment (partner_txn_id);
CREATE INDEX suspect_payment_by_payment_time ON suspect_payment (channel, paid_at);
