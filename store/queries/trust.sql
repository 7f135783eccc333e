-- name: add_certificate
-- A certificate as it was signed.
INSERT INTO certificate (serial, role, name, pem, public_key, not_before, not_after, issued_by,
                         issued_at)
VALUES (%(serial)s, %(role)s, %(name)s, %(pem)s, %(public_key)s, at_ms(%(not_before_ms)s),
        at_ms(%(not_after_ms)s), %(by)s, at_ms(%(now_ms)s))

-- name: list_certificates
-- Certificates, of one name or of all, newest first.
SELECT serial, role, name, pem, public_key, ms_of(not_before), ms_of(not_after), issued_by,
       ms_of(revoked_at), revoked_by, revocation_reason
FROM certificate
WHERE (%(name)s::text IS NULL OR name = %(name)s)
ORDER BY issued_at DESC, serial

-- name: certificates_in_force
-- Certificates of a name that are neither revoked nor over.
SELECT serial, role, name, pem, public_key, ms_of(not_before), ms_of(not_after), issued_by,
       ms_of(revoked_at), revoked_by, revocation_reason
FROM certificate
WHERE name = %(name)s AND revoked_at IS NULL AND not_after > at_ms(%(now_ms)s)
ORDER BY issued_at DESC, serial

-- name: claims_in_force
-- Names of claim certificates that are neither revoked nor over.
SELECT DISTINCT name FROM certificate
WHERE role = 'claim' AND revoked_at IS NULL AND not_after > at_ms(%(now_ms)s)
ORDER BY name

-- name: revoke_certificates
-- End the certificates of a name, or one of them by its serial.
UPDATE certificate
SET revoked_at = at_ms(%(now_ms)s), revoked_by = %(by)s, revocation_reason = %(reason)s
WHERE name = %(name)s AND revoked_at IS NULL AND not_after > at_ms(%(now_ms)s)
  AND (%(serial)s::text IS NULL OR serial = %(serial)s)
RETURNING serial

-- name: revoked_serials
-- What the list of revocations holds: revoked, and not yet over by itself.
SELECT serial, ms_of(revoked_at) FROM certificate
WHERE revoked_at IS NOT NULL AND not_after > at_ms(%(now_ms)s)

-- name: next_revocation_list
-- The number of the next list of revocations.
SELECT nextval('revocation_list_number')

-- name: lock_names
-- Decisions about the certificates of one name come one after the other.
SELECT pg_advisory_xact_lock(hashtextextended('certificate ' || %(name)s, 0))

-- name: registered_meter
-- A meter's id by its number.
SELECT id FROM meter WHERE number = %(name)s

-- name: registered_gateway
-- A gateway's id by its name.
SELECT id FROM gateway WHERE number = %(name)s

-- name: allow_reenrolment
-- Leave to enrol again; asked twice, it is one leave.
INSERT INTO reenrolment (meter_id, allowed_by, reason, allowed_at)
VALUES (%(meter)s, %(by)s, %(reason)s, at_ms(%(now_ms)s))
ON CONFLICT (meter_id) WHERE used_at IS NULL DO NOTHING

-- name: use_reenrolment
-- Use the leave, if there is one.
UPDATE reenrolment SET used_at = at_ms(%(now_ms)s)
WHERE meter_id = %(meter)s AND used_at IS NULL
RETURNING id

-- name: add_command_keys
-- The verification keys from now on; the id is the version.
INSERT INTO command_key_set (keys, published_by, published_at)
VALUES (%(keys)s, %(by)s, at_ms(%(now_ms)s))
RETURNING version

-- name: direct_meters
-- Meters with a connection of their own.
SELECT number FROM meter WHERE gateway_id IS NULL ORDER BY number

-- name: count_refusals
-- Add to the counts of the day.
INSERT INTO trust_refusal AS t (day, device, reason, count, last_at, last_detail)
SELECT (at_ms(%(now_ms)s) AT TIME ZONE 'UTC')::date, n.device, n.reason, sum(n.count),
       at_ms(%(now_ms)s), max(n.detail)
FROM unnest(%(devices)s::text[], %(reasons)s::text[], %(counts)s::bigint[], %(details)s::text[])
     AS n (device, reason, count, detail)
GROUP BY n.device, n.reason
ORDER BY n.device, n.reason
ON CONFLICT (day, device, reason) DO UPDATE
SET count = t.count + excluded.count, last_at = excluded.last_at,
    last_detail = excluded.last_detail

-- name: list_refusals
-- Counts since an instant, newest first.
SELECT day::text, device, reason, count, ms_of(last_at), last_detail FROM trust_refusal
WHERE last_at >= at_ms(%(since_ms)s)
ORDER BY last_at DESC, device, reason
LIMIT %(limit)s

-- name: ending_certificates
-- How many certificates in force end before an instant, without a newer one of their name.
SELECT count(*) FROM certificate c
WHERE c.revoked_at IS NULL AND c.not_after > at_ms(%(now_ms)s)
  AND c.not_after <= at_ms(%(until_ms)s)
  AND NOT EXISTS (SELECT FROM certificate newer
                  WHERE newer.name = c.name AND newer.not_after > at_ms(%(until_ms)s)
                    AND newer.revoked_at IS NULL)
