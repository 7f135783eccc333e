-- name: lock_reconciliation
-- One file of a channel's business date at a time.
SELECT pg_advisory_xact_lock(hashtextextended(%(channel)s || ' ' || %(business_date)s::text, 1))

-- name: newest_reconciliation_file
-- The file that stands for a business date.
SELECT id, sha256, ms_of(received_at) FROM reconciliation_file
WHERE channel = %(channel)s AND business_date = %(business_date)s
ORDER BY id DESC LIMIT 1

-- name: insert_reconciliation_file
-- A file whose trailer is right.
INSERT INTO reconciliation_file (channel, business_date, sha256, line_count, sum_micro, received_at,
                                 received_from)
VALUES (%(channel)s, %(business_date)s, %(sha256)s, %(count)s, %(sum_micro)s, at_ms(%(now_ms)s),
        %(who)s)
RETURNING id

-- name: insert_reconciliation_lines
-- Its lines as they came.
INSERT INTO reconciliation_line (file_id, ordinal, partner_txn_id, meter, amount_micro, paid_at)
SELECT %(file)s, l.ordinal, l.number, l.meter, l.amount_micro, at_ms(l.paid_ms)
FROM unnest(%(numbers)s::text[], %(meters)s::text[], %(amounts)s::bigint[], %(paid)s::bigint[])
    WITH ORDINALITY AS l (number, meter, amount_micro, paid_ms, ordinal)

-- name: payments_to_reconcile
-- Our payments of a time, and those that the lines name; a moved payment is its first one, and one
-- that waits in suspense was received, too. Taken back is not unpaid: a reversal is another line.
WITH ours AS (
    SELECT t.id, t.partner_txn_id, m.number AS meter, t.amount_micro, ms_of(t.paid_at) AS paid_ms
    FROM top_up t JOIN meter m ON m.id = t.meter_id
    WHERE t.channel = %(channel)s AND t.moved_from IS NULL
      AND (t.paid_at >= at_ms(%(from_ms)s) AND t.paid_at < at_ms(%(to_ms)s)
           OR t.partner_txn_id = ANY(%(numbers)s))
    UNION ALL
    SELECT s.id, s.partner_txn_id, s.meter, s.amount_micro, ms_of(s.paid_at)
    FROM suspect_payment s
    WHERE s.channel = %(channel)s AND s.top_up_id IS NULL
      AND (s.paid_at >= at_ms(%(from_ms)s) AND s.paid_at < at_ms(%(to_ms)s)
           OR s.partner_txn_id = ANY(%(numbers)s))
)
SELECT o.id, o.partner_txn_id, o.meter, o.amount_micro, o.paid_ms,
       EXISTS (SELECT FROM reconciliation_item i
               WHERE i.payment_id = o.id AND i.channel = %(channel)s
                 AND i.business_date <> %(business_date)s AND i.class IN ('matched', 'late'))
FROM ours o

-- name: keep_reconciliation_item
-- What two sides come to; an item that somebody closed stays as it was closed.
INSERT INTO reconciliation_item AS i (channel, business_date, place, class, partner_txn_id, payment_id,
                                      their_micro, our_micro, owner, action, opened_at, decision, note,
                                      closed_by, closed_at)
VALUES (%(channel)s, %(business_date)s, %(place)s, %(class)s, %(partner_txn_id)s, %(payment)s,
        %(their_micro)s, %(our_micro)s, %(owner)s, %(action)s, at_ms(%(now_ms)s), %(decision)s,
        %(note)s, %(closed_by)s, at_ms(%(closed_ms)s))
ON CONFLICT (channel, business_date, place) DO UPDATE
SET class = excluded.class, payment_id = excluded.payment_id, their_micro = excluded.their_micro,
    our_micro = excluded.our_micro, owner = excluded.owner, action = excluded.action,
    decision = excluded.decision, note = excluded.note, closed_by = excluded.closed_by,
    closed_at = excluded.closed_at
WHERE i.decision IS NULL OR i.closed_by = 'reconciliation'

-- name: end_overtaken_items
-- Items that the newest file of their date does not give any more.
UPDATE reconciliation_item
SET decision = 'overtaken', note = 'a newer file of the day does not have it',
    closed_by = 'reconciliation', closed_at = at_ms(%(now_ms)s)
WHERE channel = %(channel)s AND business_date = %(business_date)s AND decision IS NULL
  AND place <> ALL(%(places)s)

-- name: end_items_that_came_late
-- What was missing at its own date and stands in the file of another.
UPDATE reconciliation_item
SET decision = 'came_late', note = 'it stands in the file of ' || %(business_date)s,
    closed_by = 'reconciliation', closed_at = at_ms(%(now_ms)s)
WHERE channel = %(channel)s AND business_date <> %(business_date)s::date AND class = 'ours_only'
  AND decision IS NULL AND payment_id = ANY(%(payments)s)

-- name: reconciliation_items
-- The items of a channel's business date, or what is open of all, oldest first.
SELECT id, channel, business_date, class, partner_txn_id, payment_id, their_micro, our_micro, owner,
       action, ms_of(opened_at), decision, note, closed_by, ms_of(closed_at)
FROM reconciliation_item
WHERE (%(channel)s::text IS NULL OR channel = %(channel)s)
  AND CASE WHEN %(business_date)s::date IS NULL THEN decision IS NULL
           ELSE business_date = %(business_date)s END
ORDER BY opened_at, id
LIMIT %(limit)s

-- name: lock_reconciliation_item
-- One item, until its decision is written.
SELECT id, channel, business_date, class, partner_txn_id, payment_id, their_micro, our_micro, owner,
       action, ms_of(opened_at), decision, note, closed_by, ms_of(closed_at)
FROM reconciliation_item WHERE id = %(id)s FOR UPDATE

-- name: close_reconciliation_item
-- Somebody decided what becomes of a difference.
UPDATE reconciliation_item
SET decision = %(decision)s, note = %(note)s, closed_by = %(who)s, closed_at = at_ms(%(now_ms)s)
WHERE id = %(id)s AND decision IS NULL

-- name: reconciliation_queue
-- What operators look through, oldest first: all items or one, by id.
SELECT id, channel, business_date, class, partner_txn_id, payment_id, their_micro, our_micro, owner,
       action, ms_of(opened_at), decision, note, closed_by, ms_of(closed_at)
FROM reconciliation_item
WHERE (NOT %(open)s::boolean OR decision IS NULL)
  AND (%(channel)s::text IS NULL OR channel = %(channel)s)
  AND (%(class)s::text IS NULL OR class = %(class)s)
  AND (%(id)s::bigint IS NULL OR id = %(id)s)
  AND (%(after)s::bigint IS NULL OR id > %(after)s)
ORDER BY id
LIMIT %(limit)s

-- name: line_of_item
-- The partner's line that an item is of, from the file that stands.
SELECT l.partner_txn_id, l.meter, l.amount_micro, ms_of(l.paid_at)
FROM reconciliation_line l
WHERE l.file_id = (SELECT max(f.id) FROM reconciliation_file f
                   WHERE f.channel = %(channel)s AND f.business_date = %(business_date)s)
  AND l.partner_txn_id = %(partner_txn_id)s AND l.amount_micro = %(amount_micro)s
ORDER BY l.ordinal LIMIT 1
