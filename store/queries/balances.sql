-- name: balances_asked_for
-- What balances need, for many askers at once: who asks, his part in the account, and the account's
-- state, terms, newest ledger number and supply. Nothing for what a caller is to be refused.
SELECT q.place, w.role, w.customer_id, w.operator_id, w.name, w.centres, w.person_id, w.session_id,
       w.began_ms, w.seen_ms,
       CASE WHEN w.person_id IS NULL THEN NULL
            WHEN EXISTS (SELECT FROM contact k JOIN person p ON p.phone = k.address
                         WHERE k.customer_id = a.customer_id AND k.channel = 'phone'
                           AND k.ended_ms IS NULL AND k.verified_ms IS NOT NULL
                           AND p.id = w.person_id) THEN 'owner'
            ELSE (SELECT g.role FROM account_grant g
                  WHERE g.account_id = a.id AND g.person_id = w.person_id
                    AND g.withdrawn_ms IS NULL) END AS access,
       a.number, t.currency, a.tariff_id,
       (SELECT count(*) FROM tariff_version v WHERE v.tariff_id = a.tariff_id)
           || md5(t.holidays::text) AS edition,
       CASE WHEN EXISTS (SELECT FROM tariff_assignment x WHERE x.account_id = a.id) THEN NULL
            ELSE a.terms::text END AS terms,
       s.account_id, p.position::text, s.numbers, s.anchor_ms, s.balance_micro, s.opened_ms,
       s.has_tail, s.settled_until_ms, s.newest_reading_ms,
       (SELECT coalesce(max(l.id), 0) FROM ledger_posting l
        WHERE l.account_id = a.id) AS newest,
       m.number AS meter, h.desired_relay, h.reported_relay, ms_of(h.reported_at) AS reported_ms,
       h.online, ms_of(h.seen_at) AS heard_ms
FROM unnest(%(sha256s)s::bytea[], %(numbers)s::text[]) WITH ORDINALITY AS q (sha256, number, place)
CROSS JOIN LATERAL (
    SELECT coalesce(o.role, k.role) AS role, k.customer_id, o.id AS operator_id, o.name, o.centres,
           NULL::bigint AS person_id, NULL::bigint AS session_id, 0::bigint AS began_ms,
           0::bigint AS seen_ms
    FROM access_key k LEFT JOIN operator o ON o.id = k.operator_id
    WHERE k.sha256 = q.sha256 AND k.revoked_at IS NULL AND o.disabled_at IS NULL
    UNION ALL
    SELECT o.role, NULL, o.id, o.name, o.centres, NULL, NULL, 0, 0
    FROM operator_session e JOIN operator o ON o.id = e.operator_id
    WHERE e.sha256 = q.sha256 AND e.ended_ms IS NULL AND e.expires_ms > %(wall_ms)s::bigint
      AND o.disabled_at IS NULL
    UNION ALL
    SELECT 'customer', 0, NULL, NULL, NULL, e.person_id, e.id, e.began_ms, e.seen_ms
    FROM customer_session e
    WHERE e.sha256 = q.sha256 AND e.ended_ms IS NULL AND e.expires_ms > %(wall_ms)s::bigint
      AND e.seen_ms > %(wall_ms)s::bigint - %(idle_ms)s::bigint
) w
JOIN account a ON a.number = q.number
    AND (w.person_id IS NOT NULL OR w.customer_id IS NULL OR a.customer_id = w.customer_id)
    AND (w.centres IS NULL OR a.centre_id = ANY(w.centres))
JOIN tariff t ON t.id = a.tariff_id
JOIN account_state s ON s.account_id = a.id
JOIN account_position p ON p.account_id = a.id
LEFT JOIN LATERAL (
    SELECT meter_id FROM installation WHERE account_id = a.id ORDER BY opened_at DESC LIMIT 1
) i ON true
LEFT JOIN meter m ON m.id = i.meter_id
LEFT JOIN meter_heard h ON h.meter_id = i.meter_id

