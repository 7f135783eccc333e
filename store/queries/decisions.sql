-- name: holds_in_force
-- Which of these accounts are held at an instant, each with the hold that began first.
SELECT account_id, min(id) FROM hold
WHERE account_id = ANY(%(accounts)s) AND released_ms IS NULL AND from_ms <= %(now_ms)s
  AND (until_ms IS NULL OR until_ms > %(now_ms)s)
GROUP BY account_id

-- name: insert_decisions
-- What a batch of settlements crossed.
INSERT INTO decision (account_id, ordinal, threshold, kind, at_ms, recorded_at, balance_micro, cause)
SELECT account_id, ordinal, threshold, kind, at_ms, at_ms(%(now_ms)s), balance_micro, cause
FROM unnest(%(account_id)s::bigint[], %(ordinal)s::integer[], %(threshold)s::text[],
            %(kind)s::text[], %(at_ms)s::bigint[], %(balance_micro)s::bigint[], %(cause)s::text[])
    AS d (account_id, ordinal, threshold, kind, at_ms, balance_micro, cause)

-- name: decisions_of_account
-- What was decided about an account, newest first.
SELECT ordinal, threshold, kind, at_ms, ms_of(recorded_at), balance_micro, cause
FROM decision
WHERE account_id = %(account)s
ORDER BY ordinal DESC
LIMIT %(limit)s
