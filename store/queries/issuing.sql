-- name: newest_tid
-- The newest TID that this meter was given since this base date, under whatever key: a key change
-- does not clear the meter's memory.
SELECT max(tid) FROM token WHERE meter_id = %(meter)s AND base_date = %(base_date)s

-- name: insert_token
-- Stored before it is shown or sent.
INSERT INTO token (meter_id, top_up_id, key_change_id, engineering_token_id, ordinal, digits, class,
                   subclass, amount, sgc, krn, base_date, kt, ti, tid, shares_tid, issued_at,
                   command_id)
VALUES (%(meter)s, %(top_up)s, %(key_change)s, %(engineering)s, %(ordinal)s, %(digits)s, %(class)s,
        %(subclass)s, %(amount)s, %(sgc)s, %(krn)s, %(base_date)s, %(kt)s, %(ti)s, %(tid)s,
        %(shares_tid)s, at_ms(%(now_ms)s), %(command)s)

-- name: mark_token_issued
-- The tokens of a top-up are stored.
UPDATE top_up SET token_issued_at = at_ms(%(now_ms)s) WHERE id = %(top_up)s

-- name: tokens_to_deliver_again
-- Tokens whose command ended without a word from the meter, and that it still needs.
SELECT m.attempt, coalesce(m.first_issued_ms, m.issued_ms), k.meter_id,
       array_agg(k.digits ORDER BY k.ordinal),
       array_agg(k.id ORDER BY k.ordinal), max(k.tid), bool_or(k.class = 2 AND c.id IS NOT NULL)
FROM token k
JOIN command m ON m.id = k.command_id
LEFT JOIN top_up t ON t.id = k.top_up_id
LEFT JOIN key_change c ON c.id = k.key_change_id
WHERE k.command_id = ANY(%(commands)s::uuid[]) AND k.result IS NULL AND t.accepted_at IS NULL
  AND NOT EXISTS (SELECT FROM token_replacement r WHERE r.replaced_token_id = k.id)
  AND NOT (k.class = 0 AND EXISTS (SELECT FROM reversal v WHERE v.top_up_id = k.top_up_id))
  AND (k.class = 0 OR c.id IS NULL OR (c.confirmed_at IS NULL AND c.abandoned_at IS NULL))
GROUP BY m.id, k.meter_id
ORDER BY min(k.id)

-- name: reissue_command
-- The same tokens, carried by a new command.
UPDATE token SET command_id = %(command)s WHERE id = ANY(%(tokens)s)

-- name: tokens_of_top_up
-- The tokens of a top-up that may still be entered, in the order of entry.
SELECT k.digits FROM token k
WHERE k.top_up_id = %(top_up)s
  AND NOT EXISTS (SELECT FROM token_replacement r WHERE r.replaced_token_id = k.id)
ORDER BY k.ordinal

-- name: find_top_up
-- The account of a top-up.
SELECT account_id FROM top_up WHERE id = %(top_up)s

-- name: top_up_of_receipt
-- The top-up that a receipt is of.
SELECT id FROM top_up WHERE receipt_number = %(receipt)s

-- name: insert_reprint
-- Somebody was shown tokens again.
INSERT INTO reprint (top_up_id, reprinted_by, reason, reprinted_at)
VALUES (%(top_up)s, %(by)s, %(reason)s, at_ms(%(now_ms)s))

-- name: tokens_with_digits
-- Whether these digits are ours: each time they were issued, and what the meter said.
SELECT ms_of(k.issued_at), m.number, k.class, k.subclass, t.receipt_number, k.result,
       ms_of(k.answered_at), ms_of(r.replaced_at)
FROM token k
LEFT JOIN token_replacement r ON r.replaced_token_id = k.id
JOIN meter m ON m.id = k.meter_id
LEFT JOIN top_up t ON t.id = k.top_up_id
WHERE k.digits = %(digits)s
ORDER BY k.id

-- name: unanswered_credit
-- Credit that was sent to a meter under its present key and that it has said nothing about, in the
-- order of issue; the newest few, if a meter is silent for good.
SELECT digits FROM (
    SELECT k.id, k.digits
    FROM token k
    JOIN top_up t ON t.id = k.top_up_id
    JOIN meter m ON m.id = k.meter_id
    WHERE k.meter_id = %(meter)s AND k.class = 0 AND k.result IS NULL AND t.accepted_at IS NULL
      AND k.command_id IS NOT NULL
      AND (k.sgc, k.krn, k.base_date, coalesce(k.kt, m.kt), coalesce(k.ti, m.ti))
          = (m.sgc, m.krn, m.base_date, m.kt, m.ti)
      AND NOT EXISTS (SELECT FROM token_replacement r WHERE r.replaced_token_id = k.id)
      AND NOT EXISTS (SELECT FROM reversal v WHERE v.top_up_id = t.id)
      AND NOT EXISTS (SELECT FROM key_change c
                      WHERE c.id = k.key_change_id AND c.confirmed_at IS NULL)
    ORDER BY k.id DESC LIMIT %(limit)s) newest
ORDER BY id
