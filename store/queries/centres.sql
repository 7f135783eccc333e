-- name: settings_of_centres
-- What operators set for these centres.
SELECT id, settings FROM centre WHERE id = ANY(%(centres)s)

-- name: settings_of_centre
-- What operators set for the centre with this code.
SELECT settings FROM centre WHERE code = %(code)s

-- name: lock_centre_of_code
-- Two changes of one centre's settings come one after the other.
SELECT id FROM centre WHERE code = %(code)s FOR NO KEY UPDATE

-- name: set_centre
-- New settings of a centre.
UPDATE centre SET settings = %(settings)s WHERE code = %(code)s

-- name: lock_centres
-- Cuts are counted one worker at a time per centre; references to the row wait for nobody.
SELECT id FROM centre WHERE id = ANY(%(centres)s) ORDER BY id FOR NO KEY UPDATE

-- name: cuts_within
-- Cuts of a centre since an instant, and its accounts.
SELECT coalesce((SELECT sum(cuts) FROM cut_count
                 WHERE centre_id = %(centre)s AND minute_ms > %(since_ms)s), 0)::bigint,
       (SELECT count(*) FROM account WHERE centre_id = %(centre)s)

-- name: count_cuts
-- More cuts of a centre in a minute.
INSERT INTO cut_count (centre_id, minute_ms, cuts) VALUES (%(centre)s, %(minute_ms)s, %(cuts)s)
ON CONFLICT (centre_id, minute_ms) DO UPDATE SET cuts = cut_count.cuts + excluded.cuts

-- name: forget_cuts
-- A person has decided: what was cut before does not count any more.
DELETE FROM cut_count WHERE centre_id = %(centre)s

-- name: newest_brake
-- The newest brake of a centre: pulled, or until when a release frees it.
SELECT id, state, free_until_ms FROM brake
WHERE centre_id = %(centre)s ORDER BY id DESC LIMIT 1

-- name: pull_brake
-- No more cuts in this centre until a person decides.
INSERT INTO brake (centre_id, pulled_ms, cuts, wanted, most)
VALUES (%(centre)s, %(now_ms)s, %(cuts)s, %(wanted)s, %(most)s)
RETURNING id

-- name: brakes
-- Brakes, newest first: the pulled ones, or all; with how many cuts each still withholds.
SELECT b.id, c.code, b.pulled_ms, b.cuts, b.wanted, b.most, b.state, b.decided_by, b.reason,
       b.decided_ms, b.free_until_ms,
       CASE b.state WHEN 'pulled' THEN
           (SELECT count(*) FROM withheld_cut w
            WHERE w.ended_ms IS NULL AND w.standing @> ARRAY['brake:' || b.id]) ELSE 0 END
FROM brake b JOIN centre c ON c.id = b.centre_id
WHERE b.state = 'pulled' OR %(all)s
ORDER BY b.id DESC
LIMIT %(limit)s

-- name: decide_brake
-- A person lets a brake go, once.
UPDATE brake
SET state = %(state)s, decided_by = %(by)s, reason = %(reason)s, decided_ms = %(now_ms)s,
    free_until_ms = %(free_until_ms)s
WHERE id = %(brake)s AND state = 'pulled'
RETURNING id

-- name: centre_of_brake
-- Whose brake it is.
SELECT centre_id FROM brake WHERE id = %(brake)s

-- name: decide_withheld_again
-- Cuts that a guard of this name withheld are due again, for the clockwork.
WITH locked AS (
    SELECT s.account_id FROM withheld_cut w JOIN account_state s ON s.account_id = w.account_id
    WHERE w.ended_ms IS NULL AND w.standing @> ARRAY[%(guard)s::text]
    ORDER BY s.account_id
    FOR UPDATE OF s
)
UPDATE account_state s SET due_ms = least(s.due_ms, %(now_ms)s)
FROM locked WHERE locked.account_id = s.account_id
RETURNING s.account_id
