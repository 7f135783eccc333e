-- name: person_to_sign_in
-- Who may sign in with a phone: a verified contact's or a grant's, with the language of the contact.
SELECT p.id, coalesce((SELECT c.language FROM contact k JOIN customer c ON c.id = k.customer_id
                       WHERE k.address = p.phone AND k.channel = 'phone' AND k.ended_ms IS NULL
                         AND k.verified_ms IS NOT NULL
                       ORDER BY k.id LIMIT 1), 'ar')
FROM person p
WHERE p.phone = %(phone)s
  AND (EXISTS (SELECT FROM contact k
               WHERE k.address = p.phone AND k.channel = 'phone' AND k.ended_ms IS NULL
                 AND k.verified_ms IS NOT NULL)
       OR EXISTS (SELECT FROM account_grant g
                  WHERE g.person_id = p.id AND g.withdrawn_ms IS NULL))

-- name: queue_code
-- A code, and the message that carries it; for nobody both are made all the same, and go nowhere.
WITH code AS (
    INSERT INTO one_time_code (subject, code_hash, person_id, contact_id, expires_ms)
    VALUES (%(subject)s, %(code_hash)s, %(person)s, %(contact)s, %(expires_ms)s)
)
INSERT INTO code_message (channel, address, code, language, queued_ms, expires_ms, state)
VALUES (%(channel)s, %(address)s, %(code)s, %(language)s, %(wall_ms)s, %(expires_ms)s, %(state)s)

-- name: newest_code
-- The one code of a subject that may still serve, locked: of two tries one comes first.
SELECT id, code_hash, person_id, contact_id, expires_ms, tries, used_ms
FROM one_time_code WHERE subject = %(subject)s
ORDER BY id DESC LIMIT 1
FOR UPDATE

-- name: count_code_try
-- One more try of a code, and whether it was the right one.
UPDATE one_time_code
SET tries = tries + 1, used_ms = CASE WHEN %(right)s THEN %(wall_ms)s::bigint END
WHERE id = %(code)s

-- name: insert_customer_session
-- A session; only the digest of its key.
INSERT INTO customer_session (sha256, person_id, began_ms, seen_ms, expires_ms)
VALUES (%(sha256)s, %(person)s, %(wall_ms)s, %(wall_ms)s, %(expires_ms)s)
RETURNING id

-- name: touch_customer_sessions
-- Sessions are in use; one that somebody else notes meanwhile is left to him.
UPDATE customer_session SET seen_ms = greatest(seen_ms, %(wall_ms)s::bigint)
WHERE id IN (SELECT id FROM customer_session WHERE id = ANY(%(sessions)s::bigint[])
             FOR NO KEY UPDATE SKIP LOCKED)

-- name: customer_sessions
-- A person's sessions that still work, newest first.
SELECT id, began_ms, seen_ms, least(expires_ms, seen_ms + %(idle_ms)s)
FROM customer_session
WHERE person_id = %(person)s AND ended_ms IS NULL AND expires_ms > %(wall_ms)s
  AND seen_ms > %(wall_ms)s - %(idle_ms)s
ORDER BY id DESC

-- name: end_customer_sessions
-- One session of a person is over, or all.
UPDATE customer_session SET ended_ms = %(wall_ms)s
WHERE person_id = %(person)s AND (%(session)s::bigint IS NULL OR id = %(session)s)
  AND ended_ms IS NULL
RETURNING id

-- name: claim_code_messages
-- Messages to deliver now: each goes to one deliverer at a time.
UPDATE code_message m SET claimed_until_ms = %(until_ms)s, attempts = attempts + 1
WHERE m.id IN (
    SELECT id FROM code_message
    WHERE state = 'queued' AND expires_ms > %(wall_ms)s
      AND (claimed_until_ms IS NULL OR claimed_until_ms <= %(wall_ms)s)
    ORDER BY id LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED)
RETURNING m.id, m.channel, m.address, m.code, m.language, m.expires_ms

-- name: code_message_sent
-- A message left: what it said is forgotten.
UPDATE code_message SET state = 'sent', address = NULL, code = NULL, claimed_until_ms = NULL
WHERE id = %(message)s AND state = 'queued'

-- name: code_messages_late
-- Messages that nobody took in time: what they said is forgotten.
UPDATE code_message SET state = 'late', address = NULL, code = NULL, claimed_until_ms = NULL
WHERE state = 'queued' AND expires_ms <= %(wall_ms)s

-- name: sweep_code_messages
-- Messages of long ago.
DELETE FROM code_message WHERE expires_ms < %(until_ms)s

-- name: sweep_codes
-- Codes that fit nothing any more.
DELETE FROM one_time_code WHERE expires_ms < %(until_ms)s

-- name: sweep_customer_sessions
-- Sessions that ended by themselves long ago.
DELETE FROM customer_session WHERE expires_ms < %(until_ms)s
