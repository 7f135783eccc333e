-- name: insert_operator
-- A new operator; none where the name is taken.
INSERT INTO operator (name, role, centres, created_at)
VALUES (%(name)s, %(role)s, %(centres)s, at_ms(%(now_ms)s))
ON CONFLICT (name) DO NOTHING
RETURNING id

-- name: operators_by_name
-- Operators by name, all or one, with the codes of their centres and what they sign in with.
SELECT o.id, o.name, o.role, o.centres,
       (SELECT array_agg(c.code ORDER BY c.code) FROM centre c WHERE c.id = ANY(o.centres)),
       ms_of(o.created_at), ms_of(o.disabled_at),
       EXISTS (SELECT FROM operator_identity i
               WHERE i.operator_id = o.id AND i.issuer = 'password'),
       EXISTS (SELECT FROM operator_identity i
               WHERE i.operator_id = o.id AND i.totp_secret IS NOT NULL),
       (SELECT array_agg(k.prefix ORDER BY k.prefix) FROM access_key k
        WHERE k.operator_id = o.id AND k.revoked_at IS NULL AND k.prefix IS NOT NULL)
FROM operator o
WHERE %(name)s::text IS NULL OR o.name = %(name)s
ORDER BY o.name

-- name: lock_operator
-- One operator by name: what is counted or set of one waits here for each other.
SELECT role FROM operator WHERE name = %(name)s FOR NO KEY UPDATE

-- name: set_password
-- The password of an operator and, perhaps, a second factor.
INSERT INTO operator_identity (issuer, subject, operator_id, password_hash, totp_secret)
VALUES ('password', %(name)s, %(operator)s, %(password_hash)s, %(totp_secret)s)
ON CONFLICT (issuer, subject) DO UPDATE
SET password_hash = excluded.password_hash, totp_secret = excluded.totp_secret, totp_step = 0

-- name: identity_to_sign_in
-- What a name signs in with; nothing for one that is disabled or unknown.
SELECT i.password_hash, i.totp_secret
FROM operator_identity i JOIN operator o ON o.id = i.operator_id
WHERE i.issuer = 'password' AND i.subject = %(name)s AND o.disabled_at IS NULL

-- name: use_totp_step
-- A code serves once: the step only grows.
UPDATE operator_identity SET totp_step = %(step)s
WHERE issuer = 'password' AND subject = %(name)s AND totp_step < %(step)s
RETURNING operator_id

-- name: insert_operator_session
-- A session; only its digest. None where the password was changed or the operator disabled meanwhile.
INSERT INTO operator_session (sha256, operator_id, began_ms, expires_ms)
SELECT %(sha256)s, o.id, %(wall_ms)s, %(expires_ms)s
FROM operator_identity i JOIN operator o ON o.id = i.operator_id
WHERE i.issuer = 'password' AND i.subject = %(name)s AND i.password_hash = %(password_hash)s
  AND o.disabled_at IS NULL
FOR SHARE OF i, o
RETURNING operator_id

-- name: end_operator_session
-- One session is over.
UPDATE operator_session SET ended_ms = %(wall_ms)s WHERE sha256 = %(sha256)s AND ended_ms IS NULL

-- name: end_operator_sessions
-- All sessions of an operator are over.
UPDATE operator_session SET ended_ms = %(wall_ms)s
WHERE operator_id = %(operator)s AND ended_ms IS NULL

-- name: sweep_operator_sessions
-- Sessions that ended by themselves long ago.
DELETE FROM operator_session WHERE expires_ms < %(until_ms)s

-- name: disable_operator
-- An operator may do nothing any more.
UPDATE operator SET disabled_at = at_ms(%(now_ms)s)
WHERE id = %(operator)s AND disabled_at IS NULL
RETURNING id

-- name: enable_operator
-- An operator is back.
UPDATE operator SET disabled_at = NULL WHERE id = %(operator)s AND disabled_at IS NOT NULL
RETURNING id

-- name: add_operator_key
-- A program's credential; only its digest, and a prefix to know it by.
INSERT INTO access_key (sha256, role, operator_id, prefix, label, created_at)
VALUES (%(sha256)s, 'operator', %(operator)s, %(prefix)s, %(label)s, at_ms(%(now_ms)s))

-- name: revoke_operator_key
-- A key ends; whose it was.
UPDATE access_key SET revoked_at = at_ms(%(now_ms)s)
WHERE prefix = %(prefix)s AND role = 'operator' AND revoked_at IS NULL
RETURNING operator_id

-- name: count_attempt
-- One more try of a subject in a window; how many there are now.
INSERT INTO attempt AS a (subject, window_ms, tries) VALUES (%(subject)s, %(window_ms)s, 1)
ON CONFLICT (subject, window_ms) DO UPDATE SET tries = a.tries + 1
RETURNING tries

-- name: forget_attempts
-- The tries of a subject.
DELETE FROM attempt WHERE subject = %(subject)s

-- name: sweep_attempts
-- Windows that are over.
DELETE FROM attempt WHERE window_ms < %(until_ms)s
