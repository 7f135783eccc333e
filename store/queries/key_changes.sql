-- name: lock_token_meter
-- A meter for issuing: what it holds, what it should hold. Its lock is what keeps a TID from being
-- given twice and a second set from being issued; readings and commands may still name the meter.
SELECT m.id, m.number, m.meter_pan, m.third_kct, s.seen_at IS NOT NULL, m.wanted_sgc, m.wanted_ti,
       m.sgc, m.krn, m.kt, m.ken, m.ti, m.base_date, m.ea, m.dkga
FROM meter m JOIN meter_heard s ON s.meter_id = m.id
WHERE m.id = %(meter)s
FOR NO KEY UPDATE OF m

-- name: lock_vending_keys
-- One at a time records vending keys; the table's own lock would need more rights than adding rows.
SELECT pg_advisory_xact_lock('vending_key'::regclass::bigint)

-- name: current_vending_key
-- The vending key that a supply group uses at an instant.
SELECT sgc, krn, ken, base_date, dkga, check_value, ms_of(current_from)
FROM vending_key
WHERE sgc = %(sgc)s AND current_from <= at_ms(%(now_ms)s)
ORDER BY current_from DESC LIMIT 1

-- name: newest_vending_key
-- The newest vending key of a supply group, whether it has begun or not.
SELECT sgc, krn, ken, base_date, dkga, check_value, ms_of(current_from)
FROM vending_key WHERE sgc = %(sgc)s
ORDER BY current_from DESC LIMIT 1

-- name: meters_beyond_vending_key
-- Meters of a supply group that no key change leads to such a vending key.
SELECT count(*) FROM meter
WHERE sgc = %(sgc)s AND (base_date > %(base_date)s OR (ea = 11 AND %(dkga)s = 2)
                         OR (kt = 3 AND %(dkga)s = 4))

-- name: add_vending_key
-- A supply group's vending key from an instant on; the first one recorded for that instant stays.
INSERT INTO vending_key (sgc, current_from, krn, ken, base_date, dkga, check_value, recorded_by,
                         recorded_at)
VALUES (%(sgc)s, at_ms(%(from_ms)s), %(krn)s, %(ken)s, %(base_date)s, %(dkga)s, %(check_value)s,
        %(by)s, at_ms(%(now_ms)s))

-- name: sta_meters
-- How many meters take tokens under EA07.
SELECT count(*) FROM meter WHERE ea = 7

-- name: want_of_meter
-- What a meter should hold from its next key change on.
UPDATE meter
SET wanted_sgc = nullif(coalesce(%(sgc)s, wanted_sgc), sgc),
    wanted_ti = nullif(coalesce(%(ti)s, wanted_ti), ti)
WHERE id = %(meter)s

-- name: open_key_change
-- The set that a meter was given and has not confirmed.
SELECT id, digits, subclasses,
       to_sgc, to_krn, to_kt, to_ken, to_ti, to_base_date, to_ea, to_dkga
FROM key_change
WHERE meter_id = %(meter)s AND confirmed_at IS NULL AND abandoned_at IS NULL

-- name: insert_key_change
-- A set, stored before anybody sees it.
INSERT INTO key_change (meter_id, from_sgc, from_krn, from_kt, from_ken, from_ti, from_base_date,
                        from_ea, from_dkga, to_sgc, to_krn, to_kt, to_ken, to_ti, to_base_date,
                        to_ea, to_dkga, digits, subclasses, issued_at)
VALUES (%(meter)s, %(from_sgc)s, %(from_krn)s, %(from_kt)s, %(from_ken)s, %(from_ti)s,
        %(from_base_date)s, %(from_ea)s, %(from_dkga)s, %(to_sgc)s, %(to_krn)s, %(to_kt)s,
        %(to_ken)s, %(to_ti)s, %(to_base_date)s, %(to_ea)s, %(to_dkga)s, %(digits)s,
        %(subclasses)s::smallint[], at_ms(%(now_ms)s))
RETURNING id

-- name: mark_key_changes_entered
-- A meter took a token of these sets.
UPDATE key_change SET entered_at = at_ms(%(now_ms)s)
WHERE id = ANY(%(ids)s) AND entered_at IS NULL

-- name: confirm_key_change
-- The new key is in force. Word of an older set than the confirmed one comes too late to matter.
UPDATE key_change c
SET confirmed_at = at_ms(%(now_ms)s), confirmed_by = %(by)s,
    entered_at = coalesce(entered_at, at_ms(%(now_ms)s))
WHERE c.id = %(id)s AND c.confirmed_at IS NULL
  AND NOT EXISTS (SELECT FROM key_change n
                  WHERE n.meter_id = c.meter_id AND n.id > c.id AND n.confirmed_at IS NOT NULL)
RETURNING c.meter_id

-- name: hold_confirmed_key
-- The meter's record follows the confirmed set.
UPDATE meter m
SET sgc = c.to_sgc, krn = c.to_krn, kt = c.to_kt, ken = c.to_ken, ti = c.to_ti,
    base_date = c.to_base_date, dkga = c.to_dkga,
    wanted_sgc = nullif(m.wanted_sgc, c.to_sgc), wanted_ti = nullif(m.wanted_ti, c.to_ti)
FROM key_change c
WHERE c.id = %(id)s AND m.id = c.meter_id

-- name: abandon_key_changes
-- Open sets of a meter, but for one, lead nowhere any more.
UPDATE key_change
SET abandoned_at = at_ms(%(now_ms)s), abandoned_by = %(by)s, abandoned_reason = %(reason)s
WHERE meter_id = %(meter)s AND id <> %(but)s AND confirmed_at IS NULL AND abandoned_at IS NULL

-- name: credit_under_key_change
-- How many credit tokens are out under the new key of a set.
SELECT count(*) FROM token WHERE key_change_id = %(id)s AND class = 0
