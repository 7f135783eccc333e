-- name: track_of_top_up
-- What the tracker says of a top-up beside its times: whether it found the supply off, whether its
-- meter takes tokens, the newest order that carries its credit, what became debt when it was taken
-- back, and the payment that took its place.
SELECT t.reconnects, m.meter_pan IS NOT NULL,
       (SELECT c.state FROM token k JOIN command c ON c.id = k.command_id
        WHERE k.top_up_id = t.id AND k.class = 0
        ORDER BY c.ctr DESC LIMIT 1),
       (SELECT d.amount_micro FROM adjustment d WHERE d.id = 'reversal-' || t.id),
       (SELECT n.partner_txn_id FROM top_up n WHERE n.moved_from = t.id)
FROM top_up t JOIN meter m ON m.id = t.meter_id
WHERE t.id = %(top_up)s

-- name: suspect_by_number
-- The payment of a channel's own number that waits or waited for a person, with its account's
-- currency where it has one.
SELECT s.id, s.channel, s.partner_txn_id, s.request_sha256, s.meter, s.amount_micro, ms_of(s.paid_at),
       s.msisdn, s.suspicion, s.detail, ms_of(s.held_at), s.decision, s.decided_by,
       ms_of(s.decided_at), s.reason, s.top_up_id, y.currency
FROM suspect_payment s
LEFT JOIN account a ON a.id = s.account_id
LEFT JOIN tariff y ON y.id = a.tariff_id
WHERE s.channel = %(channel)s AND s.partner_txn_id = %(partner_txn_id)s

-- name: payments_found
-- Payments by our id, by a channel's number, by a meter or an account: credited ones and those that
-- wait, newest first. Without an account they belong to no one centre.
SELECT f.id, f.channel, f.partner_txn_id
FROM (
    SELECT t.id, t.channel, t.partner_txn_id, m.number AS meter, a.number AS account, a.centre_id
    FROM top_up t
    JOIN account a ON a.id = t.account_id
    JOIN meter m ON m.id = t.meter_id
    WHERE (%(id)s::text IS NULL OR t.id = %(id)s)
      AND (%(number)s::text IS NULL OR t.partner_txn_id = %(number)s)
      AND (%(channel)s::text IS NULL OR t.channel = %(channel)s)
      AND (%(before)s::text IS NULL OR t.id < %(before)s)
    UNION ALL
    SELECT s.id, s.channel, s.partner_txn_id, s.meter, a.number, a.centre_id
    FROM suspect_payment s
    LEFT JOIN account a ON a.id = s.account_id
    WHERE s.top_up_id IS NULL
      AND (%(id)s::text IS NULL OR s.id = %(id)s)
      AND (%(number)s::text IS NULL OR s.partner_txn_id = %(number)s)
      AND (%(channel)s::text IS NULL OR s.channel = %(channel)s)
      AND (%(before)s::text IS NULL OR s.id < %(before)s)
) f
WHERE (%(meter)s::text IS NULL OR f.meter = %(meter)s)
  AND (%(account)s::text IS NULL OR f.account = %(account)s)
  AND (%(centres)s::smallint[] IS NULL OR f.centre_id = ANY(%(centres)s))
ORDER BY f.id DESC
LIMIT %(limit)s