-- name: top_ups_since
-- Top-ups of accounts, each at or after an instant of its own, with the newest ledger number as of which
-- these are all; nothing for an account of which more must be known from then on.
SELECT q.place,
       (SELECT coalesce(max(l.id), 0) FROM ledger_posting l WHERE l.account_id = q.account_id),
       t.ids, t.instants_ms, t.micros, t.channels, t.roundings
FROM unnest(%(accounts)s::bigint[], %(from_ms)s::bigint[])
    WITH ORDINALITY AS q (account_id, from_ms, place)
CROSS JOIN LATERAL (
    SELECT array_agg(id) AS ids, array_agg(credited_ms) AS instants_ms,
           array_agg(amount_micro) AS micros, array_agg(channel) AS channels,
           array_agg(cash_rounding_micro) AS roundings
    FROM top_up WHERE account_id = q.account_id AND credited_ms >= q.from_ms) t
WHERE NOT EXISTS (SELECT FROM reversal r
                  WHERE r.account_id = q.account_id AND r.reversed_ms >= q.from_ms)
  AND NOT EXISTS (SELECT FROM adjustment a
                  WHERE a.account_id = q.account_id AND a.adjusted_ms >= q.from_ms)
  AND NOT EXISTS (SELECT FROM emergency_request e
                  WHERE e.account_id = q.account_id AND e.requested_ms >= q.from_ms)

-- name: costs_of_days
-- What local days between two midnights cost, for many accounts: of the days from `new_day` on all
-- of the ledger, of those before it what has a number above `known`. Days are numbers from 1970 on;
-- and the newest number as of which it is so.
-- `edges`: the midnights that begin and end the new days, each with the day that it ends.
-- Debits of `energy_debit` are not summed one by one. The ledger's balances run on from row to row in
-- the order of numbers, and an account's debits are numbered in the order of their instants: what
-- the balance moved by between the last debits before two midnights, without what was posted in
-- `ledger_posting` between the two, is the sum of the debits of the day.
WITH edge AS MATERIALIZED (
    SELECT e.account, e.day, coalesce(d.id, 0) AS id, coalesce(d.balance_micro, 0) AS balance_micro,
           lag(coalesce(d.id, 0)) OVER w AS before,
           lag(coalesce(d.balance_micro, 0)) OVER w AS balance_before
    FROM unnest(%(edge_accounts)s::bigint[], %(edge_days)s::integer[], %(edge_ms)s::bigint[])
        WITH ORDINALITY AS e (account, day, at_ms, place)
    LEFT JOIN LATERAL (
        SELECT id, balance_micro FROM energy_debit
        WHERE account_id = e.account AND at_ms <= e.at_ms ORDER BY at_ms DESC LIMIT 1) d ON true
    WINDOW w AS (PARTITION BY e.account ORDER BY e.place)
)
SELECT w.account,
       (SELECT coalesce(max(l.id), 0) FROM ledger_posting l WHERE l.account_id = w.account),
       d.days, d.micros
FROM unnest(%(accounts)s::bigint[], %(known)s::bigint[], %(new_days)s::integer[],
            %(from_ms)s::bigint[], %(to_ms)s::bigint[])
    AS w (account, known, new_day, from_ms, to_ms)
CROSS JOIN LATERAL (
    SELECT array_agg(n.day) AS days, array_agg(n.micro) AS micros
    FROM (SELECT u.day, -sum(u.micro)::bigint AS micro
          FROM (SELECT local_day - DATE '1970-01-01' AS day, customer_micro AS micro
                FROM ledger_posting
                WHERE account_id = w.account AND at_ms >= w.from_ms AND at_ms <= w.to_ms
                  AND kind IN ('energy', 'standing', 'daily_debt')
                  AND (id > w.known OR local_day - DATE '1970-01-01' >= w.new_day)
                UNION ALL
                SELECT e.day, e.balance_micro - e.balance_before
                    - (SELECT coalesce(sum(l.customer_micro), 0)::bigint FROM ledger_posting l
                       WHERE l.account_id = e.account AND l.id > e.before AND l.id < e.id)
                FROM edge e
                WHERE e.account = w.account AND e.id > e.before) u
          GROUP BY u.day) n
) d
