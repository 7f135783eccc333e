-- name: keep_quote
-- A quote that a partner was given.
INSERT INTO partner_quote (id, channel, account_id, meter, amount_micro, energy_wh, lines, basis,
                           quoted_ms, valid_until_ms)
VALUES (%(id)s, %(channel)s, %(account)s, %(meter)s, %(amount_micro)s, %(energy_wh)s, %(lines)s,
        %(basis)s, %(quoted_ms)s, %(valid_until_ms)s)

-- name: remove_old_quotes
-- A few of those that no payment will name any more, by one at a time.
DELETE FROM partner_quote WHERE id IN (
    SELECT q.id
    FROM (SELECT pg_try_advisory_xact_lock(hashtextextended('partner_quote', 2)) AS taken) mine,
         partner_quote q
    WHERE mine.taken AND q.quoted_ms < %(before_ms)s
    ORDER BY q.quoted_ms LIMIT %(limit)s)

-- name: quote_of_channel
-- A quote as it was given out; another channel's is none.
SELECT meter, amount_micro, energy_wh, lines, basis, quoted_ms
FROM partner_quote WHERE id = %(id)s AND channel = %(channel)s

-- name: note_payment_quote
-- Which quote a payment named; what came of it is told once.
INSERT INTO payment_quote AS q (channel, partner_txn_id, quote_id, equal, changed)
VALUES (%(channel)s, %(partner_txn_id)s, %(quote)s, %(equal)s, %(changed)s)
ON CONFLICT (channel, partner_txn_id) DO UPDATE
SET equal = excluded.equal, changed = excluded.changed WHERE q.equal IS NULL

-- name: payment_quote
-- The quote that a payment named, and what came of it.
SELECT quote_id, equal, changed FROM payment_quote
WHERE channel = %(channel)s AND partner_txn_id = %(partner_txn_id)s
