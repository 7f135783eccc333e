-- Registers as metered, kept for ever with their verdict; and what could not be taken, with the reason.

CREATE TABLE reading (
    meter_id bigint NOT NULL,
    register text NOT NULL,               -- OBIS C.D.E
    ts timestamptz NOT NULL,              -- the meter's time
    value_wh bigint NOT NULL,
    boot bigint NOT NULL,
    seq bigint NOT NULL,
    clock text NOT NULL,                  -- tq: sync, drift, lost
    historical boolean NOT NULL,
    received_at timestamptz NOT NULL,
    -- null: not judged (another register, or no account); else accepted or the reason of rating.md 2
    verdict text,
    -- what the message said beyond these columns (inst, credit, keys that we do not know)
    detail jsonb,
    PRIMARY KEY (meter_id, register, ts)
);
SELECT create_hypertable('reading', 'ts', chunk_time_interval => interval '7 days',
                         create_default_indexes => false);
CREATE INDEX reading_not_accepted ON reading (meter_id, ts) WHERE verdict <> 'accepted';

-- Messages and rows that the contract refuses. The same bad row twice is one row.
CREATE TABLE quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    topic text NOT NULL,
    row_index integer,
    payload bytea NOT NULL,
    content_type text,
    fingerprint bytea NOT NULL UNIQUE
);
CREATE INDEX quarantine_by_time ON quarantine (received_at DESC);

-- Everything kept with a reason, in one place: refused messages and readings that charge nothing.
CREATE VIEW quarantined AS
    SELECT received_at, reason, detail, topic, NULL::bigint AS meter_id, NULL::timestamptz AS ts,
           NULL::bigint AS value_wh
    FROM quarantine
    UNION ALL
    SELECT received_at, verdict, register, 'reading', meter_id, ts, value_wh
    FROM reading WHERE verdict <> 'accepted';

-- Events of meters and gateways (tamper, power fail, boot), as said.
CREATE TABLE event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter_id bigint NOT NULL REFERENCES meter,
    kind text NOT NULL,
    received_at timestamptz NOT NULL,
    body jsonb NOT NULL,
    fingerprint bytea NOT NULL,
    UNIQUE (meter_id, fingerprint)
);
