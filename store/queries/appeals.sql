-- name: open_appeal
-- Somebody asks what only a person may grant; one at a time for a payment.
INSERT INTO appeal (kind, top_up_id, to_meter, asked_by, reason, asked_at)
VALUES (%(kind)s, %(top_up)s, %(to_meter)s, %(who)s, %(reason)s, at_ms(%(now_ms)s))
ON CONFLICT (top_up_id) WHERE decision IS NULL DO NOTHING
RETURNING id

-- name: appeals
-- Appeals oldest first: all, the open ones, one, or those of a payment. `centres`: of the account
-- that was credited.
SELECT p.id, p.kind, p.top_up_id, t.channel, t.partner_txn_id, t.account_id, a.number, m.number,
       p.to_meter, t.amount_micro, y.currency, p.asked_by, p.reason, ms_of(p.asked_at),
       p.proposed_by, ms_of(p.proposed_at), p.decision, p.decided_by, ms_of(p.decided_at), p.note
FROM appeal p
JOIN top_up t ON t.id = p.top_up_id
JOIN account a ON a.id = t.account_id
JOIN tariff y ON y.id = a.tariff_id
JOIN meter m ON m.id = t.meter_id
WHERE (NOT %(open)s::boolean OR p.decision IS NULL)
  AND (%(id)s::bigint IS NULL OR p.id = %(id)s)
  AND (%(top_up)s::text IS NULL OR p.top_up_id = %(top_up)s)
  AND (%(centres)s::smallint[] IS NULL OR a.centre_id = ANY(%(centres)s))
  AND (%(after)s::bigint IS NULL OR p.id > %(after)s)
ORDER BY p.id
LIMIT %(limit)s

-- name: lock_appeal
-- One appeal, until its decision is written.
SELECT id FROM appeal WHERE id = %(id)s FOR UPDATE

-- name: propose_appeal
-- The first of two people would grant it.
UPDATE appeal SET proposed_by = %(who)s, proposed_at = at_ms(%(now_ms)s) WHERE id = %(id)s

-- name: decide_appeal
-- What a person decided, once.
UPDATE appeal SET decision = %(decision)s, decided_by = %(who)s, decided_at = at_ms(%(now_ms)s),
                  note = %(note)s
WHERE id = %(id)s AND decision IS NULL
