-- Devices that speak another protocol than mqtt.md, and meters whose totals can be set back.

-- False for good once a device without trust was mapped to the meter: a total that anybody can set
-- back is stored and shown, and bills nobody (ADR 0014).
ALTER TABLE meter ADD COLUMN trusted boolean NOT NULL DEFAULT true;

-- Which meter of ours a device is, by the name that its topic gives it.
CREATE TABLE foreign_device (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    profile text NOT NULL,
    name text NOT NULL CHECK (btrim(name) <> ''),
    -- one device a meter: another device is another meter and an exchange
    meter_id bigint NOT NULL UNIQUE REFERENCES meter,
    trusted boolean NOT NULL,
    zone text NOT NULL,                   -- IANA name: of clocks that tell no offset
    sealed_keys bytea,                    -- AES-256-GCM; the key to it is not in the database
    -- the highest invocation counter taken (DLMS, IEC 62056-5-3) and the digest of its frame
    frame_counter bigint CHECK (frame_counter >= 0),
    frame_digest bytea,
    added_by text NOT NULL,
    added_at timestamptz NOT NULL,
    UNIQUE (profile, name),
    CHECK (num_nulls(frame_counter, frame_digest) IN (0, 2))
);

-- What an operator has to look at; readings without trust are kept, and are nothing to look at.
CREATE OR REPLACE VIEW quarantined AS
    SELECT received_at, reason, detail, topic, NULL::bigint AS meter_id, NULL::timestamptz AS ts,
           NULL::bigint AS value_wh, id AS message_id
    FROM quarantine
    UNION ALL
    SELECT received_at, verdict, register, 'reading', meter_id, ts, value_wh, NULL
    FROM reading WHERE verdict <> 'accepted' AND verdict <> 'untrusted';
