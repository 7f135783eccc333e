-- name: lock_payment
-- Two messages of one payment at once, whatever meter they name, wait here for each other.
SELECT pg_advisory_xact_lock(hashtextextended(%(channel)s || '/' || %(partner_txn_id)s, 0))

-- name: suspect_of_payment
-- The suspect payment of a channel's own number.
SELECT id, request_sha256, decision, top_up_id FROM suspect_payment
WHERE channel = %(channel)s AND partner_txn_id = %(partner_txn_id)s

-- name: earlier_payments
-- The newest payments of a meter that were not taken back.
SELECT t.channel, t.amount_micro, ms_of(t.paid_at), t.credited_ms
FROM top_up t JOIN meter m ON m.id = t.meter_id
WHERE m.number = %(meter)s AND NOT EXISTS (SELECT FROM reversal r WHERE r.top_up_id = t.id)
ORDER BY t.credited_ms DESC, t.id DESC
LIMIT %(limit)s

-- name: insert_suspect
-- A payment that waits for a person.
INSERT INTO suspect_payment (id, channel, partner_txn_id, request_sha256, meter, account_id,
                             amount_micro, paid_at, msisdn, suspicion, detail, held_at)
VALUES (%(id)s, %(channel)s, %(partner_txn_id)s, %(request_sha256)s, %(meter)s, %(account)s,
        %(amount_micro)s, at_ms(%(paid_ms)s), %(msisdn)s, %(suspicion)s, %(detail)s,
        at_ms(%(now_ms)s))

-- name: insert_suspense
-- What a channel cleared into suspense, or what left it by the same channel.
INSERT INTO suspense_transaction (suspect_id, kind, at_ms, legs, amounts)
SELECT %(id)s, %(kind)s, %(now_ms)s, array_agg(a.id ORDER BY a.code),
       array_agg(CASE a.code WHEN 'suspense' THEN %(amount_micro)s::bigint
                             ELSE -%(amount_micro)s::bigint END ORDER BY a.code)
FROM ledger_account a WHERE a.code IN ('suspense', %(clearing)s)

-- name: lock_suspect
-- One suspect payment, until its decision is written.
SELECT id, channel, partner_txn_id, request_sha256, meter, amount_micro, ms_of(paid_at), msisdn,
       suspicion, detail, ms_of(held_at), decision, decided_by, ms_of(decided_at), reason, top_up_id
FROM suspect_payment WHERE id = %(id)s FOR UPDATE

-- name: suspects_waiting
-- Suspect payments that nobody decided yet, oldest first.
SELECT id, channel, partner_txn_id, request_sha256, meter, amount_micro, ms_of(paid_at), msisdn,
       suspicion, detail, ms_of(held_at), decision, decided_by, ms_of(decided_at), reason, top_up_id
FROM suspect_payment WHERE decision IS NULL ORDER BY held_at, id LIMIT %(limit)s

-- name: decide_suspect
-- An operator decides, once.
UPDATE suspect_payment
SET decision = %(decision)s, decided_by = %(who)s, decided_at = at_ms(%(now_ms)s),
    reason = %(reason)s, top_up_id = %(top_up)s
WHERE id = %(id)s AND decision IS NULL

-- name: top_up_to_move
-- A payment with what decides whether it can be taken back or moved.
SELECT t.id, t.account_id, t.meter_id, m.number, t.amount_micro, ms_of(t.paid_at), t.credited_ms,
       t.request_sha256, t.msisdn, t.cash_step_micro, t.cash_rounding_micro,
       t.token_issued_at IS NOT NULL, t.accepted_at IS NOT NULL,
       (SELECT reason FROM reversal r WHERE r.top_up_id = t.id),
       (SELECT id FROM top_up n WHERE n.moved_from = t.id)
FROM top_up t JOIN meter m ON m.id = t.meter_id
WHERE t.channel = %(channel)s AND t.partner_txn_id = %(partner_txn_id)s

-- name: insert_adjustment_to_debt
-- What a balance lacks, moved to the debt; posted at once, for the reversal was decided.
INSERT INTO adjustment (id, account_id, amount_micro, reason, requested_by, requested_at, state,
                        decided_by, adjusted_ms, to_debt)
VALUES (%(id)s, %(account)s, %(amount_micro)s, %(reason)s, %(who)s, at_ms(%(now_ms)s), 'posted',
        NULL, %(adjusted_ms)s, true)

-- name: meter_of_top_up
-- The number of the meter that a top-up was for.
SELECT m.number FROM top_up t JOIN meter m ON m.id = t.meter_id WHERE t.id = %(top_up)s

-- name: balance_before
-- The balance that a posting found.
SELECT balance_micro - customer_micro FROM ledger_posting
WHERE account_id = %(account)s AND key = %(key)s AND correction = 0

-- name: withdraw_unsent_credit
-- Credit of a reversed top-up that did not leave the building; what else its order carries, goes.
UPDATE command c SET state = 'superseded'
WHERE c.type = 'token' AND c.state = 'queued'
  AND c.id IN (SELECT k.command_id FROM token k WHERE k.top_up_id = %(top_up)s)
  AND NOT EXISTS (SELECT FROM jsonb_array_elements_text(c.args -> 'tokens') AS d (digits)
                  WHERE NOT EXISTS (SELECT FROM token k
                                    WHERE k.top_up_id = %(top_up)s AND k.class = 0
                                      AND k.digits = d.digits))
