-- name: foreign_devices
-- The devices of a profile by their names, as the adapter needs them.
SELECT d.name, d.id, m.number, d.zone, d.sealed_keys, d.frame_counter, d.frame_digest
FROM foreign_device d JOIN meter m ON m.id = d.meter_id
WHERE d.profile = %(profile)s AND d.name = ANY(%(names)s)

-- name: meter_for_device
-- A meter with what decides whether a device may be mapped to it.
SELECT m.id, m.trusted,
       EXISTS (SELECT FROM reading r WHERE r.meter_id = m.id AND r.verdict = 'accepted') AS billed
FROM meter m WHERE m.number = %(number)s

-- name: add_foreign_device
-- A device, unless its name or its meter is taken.
INSERT INTO foreign_device (profile, name, meter_id, trusted, zone, sealed_keys, added_by, added_at)
VALUES (%(profile)s, %(name)s, %(meter)s, %(trusted)s, %(zone)s, %(sealed_keys)s, %(who)s,
        at_ms(%(now_ms)s))
ON CONFLICT DO NOTHING
RETURNING id

-- name: withdraw_trust
-- From now on nothing that this meter says is billed, nor what it said in stock.
WITH withdrawn AS (UPDATE meter SET trusted = false WHERE id = %(meter)s)
UPDATE reading SET verdict = 'untrusted' WHERE meter_id = %(meter)s AND register = '1.8.0'

-- name: remove_foreign_device
-- The device is unknown again; what it said stays.
DELETE FROM foreign_device WHERE profile = %(profile)s AND name = %(name)s RETURNING id

-- name: list_foreign_devices
-- Devices with their meters and the last stored total.
SELECT d.profile, d.name, m.number, m.trusted, d.zone, d.sealed_keys IS NOT NULL, d.frame_counter,
       ms_of(last.ts), last.value_wh, last.verdict
FROM foreign_device d
JOIN meter m ON m.id = d.meter_id
LEFT JOIN LATERAL (SELECT r.ts, r.value_wh, r.verdict FROM reading r
                   WHERE r.meter_id = d.meter_id AND r.register = '1.8.0'
                   ORDER BY r.ts DESC LIMIT 1) last ON true
ORDER BY d.profile, d.name

-- name: keep_frame_counters
-- The highest invocation counters taken; they never go back.
UPDATE foreign_device d SET frame_counter = n.counter, frame_digest = n.digest
FROM unnest(%(devices)s::bigint[], %(counters)s::bigint[], %(digests)s::bytea[])
    AS n (device, counter, digest)
WHERE d.id = n.device AND (d.frame_counter IS NULL OR d.frame_counter < n.counter)
