-- name: stranded_credit
-- Credit of the account that a meter serves which nobody accepted and this meter cannot read: it is
-- under a key that the meter held before, or for the meter in whose place it came. Credit behind an
-- open key change of this meter will be read yet.
SELECT k.id, k.top_up_id, t.receipt_number, k.meter_id, m.number, k.subclass, k.amount, k.base_date,
       k.tid, ms_of(k.issued_at), k.result,
       (SELECT max(o.ordinal) FROM token o WHERE o.top_up_id = k.top_up_id)
FROM token k
JOIN top_up t ON t.id = k.top_up_id
JOIN meter m ON m.id = k.meter_id
JOIN meter s ON s.id = %(meter)s
WHERE t.account_id = (SELECT i.account_id FROM installation i WHERE i.meter_id = s.id
                      ORDER BY i.opened_at DESC LIMIT 1)
  AND s.id = (SELECT i.meter_id FROM installation i WHERE i.account_id = t.account_id
              ORDER BY i.opened_at DESC LIMIT 1)
  AND k.class = 0 AND (k.result IS NULL OR k.result = 'AuthenticationError')
  AND t.accepted_at IS NULL
  AND NOT EXISTS (SELECT FROM reversal v WHERE v.top_up_id = t.id)
  AND NOT EXISTS (SELECT FROM token_replacement r WHERE r.replaced_token_id = k.id)
  AND (k.meter_id <> s.id
       OR (k.sgc, k.krn, k.base_date, coalesce(k.kt, s.kt), coalesce(k.ti, s.ti))
          <> (s.sgc, s.krn, s.base_date, s.kt, s.ti)
          AND NOT EXISTS (SELECT FROM key_change c
                          WHERE c.id = k.key_change_id AND c.confirmed_at IS NULL
                            AND c.abandoned_at IS NULL))
ORDER BY k.id

-- name: insert_replacement
-- Which token stands for which, on what ground, and who said so.
INSERT INTO token_replacement (replaced_token_id, token_id, ground, replaced_by, reason,
                               replaced_at)
SELECT %(replaced)s, id, %(ground)s, %(by)s, %(reason)s, at_ms(%(now_ms)s)
FROM token WHERE top_up_id = %(top_up)s AND ordinal = %(ordinal)s

-- name: await_replacement
-- A top-up waits for its meter again.
UPDATE top_up SET rejected_at = NULL WHERE id = %(top_up)s

-- name: supersede_token_commands
-- What was not sent yet of a token that another stands for now.
UPDATE command c SET state = 'superseded'
FROM token k
WHERE k.id = %(token)s AND c.meter_id = k.meter_id AND c.type = 'token' AND c.state = 'queued'
  AND c.args -> 'tokens' ? k.digits

-- name: replaced_and_readable
-- Tokens that others stand for on another meter, and that this one would still take.
SELECT count(*)
FROM token k
JOIN token_replacement r ON r.replaced_token_id = k.id
JOIN token n ON n.id = r.token_id
JOIN meter m ON m.id = k.meter_id
WHERE k.meter_id = %(meter)s AND n.meter_id <> k.meter_id
  AND (k.result IS NULL OR k.result NOT IN ('Accept', 'UsedError'))
  AND (k.sgc, k.krn, k.base_date, coalesce(k.kt, m.kt), coalesce(k.ti, m.ti))
      = (m.sgc, m.krn, m.base_date, m.kt, m.ti)
