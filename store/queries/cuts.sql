-- name: cut_facts
-- What the guards ask about accounts that are about to be cut, beside what their state says.
SELECT account,
       h.id, h.until_ms,
       (SELECT min(p.received_ms) FROM unsettled_payment p
        WHERE p.account_id = account AND p.settled_ms IS NULL),
       -- a notice on the display is given once the broker has it, unless the meter would not show it
       (SELECT min(coalesce(n.given_ms, ms_of(c.sent_at)))
        FROM cut_notice n LEFT JOIN command c ON c.id = n.command_id
        WHERE n.account_id = account AND n.lapsed_ms IS NULL
          AND (c.id IS NULL OR c.state NOT IN ('failed', 'refused'))),
       (SELECT max(n.asked_ms) FROM cut_notice n
        WHERE n.account_id = account AND n.lapsed_ms IS NULL)
FROM unnest(%(accounts)s::bigint[]) AS a (account)
LEFT JOIN LATERAL (SELECT id, until_ms FROM hold
                   WHERE hold.account_id = account AND released_ms IS NULL
                     AND from_ms <= %(now_ms)s AND (until_ms IS NULL OR until_ms > %(now_ms)s)
                   ORDER BY id LIMIT 1) h ON true

-- name: open_withheld_cuts
-- Cuts that are withheld, and by which guards.
SELECT account_id, standing FROM withheld_cut
WHERE account_id = ANY(%(accounts)s) AND ended_ms IS NULL

-- name: end_withheld_cuts
-- These cuts are not withheld any more, or by other guards.
UPDATE withheld_cut SET ended_ms = %(now_ms)s, ended_by = %(by)s
WHERE account_id = ANY(%(accounts)s) AND ended_ms IS NULL
RETURNING account_id

-- name: withhold_cut
-- A cut that is due waits for guards.
INSERT INTO withheld_cut (account_id, standing, guards, from_ms)
VALUES (%(account)s, %(standing)s, %(guards)s, %(now_ms)s)

-- name: withheld_cuts_of_account
-- Why an account was not cut, newest first.
SELECT standing, guards, from_ms, ended_ms, ended_by FROM withheld_cut
WHERE account_id = %(account)s ORDER BY id DESC LIMIT %(limit)s

-- name: open_reads
-- Meters that are asked for a reading already.
SELECT meter_id FROM command
WHERE meter_id = ANY(%(meters)s) AND type = 'read'
  AND state IN ('queued', 'sent', 'accepted', 'executing')

-- name: insert_cut_notice
-- A notice that a command carries to the display.
INSERT INTO cut_notice (account_id, channel, command_id, asked_ms)
VALUES (%(account)s, 'display', %(command)s, %(now_ms)s)

-- name: lapse_cut_notices
-- The credit is back: what was announced is over.
UPDATE cut_notice SET lapsed_ms = %(now_ms)s
WHERE account_id = ANY(%(accounts)s) AND lapsed_ms IS NULL

-- name: accounts_with_notice
-- Of these accounts those that have a notice in force.
SELECT DISTINCT account_id FROM cut_notice
WHERE account_id = ANY(%(accounts)s) AND lapsed_ms IS NULL

-- name: note_unsettled_payment
-- Money that a channel has and that is not credited yet; a repeat moves its state.
INSERT INTO unsettled_payment (channel, partner_txn_id, account_id, state, amount_micro, received_ms)
VALUES (%(channel)s, %(partner_txn_id)s, %(account)s, %(state)s, %(amount_micro)s, %(received_ms)s)
ON CONFLICT (channel, partner_txn_id) DO UPDATE SET state = excluded.state

-- name: settle_unsettled_payment
-- It is credited, or it will never be.
UPDATE unsettled_payment SET settled_ms = %(now_ms)s
WHERE channel = %(channel)s AND partner_txn_id = %(partner_txn_id)s AND settled_ms IS NULL
RETURNING account_id

-- name: account_of_unsettled
-- Whose payment it is, while it waits.
SELECT account_id FROM unsettled_payment
WHERE channel = %(channel)s AND partner_txn_id = %(partner_txn_id)s AND settled_ms IS NULL
