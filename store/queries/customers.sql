-- name: access_of_person
-- The accounts of a person: those of customers whose verified phone it is, and those granted.
SELECT a.id, 'owner'
FROM person p
JOIN contact k ON k.address = p.phone AND k.channel = 'phone' AND k.ended_ms IS NULL
    AND k.verified_ms IS NOT NULL
JOIN account a ON a.customer_id = k.customer_id
WHERE p.id = %(person)s
UNION ALL
SELECT account_id, role FROM account_grant WHERE person_id = %(person)s AND withdrawn_ms IS NULL

-- name: customers_of_person
-- The customers whose verified phone a person has.
SELECT k.customer_id
FROM person p
JOIN contact k ON k.address = p.phone AND k.channel = 'phone' AND k.ended_ms IS NULL
    AND k.verified_ms IS NOT NULL
WHERE p.id = %(person)s

-- name: customers_seen
-- Customers by id, some or all: with their accounts, centres, and whether paper goes to them.
SELECT c.id, c.name, c.language, c.paper_requested_ms,
       ARRAY(SELECT a.number FROM account a WHERE a.customer_id = c.id ORDER BY a.id),
       ARRAY(SELECT DISTINCT e.code FROM account a JOIN centre e ON e.id = a.centre_id
             WHERE a.customer_id = c.id ORDER BY e.code),
       c.paper_requested_ms IS NOT NULL OR EXISTS (
           SELECT FROM account a JOIN centre e ON e.id = a.centre_id
           WHERE a.customer_id = c.id AND e.paper_ended_ms IS NULL)
FROM customer c
WHERE (%(ids)s::bigint[] IS NULL OR c.id = ANY(%(ids)s))
  AND (%(centres)s::smallint[] IS NULL OR EXISTS (
          SELECT FROM account a WHERE a.customer_id = c.id AND a.centre_id = ANY(%(centres)s)))
  AND (%(centre)s::text IS NULL OR EXISTS (
          SELECT FROM account a JOIN centre e ON e.id = a.centre_id
          WHERE a.customer_id = c.id AND e.code = %(centre)s
            AND (%(centres)s::smallint[] IS NULL OR e.id = ANY(%(centres)s))))
  AND (%(address)s::text IS NULL OR c.id IN (
          SELECT k.customer_id FROM contact k
          WHERE k.address = %(address)s AND k.ended_ms IS NULL))
  AND (%(like)s::text IS NULL OR c.name ILIKE '%%' || %(like)s || '%%')
  AND (%(after)s::bigint IS NULL OR c.id > %(after)s)
ORDER BY c.id
LIMIT %(limit)s

-- name: lock_customer
-- What is decided about one customer comes one after the other.
SELECT id, name, language, paper_requested_ms FROM customer
WHERE id = %(customer)s FOR NO KEY UPDATE

-- name: first_account_of_customer
-- The account whose centre a customer belongs to, for the audit log.
SELECT min(id) FROM account WHERE customer_id = %(customer)s

-- name: set_language
-- What a customer is written to in.
UPDATE customer SET language = %(language)s WHERE id = %(customer)s

-- name: request_paper
-- Paper for a customer of a centre without, or no more; the first request stays.
UPDATE customer
SET paper_requested_ms = CASE WHEN %(wanted)s THEN coalesce(paper_requested_ms, %(now_ms)s) END
WHERE id = %(customer)s

-- name: centres_with_people
-- Centres with their accounts, meters, and how many of their customers can be reached without paper.
SELECT c.code, c.name, (SELECT count(*) FROM account WHERE centre_id = c.id),
       (SELECT count(*) FROM meter WHERE centre_id = c.id), p.customers, p.registered,
       p.paper_requested, c.paper_ended_ms
FROM centre c
CROSS JOIN LATERAL (
    SELECT count(*) AS customers,
           count(*) FILTER (WHERE EXISTS (
               SELECT FROM contact k
               WHERE k.customer_id = u.id AND k.ended_ms IS NULL AND k.verified_ms IS NOT NULL
                 AND k.consent_ms IS NOT NULL)) AS registered,
           count(u.paper_requested_ms) AS paper_requested
    FROM customer u
    WHERE u.id IN (SELECT a.customer_id FROM account a WHERE a.centre_id = c.id)
) p
WHERE (%(centres)s::smallint[] IS NULL OR c.id = ANY(%(centres)s))
  AND (%(code)s::text IS NULL OR c.code = %(code)s)
