-- name: top_up_of_payment
-- The top-up of a payment, by the channel's own number.
SELECT id, request_sha256 FROM top_up
WHERE channel = %(channel)s AND partner_txn_id = %(partner_txn_id)s

-- name: meter_for_vending
-- A meter with the account that it serves now, and whether it takes tokens.
SELECT m.id, i.account_id, m.meter_pan IS NOT NULL
FROM meter m
JOIN LATERAL (SELECT account_id FROM installation i WHERE i.meter_id = m.id
              ORDER BY opened_at DESC LIMIT 1) i ON true
WHERE m.number = %(number)s
  AND m.id = (SELECT meter_id FROM installation c WHERE c.account_id = i.account_id
              ORDER BY opened_at DESC LIMIT 1)

-- name: insert_top_up
-- A payment that is now credit; the fact itself and its quote, line by line.
INSERT INTO top_up (id, account_id, meter_id, channel, partner_txn_id, request_sha256, amount_micro,
                    paid_at, credited_ms, energy_wh, lines, msisdn, cash_step_micro,
                    cash_rounding_micro, moved_from)
VALUES (%(id)s, %(account)s, %(meter)s, %(channel)s, %(partner_txn_id)s, %(request_sha256)s,
        %(amount_micro)s, at_ms(%(paid_ms)s), %(credited_ms)s, %(energy_wh)s, %(lines)s, %(msisdn)s,
        %(coin_micro)s, %(rounding_micro)s, %(moved_from)s)
ON CONFLICT (channel, partner_txn_id) DO NOTHING
RETURNING id

-- name: insert_reversal
-- A top-up taken back.
INSERT INTO reversal (top_up_id, account_id, reversed_ms, reason)
VALUES (%(top_up)s, %(account)s, %(reversed_ms)s, %(reason)s)
ON CONFLICT (top_up_id) DO NOTHING

-- name: top_up_to_reverse
-- What decides whether a top-up can still be taken back.
SELECT t.id, t.account_id, t.credited_ms, t.token_issued_at IS NOT NULL,
       EXISTS (SELECT FROM reversal r WHERE r.top_up_id = t.id)
FROM top_up t
WHERE t.channel = %(channel)s AND t.partner_txn_id = %(partner_txn_id)s

-- name: insert_emergency_request
-- A customer asks for emergency credit.
INSERT INTO emergency_request (account_id, requested_ms) VALUES (%(account)s, %(requested_ms)s)
ON CONFLICT DO NOTHING
