-- name: gateways_seen
-- Gateways in the order of their registration, each with what it has to carry. An operator of some
-- centres sees those that speak for a meter there, and of each only those meters and commands.
SELECT g.id, g.number, g.online, ms_of(g.seen_at), g.next_send_ms, n.meters, q.queued,
       q.oldest_queued_ms, f.in_flight,
       (SELECT o.cause FROM outage o
        WHERE o.scope = 'gateway' AND o.name = g.number AND o.ended_at IS NULL)
FROM gateway g
CROSS JOIN LATERAL (
    SELECT count(*) AS meters FROM meter m
    WHERE m.gateway_id = g.id
      AND (%(centres)s::smallint[] IS NULL OR m.centre_id = ANY(%(centres)s))) n
CROSS JOIN LATERAL (
    SELECT count(*) AS queued, min(c.issued_ms) AS oldest_queued_ms
    FROM command c JOIN meter m ON m.id = c.meter_id
    WHERE c.gateway_id = g.id AND c.state = 'queued'
      AND (%(centres)s::smallint[] IS NULL OR m.centre_id = ANY(%(centres)s))) q
CROSS JOIN LATERAL (
    SELECT count(*) AS in_flight
    FROM command c JOIN meter m ON m.id = c.meter_id
    WHERE c.gateway_id = g.id AND c.state IN ('sent', 'accepted', 'executing')
      AND (%(centres)s::smallint[] IS NULL OR m.centre_id = ANY(%(centres)s))) f
WHERE (%(number)s::text IS NULL OR g.number = %(number)s)
  AND (%(like)s::text IS NULL OR g.number ILIKE %(like)s || '%%')
  AND (%(after)s::bigint IS NULL OR g.id > %(after)s)
  AND (%(centres)s::smallint[] IS NULL OR EXISTS (
          SELECT FROM meter m WHERE m.gateway_id = g.id AND m.centre_id = ANY(%(centres)s)))
  AND (%(centre)s::text IS NULL OR EXISTS (
          SELECT FROM meter m JOIN centre e ON e.id = m.centre_id
          WHERE m.gateway_id = g.id AND e.code = %(centre)s
            AND (%(centres)s::smallint[] IS NULL OR e.id = ANY(%(centres)s))))
ORDER BY g.id
LIMIT %(limit)s

-- name: insert_gateway
-- A concentrator by its name, before any meter is behind it.
INSERT INTO gateway (number) VALUES (%(number)s)
ON CONFLICT (number) DO NOTHING
RETURNING id

-- name: place_of_meter
-- What a meter is behind, as recorded; its row is locked for a change.
SELECT g.number, m.transformer
FROM meter m LEFT JOIN gateway g ON g.id = m.gateway_id
WHERE m.number = %(number)s
  AND (%(centres)s::smallint[] IS NULL OR m.centre_id = ANY(%(centres)s))
FOR NO KEY UPDATE OF m
