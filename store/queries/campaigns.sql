-- name: add_campaign
-- A roll-over of a supply group to its current vending key; no row when the code is taken.
INSERT INTO campaign (code, sgc, krn, base_date, ken, reason, planned_by, planned_at)
VALUES (%(code)s, %(sgc)s, %(krn)s, %(base_date)s, %(ken)s, %(reason)s, %(by)s, at_ms(%(now_ms)s))
ON CONFLICT (code) DO NOTHING
RETURNING id

-- name: plan_campaign_meters
-- The group's meters that hold another key, in batches that stay together in a centre as far as
-- they can: field crews work by centre.
INSERT INTO campaign_meter (campaign_id, meter_id, batch)
SELECT %(campaign)s, m.id, (row_number() OVER (ORDER BY c.code, m.number) - 1) / %(size)s + 1
FROM meter m JOIN centre c ON c.id = m.centre_id
WHERE m.sgc = %(sgc)s
  AND (m.krn, m.base_date, m.ken) <> (%(krn)s, %(base_date)s, %(ken)s)

-- name: campaign_of_code
-- A campaign by its code.
SELECT id, code, sgc, krn, base_date, ken, reason, planned_by, ms_of(planned_at)
FROM campaign WHERE code = %(code)s

-- name: campaigns_newest
-- Campaigns, newest first.
SELECT id, code, sgc, krn, base_date, ken, reason, planned_by, ms_of(planned_at)
FROM campaign ORDER BY id DESC

-- name: next_campaign_meters
-- Meters of a batch that hold another key and have no open set of this campaign, a few at a time.
SELECT p.meter_id
FROM campaign_meter p
JOIN campaign g ON g.id = p.campaign_id
JOIN meter m ON m.id = p.meter_id
LEFT JOIN key_change k ON k.id = p.key_change_id
WHERE p.campaign_id = %(campaign)s AND p.batch = %(batch)s AND p.meter_id > %(after)s
  AND (m.sgc, m.krn, m.base_date, m.ken) <> (g.sgc, g.krn, g.base_date, g.ken)
  AND (k.id IS NULL OR k.confirmed_at IS NOT NULL OR k.abandoned_at IS NOT NULL)
ORDER BY p.meter_id LIMIT %(limit)s

-- name: batch_exists
-- Whether a campaign has this batch.
SELECT EXISTS (SELECT FROM campaign_meter WHERE campaign_id = %(campaign)s AND batch = %(batch)s)

-- name: note_campaign_meter
-- What became of one meter of a campaign.
UPDATE campaign_meter SET key_change_id = %(key_change)s, refusal = %(refusal)s
WHERE campaign_id = %(campaign)s AND meter_id = %(meter)s

-- name: campaign_progress
-- By centre: meters, sets issued, entered, confirmed, refused. A meter that holds the campaign's key
-- is confirmed, whichever set led there.
SELECT c.code, c.name, count(*),
       count(*) FILTER (WHERE p.key_change_id IS NOT NULL OR t.done),
       count(*) FILTER (WHERE k.entered_at IS NOT NULL OR t.done),
       count(*) FILTER (WHERE t.done),
       count(*) FILTER (WHERE p.refusal IS NOT NULL AND NOT t.done)
FROM campaign_meter p
JOIN campaign g ON g.id = p.campaign_id
JOIN meter m ON m.id = p.meter_id
JOIN centre c ON c.id = m.centre_id
LEFT JOIN key_change k ON k.id = p.key_change_id
CROSS JOIN LATERAL (SELECT (m.sgc, m.krn, m.base_date, m.ken)
                         = (g.sgc, g.krn, g.base_date, g.ken) AS done) t
WHERE p.campaign_id = %(campaign)s
GROUP BY c.code, c.name
ORDER BY c.code

-- name: campaign_batches
-- By batch: meters, sets issued, confirmed.
SELECT p.batch, count(*),
       count(*) FILTER (WHERE p.key_change_id IS NOT NULL OR t.done),
       count(*) FILTER (WHERE t.done)
FROM campaign_meter p
JOIN campaign g ON g.id = p.campaign_id
JOIN meter m ON m.id = p.meter_id
CROSS JOIN LATERAL (SELECT (m.sgc, m.krn, m.base_date, m.ken)
                         = (g.sgc, g.krn, g.base_date, g.ken) AS done) t
WHERE p.campaign_id = %(campaign)s
GROUP BY p.batch
ORDER BY p.batch

-- name: campaign_slips
-- Open sets of a batch, for entry at the keypad.
SELECT c.code, m.number, k.digits
FROM campaign_meter p
JOIN meter m ON m.id = p.meter_id
JOIN centre c ON c.id = m.centre_id
JOIN key_change k ON k.id = p.key_change_id
WHERE p.campaign_id = %(campaign)s AND p.batch = %(batch)s
  AND k.confirmed_at IS NULL AND k.abandoned_at IS NULL
ORDER BY c.code, m.number

-- name: held_keys
-- The vending keys that meters hold, with how many do.
SELECT sgc, krn, ken, base_date, count(*) FROM meter
WHERE sgc IS NOT NULL
GROUP BY sgc, krn, ken, base_date
ORDER BY sgc, krn, base_date, ken
