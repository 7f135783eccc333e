-- name: meters_that_read_nothing
-- Meters that answered several tokens with AuthenticationError within a while.
SELECT m.number, count(DISTINCT k.digits), ms_of(max(k.answered_at))
FROM token k JOIN meter m ON m.id = k.meter_id
WHERE k.result = 'AuthenticationError'
  AND k.answered_at > at_ms(%(since_ms)s) AND k.answered_at <= at_ms(%(now_ms)s)
GROUP BY m.number HAVING count(DISTINCT k.digits) >= %(least)s
ORDER BY m.number
