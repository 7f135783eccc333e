-- name: claim_duty
-- A duty is done by the worker that gets its row; the others find it done. `share`: of the time one
-- in so many is spent on it. Until it is noted how long it takes now, it took no time.
INSERT INTO duty AS d (name, done_at) VALUES (%(name)s, at_ms(%(now_ms)s))
ON CONFLICT (name) DO UPDATE SET done_at = excluded.done_at, took = '0'
WHERE d.done_at <= at_ms(%(before_ms)s) AND d.done_at <= excluded.done_at - d.took * %(share)s
RETURNING d.name

-- name: note_duty
-- How long the duty of this transaction took, by the database's own clock.
UPDATE duty SET took = clock_timestamp() - transaction_timestamp() WHERE name = %(name)s

-- name: plan_freely
-- For this transaction: a look at many rows, not at points, and with each look's own plan.
SELECT set_config('enable_seqscan', 'on', true), set_config('enable_hashjoin', 'on', true),
       set_config('plan_cache_mode', 'force_custom_plan', true)

-- name: suspect_groups
-- The groups to which something happened of late or whose outage lasts: gateways by their will,
-- meters by theirs or by their word that the power fails.
WITH struck AS (
    SELECT meter_id FROM meter_state
    WHERE power_failed_at > at_ms(%(since_ms)s)
    UNION
    SELECT meter_id FROM meter_heard
    WHERE online IS FALSE AND seen_at > at_ms(%(since_ms)s)
), suspect AS (
    SELECT m.gateway_id, m.transformer FROM struck s JOIN meter m ON m.id = s.meter_id
    UNION
    SELECT g.id, m.transformer
    FROM gateway g JOIN meter m ON m.gateway_id = g.id WHERE g.online IS FALSE
    UNION
    SELECT g.id, NULL
    FROM outage o JOIN gateway g ON g.number = o.name
    WHERE o.scope = 'gateway' AND o.ended_at IS NULL
    UNION
    SELECT NULL, name FROM outage WHERE scope = 'transformer' AND ended_at IS NULL
)
SELECT coalesce(array_agg(DISTINCT gateway_id) FILTER (WHERE gateway_id IS NOT NULL), '{}'),
       coalesce(array_agg(DISTINCT transformer) FILTER (WHERE transformer IS NOT NULL), '{}')
FROM suspect

-- name: silent_groups
-- Of these gateways and transformers, or of all where both are null, those most of whose meters are
-- silent now. A meter is silent when its connection or its gateway's is gone, when it missed its
-- readings, or when it said that the power fails and nothing since.
-- `heard`: as in `meter_heard`, of all meters at once. Groups are counted by numbers, and named at the
-- end; OFFSET 0: what a row says is worked out once.
WITH heard AS (
    SELECT heard_meter_id AS meter_id, max(heard_at_ms) AS at_ms
    FROM account_state
    WHERE heard_meter_id IS NOT NULL
      AND (%(gateways)s::bigint[] IS NULL OR heard_meter_id IN (
               SELECT id FROM meter WHERE gateway_id = ANY(%(gateways)s::bigint[])
               UNION ALL
               SELECT id FROM meter WHERE transformer = ANY(%(transformers)s::text[])))
    GROUP BY heard_meter_id
), behind AS (
    SELECT m.id, m.interval_s, g.id AS gateway_id, NULL AS transformer, g.online IS FALSE AS cut_off,
           o.id IS NOT NULL AS lasts
    FROM meter m
    JOIN gateway g ON g.id = m.gateway_id
    LEFT JOIN outage o ON o.scope = 'gateway' AND o.name = g.number AND o.ended_at IS NULL
    WHERE %(gateways)s::bigint[] IS NULL OR m.gateway_id = ANY(%(gateways)s::bigint[])
    UNION ALL
    SELECT m.id, m.interval_s, NULL, m.transformer, g.online IS FALSE, o.id IS NOT NULL
    FROM meter m
    LEFT JOIN gateway g ON g.id = m.gateway_id
    LEFT JOIN outage o ON o.scope = 'transformer' AND o.name = m.transformer AND o.ended_at IS NULL
    WHERE m.transformer IS NOT NULL
      AND (%(transformers)s::text[] IS NULL OR m.transformer = ANY(%(transformers)s::text[]))
), seen AS (
    SELECT b.gateway_id, b.transformer, b.interval_s, b.cut_off, b.lasts, s.online, s.power_failed_at,
           greatest(s.seen_at, at_ms(h.at_ms)) AS seen_at
    FROM behind b
    JOIN meter_state s ON s.meter_id = b.id
    LEFT JOIN heard h ON h.meter_id = b.id
    OFFSET 0
), judged AS (
    SELECT gateway_id, transformer, seen_at, cut_off,
           coalesce(power_failed_at >= seen_at - %(last_words_ms)s * interval '1 ms', false)
               AS failed,
           cut_off OR online IS FALSE
               OR seen_at <= at_ms(%(now_ms)s) - coalesce(interval_s, %(usual_interval_s)s)
                             * %(intervals_percent)s * interval '10 ms' AS silent
    FROM seen
    WHERE seen_at > at_ms(%(now_ms)s - %(witness_ms)s) OR (lasts AND seen_at IS NOT NULL)
    OFFSET 0
), counted AS (
    SELECT gateway_id, transformer, count(*) AS meters,
           count(*) FILTER (WHERE silent OR failed) AS silent,
           count(*) FILTER (WHERE failed) AS failed,
           bool_or(cut_off) AS cut_off,
           array_agg(seen_at) FILTER (WHERE silent OR failed) AS last_seen
    FROM judged
    GROUP BY gateway_id, transformer
)
SELECT n.scope, n.name,
       CASE WHEN c.failed * 2 > c.silent THEN 'power_fail'
            WHEN c.gateway_id IS NOT NULL AND c.cut_off THEN 'gateway_offline'
            ELSE 'silence' END AS cause,
       (SELECT ms_of(percentile_disc(0.5) WITHIN GROUP (ORDER BY seen_at))
        FROM unnest(c.last_seen) AS seen_at),
       c.meters, c.silent
FROM counted c
LEFT JOIN gateway g ON g.id = c.gateway_id
CROSS JOIN LATERAL (
    SELECT CASE WHEN g.id IS NULL THEN 'transformer' ELSE 'gateway' END AS scope,
           coalesce(g.number, c.transformer) AS name) n
WHERE c.meters >= %(least)s AND c.silent * 100 > c.meters * %(percent)s
ORDER BY n.scope, n.name

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
