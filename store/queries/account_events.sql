-- name: account_marks
-- How far accounts are: newest entry, decisions, newest reading, the relay as reported, and of each
-- of the newest top-ups which states it and its tokens reached.
SELECT w.account,
       greatest((SELECT max(t.id) FROM ledger_posting t WHERE t.account_id = w.account),
                -- recorded in the order of their instants
                (SELECT d.id FROM energy_debit d WHERE d.account_id = w.account
                 ORDER BY d.at_ms DESC LIMIT 1), 0),
       s.decisions, coalesce(r.at_ms, ms_of(i.opened_at), 0), coalesce(m.reported_relay, ''),
       coalesce(p.marks, '{}')
FROM unnest(%(accounts)s::bigint[]) AS w (account)
JOIN account_state s ON s.account_id = w.account
LEFT JOIN LATERAL (
    SELECT i.meter_id, i.opened_at FROM installation i
    WHERE i.account_id = w.account ORDER BY i.opened_at DESC LIMIT 1
) i ON true
LEFT JOIN meter_state m ON m.meter_id = i.meter_id
LEFT JOIN LATERAL (
    SELECT ms_of(r.ts) AS at_ms FROM reading r
    WHERE r.meter_id = i.meter_id AND r.register = '1.8.0' AND r.verdict = 'accepted'
      AND r.ts > i.opened_at
    ORDER BY r.ts DESC LIMIT 1
) r ON true
LEFT JOIN LATERAL (
    SELECT array_agg(n.mark ORDER BY n.id) AS marks
    FROM (
        SELECT t.id,
               t.receipt_number || ':' || (
                   1 + (t.token_issued_at IS NOT NULL)::int * 2
                   + (t.delivered_at IS NOT NULL)::int * 4 + (t.accepted_at IS NOT NULL)::int * 8
                   + (t.on_supply_at IS NOT NULL)::int * 16 + (t.rejected_at IS NOT NULL)::int * 32
                   + (EXISTS (SELECT FROM reversal v WHERE v.top_up_id = t.id))::int * 64)
               || ':' || coalesce((
                   SELECT string_agg(CASE
                       WHEN e.token_id IS NOT NULL
                            AND NOT coalesce(k.result = ANY(%(successes)s), false) THEN 'p'
                       WHEN k.result = ANY(%(successes)s::text[]) THEN 'a'
                       WHEN k.result IS NOT NULL THEN 'r'
                       WHEN c.state IS NULL OR c.state IN ('queued', 'expired', 'superseded')
                           THEN 'i'
                       ELSE 'd' END, '' ORDER BY k.id)
                   FROM token k
                   LEFT JOIN command c ON c.id = k.command_id
                   LEFT JOIN token_replacement e ON e.replaced_token_id = k.id
                   WHERE k.top_up_id = t.id), '') AS mark
        FROM top_up t WHERE t.account_id = w.account
        ORDER BY t.id DESC LIMIT %(top_ups)s
    ) n
) p ON true

-- name: entries_after
-- Ledger entries beyond one, in the order in which they were recorded.
(SELECT id, kind, at_ms, ms_of(recorded_at), customer_micro, balance_micro, energy_wh
 FROM ledger_posting
 WHERE account_id = %(account)s AND id > %(after)s
 ORDER BY id
 LIMIT %(limit)s)
UNION ALL
-- Recorded in the order of their instants: those after the last one that is known.
(SELECT d.id, 'energy', d.at_ms, d.recorded_ms, d.amounts[1], d.balance_micro, d.energy_wh
 FROM energy_debit d
 WHERE d.account_id = %(account)s
   AND d.at_ms > coalesce((SELECT e.at_ms FROM energy_debit e
                           WHERE e.account_id = %(account)s AND e.id <= %(after)s
                           ORDER BY e.at_ms DESC LIMIT 1), -1)
 ORDER BY d.at_ms
 LIMIT %(limit)s)
ORDER BY id
LIMIT %(limit)s

-- name: balance_as_recorded
-- The balance as the ledger has it, and since when; none where nothing was recorded yet.
SELECT balance_micro, recorded_ms FROM (
    (SELECT id, balance_micro, ms_of(recorded_at) AS recorded_ms FROM ledger_posting
     WHERE account_id = %(account)s ORDER BY id DESC LIMIT 1)
    UNION ALL
    (SELECT id, balance_micro, recorded_ms FROM energy_debit
     WHERE account_id = %(account)s ORDER BY at_ms DESC LIMIT 1)) newest
ORDER BY id DESC LIMIT 1

-- name: readings_beyond
-- Readings of an account's meters beyond an instant of theirs, oldest first.
SELECT m.number, ms_of(r.ts), r.value_wh
FROM (SELECT meter_id, opened_at, lead(opened_at) OVER (ORDER BY opened_at) AS closed_at
      FROM installation WHERE account_id = %(account)s) i
JOIN meter m ON m.id = i.meter_id
JOIN reading r ON r.meter_id = i.meter_id
WHERE r.register = '1.8.0' AND r.verdict = 'accepted' AND r.ts > i.opened_at
  AND (i.closed_at IS NULL OR r.ts <= i.closed_at) AND r.ts > at_ms(%(after_ms)s)
ORDER BY r.ts
LIMIT %(limit)s

-- name: supply_decisions_after
-- What was decided about a supply beyond a decision.
SELECT ordinal, kind, at_ms FROM decision
WHERE account_id = %(account)s AND ordinal > %(after)s AND threshold = 'supply'
ORDER BY ordinal
LIMIT %(limit)s

-- name: supply_as_decided
-- The supply of an account as decided, and the relay as its meter said, with when.
SELECT s.decided_supply, m.reported_relay, ms_of(m.reported_at)
FROM account_state s
LEFT JOIN LATERAL (SELECT i.meter_id FROM installation i WHERE i.account_id = s.account_id
                   ORDER BY i.opened_at DESC LIMIT 1) i ON true
LEFT JOIN meter_heard m ON m.meter_id = i.meter_id
WHERE s.account_id = %(account)s