ORDER BY c.code

-- name: end_paper
-- Paper ends for a centre, or begins again; the first end stays.
UPDATE centre
SET paper_ended_ms = CASE WHEN %(ended)s THEN coalesce(paper_ended_ms, %(now_ms)s) END
WHERE code = %(code)s

-- name: contacts_of_customer
-- The contacts that are used or wait to be, by channel.
SELECT id, customer_id, channel, address, registered_ms, verified_ms, consent_ms, wording, ended_ms
FROM contact
WHERE customer_id = %(customer)s AND (ended_ms IS NULL OR %(all)s)
ORDER BY channel, id

-- name: insert_contact
-- A contact that nobody has verified yet.
INSERT INTO contact (customer_id, channel, address, registered_ms)
VALUES (%(customer)s, %(channel)s, %(address)s, %(now_ms)s)
RETURNING id, customer_id, channel, address, registered_ms, verified_ms, consent_ms, wording,
          ended_ms

-- name: insert_contact_event
-- What happened to a contact.
INSERT INTO contact_event (contact_id, customer_id, channel, kind, at_ms, by, wording, place, note)
VALUES (%(contact)s, %(customer)s, %(channel)s, %(kind)s, %(now_ms)s, %(by)s, %(wording)s,
        %(place)s, %(note)s)

-- name: contact_events
-- What happened to a customer's contacts, newest first.
SELECT id, channel, kind, at_ms, by, wording, place, note
FROM contact_event
WHERE customer_id = %(customer)s AND (%(before)s::bigint IS NULL OR id < %(before)s)
ORDER BY id DESC
LIMIT %(limit)s

-- name: verify_contact
-- A contact is shown to be its customer's.
UPDATE contact SET verified_ms = %(now_ms)s WHERE id = %(contact)s

-- name: end_contact
-- A contact is used no more.
UPDATE contact SET ended_ms = %(now_ms)s WHERE id = %(contact)s AND ended_ms IS NULL

-- name: set_consent
-- What was agreed to, or that it is no more.
UPDATE contact SET consent_ms = %(consent_ms)s, wording = %(wording)s WHERE id = %(contact)s

-- name: person_of_phone
-- The person with a phone, made where there was none.
WITH made AS (
    INSERT INTO person (phone, created_ms) VALUES (%(phone)s, %(now_ms)s)
    ON CONFLICT (phone) DO NOTHING
    RETURNING id
)
SELECT id FROM made UNION ALL SELECT id FROM person WHERE phone = %(phone)s LIMIT 1

-- name: end_sessions_of_phone
-- Whoever holds this phone signs in anew.
UPDATE customer_session s SET ended_ms = %(wall_ms)s
FROM person p
WHERE p.phone = %(phone)s AND s.person_id = p.id AND s.ended_ms IS NULL

-- name: insert_grant
-- Another person's part in an account.
INSERT INTO account_grant (account_id, person_id, role, given_ms, given_by)
VALUES (%(account)s, %(person)s, %(role)s, %(now_ms)s, %(by)s)
RETURNING id

-- name: grants_of_account
-- Who else has a part in an account, newest first.
SELECT g.id, p.id, p.phone, g.role, g.given_ms, g.given_by, g.withdrawn_ms, g.withdrawn_by
FROM account_grant g JOIN person p ON p.id = g.person_id
WHERE g.account_id = %(account)s AND (%(grant)s::bigint IS NULL OR g.id = %(grant)s)
  AND (%(person)s::bigint IS NULL OR (g.person_id = %(person)s AND g.withdrawn_ms IS NULL))
  AND (%(before)s::bigint IS NULL OR g.id < %(before)s)
ORDER BY g.id DESC
LIMIT %(limit)s

-- name: withdraw_grant
-- A person's part in an account is over.
UPDATE account_grant SET withdrawn_ms = %(now_ms)s, withdrawn_by = %(by)s
WHERE id = %(grant)s AND withdrawn_ms IS NULL
RETURNING id

-- name: lock_account_row
-- Two grants for one account come one after the other.
SELECT id FROM account WHERE id = %(account)s FOR NO KEY UPDATE
