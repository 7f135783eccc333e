-- name: export_accounts
-- The accounts of a customer.
SELECT a.number, ms_of(a.opened_at), c.code, t.code, s.balance_micro, s.debt_micro, t.currency
FROM account a
JOIN account_state s ON s.account_id = a.id
JOIN centre c ON c.id = a.centre_id
JOIN tariff t ON t.id = a.tariff_id
WHERE a.customer_id = %(customer)s
ORDER BY a.id

-- name: export_top_ups
-- Payments for the accounts of a customer, with the phone that the payer gave.
SELECT a.number, t.receipt_number, t.channel, t.amount_micro, y.currency, ms_of(t.paid_at), t.msisdn
FROM account a
JOIN top_up t ON t.account_id = a.id
JOIN tariff y ON y.id = a.tariff_id
WHERE a.customer_id = %(customer)s
ORDER BY t.id

-- name: export_grants
-- Parts that others have or had in the accounts of a customer, and that their person has elsewhere.
SELECT 'given', a.number, g.role, g.given_ms, g.given_by, g.withdrawn_ms, g.withdrawn_by
FROM account a JOIN account_grant g ON g.account_id = a.id
WHERE a.customer_id = %(customer)s
UNION ALL
SELECT 'received', a.number, g.role, g.given_ms, g.given_by, g.withdrawn_ms, g.withdrawn_by
FROM contact k
JOIN person p ON p.phone = k.address
JOIN account_grant g ON g.person_id = p.id
JOIN account a ON a.id = g.account_id
WHERE k.customer_id = %(customer)s AND k.channel = 'phone' AND k.ended_ms IS NULL
  AND k.verified_ms IS NOT NULL
ORDER BY 4

-- name: export_sessions
-- Where somebody signed in with the phone of a customer.
SELECT s.began_ms, s.seen_ms, s.expires_ms, s.ended_ms
FROM contact k
JOIN person p ON p.phone = k.address
JOIN customer_session s ON s.person_id = p.id
WHERE k.customer_id = %(customer)s AND k.channel = 'phone' AND k.ended_ms IS NULL
  AND k.verified_ms IS NOT NULL
ORDER BY s.id

-- name: contacts_to_erase
-- Contacts that ended before an instant and still have their address, of all customers or one.
SELECT id, customer_id, channel FROM contact
WHERE address IS NOT NULL AND ended_ms IS NOT NULL AND ended_ms <= %(until_ms)s
  AND (%(customer)s::bigint IS NULL OR customer_id = %(customer)s)
ORDER BY id
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED

-- name: erase_contact
-- The address is gone.
UPDATE contact SET address = NULL WHERE id = %(contact)s

-- name: erase_name
-- What is left of a name: the number of the customer.
UPDATE customer SET name = 'Customer ' || id WHERE id = %(customer)s

-- name: recall_code_messages
-- Codes that are still on their way to addresses that are erased.
UPDATE code_message SET state = 'late', address = NULL, code = NULL, claimed_until_ms = NULL
WHERE state = 'queued' AND address = ANY(%(addresses)s::text[])

-- name: forget_people
-- People whom no contact and no grant names any more; their sessions end with their phones.
WITH forgotten AS (
    UPDATE person p SET phone = NULL
    WHERE p.phone IS NOT NULL
      AND (%(phones)s::text[] IS NULL OR p.phone = ANY(%(phones)s))
      AND NOT EXISTS (SELECT FROM contact k WHERE k.address = p.phone)
      AND NOT EXISTS (SELECT FROM account_grant g WHERE g.person_id = p.id
                      AND (g.withdrawn_ms IS NULL OR g.withdrawn_ms > %(until_ms)s))
    RETURNING p.id
)
UPDATE customer_session s SET ended_ms = %(wall_ms)s
FROM forgotten f WHERE s.person_id = f.id AND s.ended_ms IS NULL
