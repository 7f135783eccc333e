-- name: claim_duty
-- A duty is done by the worker that gets its row; the others find it done.
INSERT INTO duty AS d (name, done_at) VALUES (%(name)s, at_ms(%(now_ms)s))
ON CONFLICT (name) DO UPDATE SET done_at = excluded.done_at
WHERE d.done_at <= at_ms(%(before_ms)s)
RETURNING d.name

-- name: plan_freely
-- For this transaction: a look at everything, not at points.
SELECT set_config('enable_seqscan', 'on', true), set_config('enable_hashjoin', 'on', true)

-- name: silent_groups
-- Gateways and transformers most of whose meters are silent now. A meter is silent when its
-- connection or its gateway's is gone, when it missed its readings, or when it said that the power
-- fails and nothing since.
WITH behind AS (
    SELECT m.id, 'gateway' AS scope, g.number AS name, m.interval_s, g.online IS FALSE AS cut_off
    FROM meter m JOIN gateway g ON g.id = m.gateway_id
    UNION ALL
    SELECT m.id, 'transformer', m.transformer, m.interval_s, g.online IS FALSE
    FROM meter m LEFT JOIN gateway g ON g.id = m.gateway_id
    WHERE m.transformer IS NOT NULL
), heard AS (
    SELECT b.scope, b.name, b.cut_off, s.seen_at,
           coalesce(s.power_failed_at >= s.seen_at - %(last_words_ms)s * interval '1 ms', false)
               AS failed,
           b.cut_off OR s.online IS FALSE
               OR s.seen_at <= at_ms(%(now_ms)s) - coalesce(b.interval_s, %(usual_interval_s)s)
                               * %(intervals_percent)s * interval '10 ms' AS silent
    FROM behind b
    JOIN meter_heard s ON s.meter_id = b.id
    LEFT JOIN outage o ON o.scope = b.scope AND o.name = b.name AND o.ended_at IS NULL
    WHERE s.seen_at > at_ms(%(now_ms)s - %(witness_ms)s)
       OR (o.id IS NOT NULL AND s.seen_at IS NOT NULL)
), counted AS (
    SELECT scope, name, count(*) AS meters,
           count(*) FILTER (WHERE silent OR failed) AS silent,
           count(*) FILTER (WHERE failed) AS failed,
           bool_or(cut_off) AS cut_off,
           percentile_disc(0.5) WITHIN GROUP (ORDER BY seen_at)
               FILTER (WHERE silent OR failed) AS started_at
    FROM heard
    GROUP BY scope, name
)
SELECT scope, name,
       CASE WHEN failed * 2 > silent THEN 'power_fail'
            WHEN scope = 'gateway' AND cut_off THEN 'gateway_offline'
            ELSE 'silence' END AS cause,
       ms_of(started_at), meters, silent
FROM counted
WHERE meters >= %(least)s AND silent * 100 > meters * %(percent)s
ORDER BY scope, name

-- name: open_outages
-- Outages that are new; one lasts already for the others.
INSERT INTO outage (scope, name, cause, started_at, opened_at, meters, silent)
SELECT scope, name, cause, at_ms(started_ms), at_ms(%(now_ms)s), meters, silent
FROM unnest(%(scope)s::text[], %(name)s::text[], %(cause)s::text[], %(started_ms)s::bigint[],
            %(meters)s::integer[], %(silent)s::integer[])
    AS o (scope, name, cause, started_ms, meters, silent)
ON CONFLICT (scope, name) WHERE ended_at IS NULL DO NOTHING
RETURNING scope, name

-- name: close_outages
-- Outages whose group speaks again: all that are not among these.
UPDATE outage o SET ended_at = at_ms(%(now_ms)s)
WHERE o.ended_at IS NULL
  AND NOT EXISTS (SELECT FROM unnest(%(scope)s::text[], %(name)s::text[]) AS n (scope, name)
                  WHERE n.scope = o.scope AND n.name = o.name)
RETURNING o.scope, o.name

-- name: meters_in_outage
-- Of these meters, those behind something that is out at an instant, or without power themselves.
SELECT m.id
FROM meter m
JOIN meter_heard s ON s.meter_id = m.id
LEFT JOIN gateway g ON g.id = m.gateway_id
WHERE m.id = ANY(%(meters)s)
  AND (s.power_failed_at >= s.seen_at - %(last_words_ms)s * interval '1 ms'
       OR EXISTS (SELECT FROM outage o
                  WHERE ((o.scope = 'gateway' AND o.name = g.number)
                         OR (o.scope = 'transformer' AND o.name = m.transformer))
                    AND o.started_at <= at_ms(%(now_ms)s)
                    AND (o.ended_at IS NULL OR o.ended_at > at_ms(%(now_ms)s))))

-- name: outages
-- Outages for people, newest first.
SELECT id, scope, name, cause, ms_of(started_at), ms_of(opened_at), ms_of(ended_at), meters, silent
FROM outage
WHERE %(ended)s OR ended_at IS NULL
ORDER BY opened_at DESC, id DESC
LIMIT %(limit)s

-- name: place_behind_gateway
-- The gateway that speaks for a meter; null: none.
UPDATE meter SET gateway_id = (SELECT id FROM gateway WHERE number = %(name)s)
WHERE number = %(number)s

-- name: place_behind_transformer
-- The transformer that feeds a meter; null: not known.
UPDATE meter SET transformer = %(name)s WHERE number = %(number)s
