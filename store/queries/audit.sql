-- name: audited_accounts
-- The next accounts in the order of their ids.
SELECT id, number FROM account WHERE id > %(after)s ORDER BY id LIMIT %(limit)s

-- name: audited_rows
-- Every transaction of an account, in the order of recording.
SELECT id, key, correction, kind, from_ms, at_ms, energy_wh, legs, amounts, customer_micro,
       balance_micro, corrects
FROM ledger_transaction
WHERE account_id = %(account)s
ORDER BY id

-- name: audited_checkpoints
-- Every stored position of an account.
SELECT anchor_ms, position FROM checkpoint WHERE account_id = %(account)s ORDER BY anchor_ms

-- name: count_transactions
-- How many transactions the ledger holds.
SELECT count(*) FROM ledger_transaction

-- name: transactions_of_nobody
-- Transactions that an audit account by account would never see.
SELECT 'transaction ' || t.id, 'an account', 'no account ' || t.account_id
FROM ledger_transaction t
WHERE NOT EXISTS (SELECT FROM account a WHERE a.id = t.account_id)
LIMIT %(limit)s

-- name: count_debits
-- How many debits stand by their numbers alone.
SELECT count(*) FROM energy_debit

-- name: debits_not_explained
-- What explains a debit of a steady reading is what was charged: its energy at the price of its block
-- is what was earned and the taxes within it; a tax is what its base makes more than the base before.
SELECT 'debit ' || d.id || ' ' || c.what, c.expected::text, c.found::text
FROM energy_debit d
LEFT JOIN pricing p ON p.id = d.pricing_id
CROSS JOIN LATERAL (
    SELECT 'pricing' AS what, d.pricing_id::numeric AS expected, p.id::numeric AS found
    UNION ALL
    SELECT 'charge', d.energy_wh::numeric * p.price_micro_per_wh,
           d.amounts[2] + coalesce((SELECT sum(d.amounts[t.place + 2])
                                    FROM jsonb_array_elements(p.body -> 'taxes')
                                         WITH ORDINALITY AS t (tax, place)
                                    WHERE (t.tax ->> 'included')::boolean), 0)
    UNION ALL
    SELECT t.tax ->> 'name',
           div(2 * d.bases[t.place]::numeric * f.ppm + f.whole, 2 * f.whole)
           - div(2 * (d.bases[t.place] - d.energy_wh::numeric * p.price_micro_per_wh) * f.ppm + f.whole,
                 2 * f.whole),
           d.amounts[t.place + 2]
    FROM jsonb_array_elements(p.body -> 'taxes') WITH ORDINALITY AS t (tax, place)
    CROSS JOIN LATERAL (SELECT (t.tax ->> 'ppm')::numeric AS ppm,
                               CASE WHEN (t.tax ->> 'included')::boolean
                                    THEN 1000000 + (t.tax ->> 'ppm')::numeric
                                    ELSE 1000000 END AS whole) f) c
WHERE c.expected IS DISTINCT FROM c.found
LIMIT %(limit)s

-- name: count_readings
-- How many readings are kept.
SELECT count(*) FROM reading

-- name: misjudged_readings
-- Readings that no rating reaches must charge nothing; all others of the total must be judged.
WITH first AS (
    SELECT m.id, m.number, m.trusted,
           (SELECT s.opened_ms FROM installation i JOIN account_state s ON s.account_id = i.account_id
            WHERE i.meter_id = m.id ORDER BY i.opened_at LIMIT 1) AS opened_ms
    FROM meter m
)
SELECT 'meter ' || coalesce(f.number, r.meter_id::text) || ' ' || r.register || ' at ' || r.ts,
       CASE WHEN r.register <> '1.8.0' THEN 'no verdict'
            WHEN NOT f.trusted THEN 'untrusted'
            WHEN f.opened_ms IS NULL THEN 'not_installed'
            WHEN r.ts <= at_ms(f.opened_ms) THEN 'before_installation'
            WHEN r.clock = 'lost' THEN 'clock_lost'
            ELSE 'a verdict' END,
       coalesce(r.verdict, 'no verdict')
FROM reading r LEFT JOIN first f ON f.id = r.meter_id
WHERE CASE WHEN r.register <> '1.8.0' THEN r.verdict IS NOT NULL
           -- Trust is withdrawn for good: nothing of such a meter was ever accepted.
           WHEN NOT f.trusted OR r.verdict = 'untrusted'
           THEN f.trusted OR r.verdict IS DISTINCT FROM 'untrusted'
           WHEN f.opened_ms IS NULL OR r.ts <= at_ms(f.opened_ms) OR r.clock = 'lost'
           -- A reading that came before its meter was installed keeps the word of that time.
           THEN coalesce(r.verdict, '') NOT IN ('not_installed', 'before_installation', 'clock_lost')
           ELSE r.verdict IS NULL END
LIMIT %(limit)s

-- name: count_top_ups
-- How many payments became credit.
SELECT count(*) FROM top_up

-- name: top_ups_not_posted_once
-- Each payment has one posting that takes its amount from the channel, and no other exists.
SELECT 'top-up ' || t.id,
       'one posting of ' || t.amount_micro + t.cash_rounding_micro || ' µ',
       p.firsts || ' postings of ' || coalesce(p.cleared, 0) || ' µ'
FROM top_up t
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE l.correction = 0) AS firsts,
           coalesce(-sum(e.cleared), 0) AS cleared
    FROM ledger_posting l
    CROSS JOIN LATERAL (SELECT sum(x.amount) AS cleared
                        FROM unnest(l.legs, l.amounts) AS x (leg, amount)
                        JOIN ledger_account a ON a.id = x.leg
                        WHERE a.code = 'clearing:' || t.channel) e
    WHERE l.account_id = t.account_id AND l.key = 'top_up:' || t.id
) p
WHERE p.firsts <> 1 OR p.cleared IS DISTINCT FROM t.amount_micro + t.cash_rounding_micro
UNION ALL
SELECT 'transaction ' || l.id, 'a payment', l.key
FROM ledger_posting l
WHERE l.kind = 'top_up'
  AND NOT EXISTS (SELECT FROM top_up t
                  WHERE 'top_up:' || t.id = l.key AND t.account_id = l.account_id)
LIMIT %(limit)s

-- name: count_cash
-- How many payments were counted in coins.
SELECT count(*) FROM top_up WHERE cash_step_micro IS NOT NULL

-- name: cash_not_in_coins
-- The rounding of a payment in cash is at most half a coin, makes up whole coins, and stands as a
-- leg of its own; no other payment has one.
SELECT 'top-up ' || t.id, 'a rounding of ' || t.cash_rounding_micro || ' µ to coins of '
           || coalesce(t.cash_step_micro::text, 'any size') || ' µ',
       r.rounded || ' µ for ' || t.amount_micro || ' µ'
FROM top_up t
CROSS JOIN LATERAL (
    SELECT coalesce(sum(x.amount), 0) AS rounded
    FROM ledger_posting l
    CROSS JOIN LATERAL unnest(l.legs, l.amounts) AS x (leg, amount)
    JOIN ledger_account a ON a.id = x.leg
    WHERE l.account_id = t.account_id AND l.key = 'top_up:' || t.id AND a.code = 'cash_rounding'
) r
WHERE r.rounded <> t.cash_rounding_micro
   OR CASE WHEN t.cash_step_micro IS NULL THEN t.cash_rounding_micro <> 0
           ELSE 2 * abs(t.cash_rounding_micro) > t.cash_step_micro
                OR (t.amount_micro + t.cash_rounding_micro) %% t.cash_step_micro <> 0 END
LIMIT %(limit)s

-- name: count_reversals
-- How many payments were taken back.
SELECT count(*) FROM reversal

-- name: reversals_not_posted_once
-- Each reversal has one posting that takes back, leg by leg, what its top-up posted.
SELECT 'reversal of ' || r.top_up_id,
       'one posting that takes back the top-up''s',
       p.firsts || ' postings; legs left over: ' || coalesce(o.legs, 'none')
FROM reversal r
CROSS JOIN LATERAL (
    SELECT count(*) AS firsts FROM ledger_posting l
    WHERE l.account_id = r.account_id AND l.key = 'reversal:' || r.top_up_id AND l.correction = 0
) p
CROSS JOIN LATERAL (
    SELECT string_agg(n.code || ' ' || n.amount, ', ') AS legs
    FROM (SELECT a.code, sum(x.amount) AS amount
          FROM ledger_posting l
          CROSS JOIN LATERAL unnest(l.legs, l.amounts) AS x (leg, amount)
          JOIN ledger_account a ON a.id = x.leg
          WHERE l.account_id = r.account_id
            AND l.key IN ('top_up:' || r.top_up_id, 'reversal:' || r.top_up_id)
          GROUP BY a.code HAVING sum(x.amount) <> 0) n
) o
WHERE p.firsts <> 1 OR o.legs IS NOT NULL
UNION ALL
SELECT 'transaction ' || l.id, 'a reversal', l.key
FROM ledger_posting l
WHERE l.kind = 'reversal'
  AND NOT EXISTS (SELECT FROM reversal r
                  WHERE 'reversal:' || r.top_up_id = l.key AND r.account_id = l.account_id)
LIMIT %(limit)s

-- name: top_ups_without_their_tokens
-- Energy sold on a meter that takes tokens is in its tokens, each carried by a command of its meter.
SELECT 'top-up ' || t.id,
       CASE WHEN m.meter_pan IS NULL OR t.energy_wh = 0 THEN 'no token'
            ELSE 'tokens of ' || t.energy_wh || ' Wh, carried to meter ' || m.number END,
       k.tokens || ' tokens of ' || k.energy_wh || ' Wh'
           || CASE WHEN k.strays > 0 THEN ', ' || k.strays || ' of them not carried there' ELSE '' END
           || CASE WHEN t.token_issued_at IS NULL THEN ', no time of issue' ELSE '' END
FROM top_up t
JOIN meter m ON m.id = t.meter_id
CROSS JOIN LATERAL (
    SELECT count(*) AS tokens,
           coalesce(sum(k.amount) FILTER (WHERE k.class = 0 AND k.subclass = 0
                                          AND NOT EXISTS (SELECT FROM token_replacement r
                                                          WHERE r.replaced_token_id = k.id)), 0)
               * 100 AS energy_wh,
           count(*) FILTER (WHERE (k.meter_id <> t.meter_id
                                   AND NOT EXISTS (SELECT FROM token_replacement r
                                                   WHERE r.token_id = k.id))
                            OR NOT EXISTS (SELECT FROM command c
                                           WHERE c.id = k.command_id AND c.meter_id = k.meter_id
                                             AND c.type = 'token'
                                             AND c.args -> 'tokens' ? k.digits)) AS strays
    FROM token k WHERE k.top_up_id = t.id
) k
WHERE CASE WHEN m.meter_pan IS NULL OR t.energy_wh = 0 THEN k.tokens > 0
           ELSE k.energy_wh <> t.energy_wh OR k.strays > 0 OR t.token_issued_at IS NULL END
LIMIT %(limit)s

-- name: count_suspects
-- How many payments waited for a person.
SELECT count(*) FROM suspect_payment

-- name: suspense_not_explained
-- What stands in suspense is the undecided payments; a decided one left it whole, and was credited
-- once under its own number or not at all.
SELECT 'suspect payment ' || s.id,
       CASE WHEN s.decision IS NULL THEN s.amount_micro ELSE 0 END || ' µ in suspense, '
           || CASE WHEN s.decision = 'credited' THEN 'its top-up' ELSE 'no top-up' END,
       h.held || ' µ, ' || coalesce('top-up ' || t.id || ' of ' || t.amount_micro || ' µ', 'none')
FROM suspect_payment s
LEFT JOIN top_up t ON (t.channel, t.partner_txn_id) = (s.channel, s.partner_txn_id)
CROSS JOIN LATERAL (
    SELECT coalesce(sum(e.amount), 0) AS held
    FROM suspense_transaction x
    CROSS JOIN LATERAL unnest(x.legs, x.amounts) AS e (leg, amount)
    JOIN ledger_account a ON a.id = e.leg
    WHERE x.suspect_id = s.id AND a.code = 'suspense'
) h
WHERE h.held <> CASE WHEN s.decision IS NULL THEN s.amount_micro ELSE 0 END
   OR t.id IS DISTINCT FROM s.top_up_id
   OR t.amount_micro <> s.amount_micro
LIMIT %(limit)s

-- name: count_moved
-- How many payments moved to the right meter.
SELECT count(*) FROM top_up WHERE moved_from IS NOT NULL

-- name: moved_payments_in_two_places
-- A payment that moved is reversed where it was, and has the same amount and channel where it is.
SELECT 'top-up ' || n.id, o.amount_micro || ' µ of ' || o.channel || ', reversed at ' || o.id,
       n.amount_micro || ' µ of ' || n.channel
           || CASE WHEN r.top_up_id IS NULL THEN ', not reversed' ELSE '' END
FROM top_up n
JOIN top_up o ON o.id = n.moved_from
LEFT JOIN reversal r ON r.top_up_id = o.id
WHERE r.top_up_id IS NULL OR (n.amount_micro, n.channel) <> (o.amount_micro, o.channel)
   OR n.cash_rounding_micro <> o.cash_rounding_micro OR n.account_id = o.account_id
LIMIT %(limit)s

-- name: count_tokens
-- How many tokens were issued.
SELECT count(*) FROM token

-- name: tids_used_twice_or_reserved
-- A TID is used once per meter and base date, whatever the key: a key change leaves the meter's
-- memory. It is never that of 00:01 (sts.md section 3.3). Key change tokens carry none, and a token
-- that shares one has the TID of what it replaces on this meter.
SELECT 'meter ' || m.number || ' base date ' || k.base_date || ' TID ' || k.tid,
       'one token', count(*) || ' tokens'
FROM token k JOIN meter m ON m.id = k.meter_id
WHERE k.tid IS NOT NULL AND NOT k.shares_tid
GROUP BY m.number, k.base_date, k.tid HAVING count(*) > 1
UNION ALL
SELECT 'token ' || k.id, 'the TID of the token that it replaces', 'TID ' || k.tid
FROM token k
LEFT JOIN token_replacement r ON r.token_id = k.id
LEFT JOIN token o ON o.id = r.replaced_token_id
WHERE k.shares_tid
  AND (o.meter_id, o.base_date, o.tid) IS DISTINCT FROM (k.meter_id, k.base_date, k.tid)
UNION ALL
SELECT 'token ' || k.id, 'a TID that is not reserved', 'TID ' || k.tid
FROM token k WHERE k.tid %% 1440 = 1
LIMIT %(limit)s

-- name: credit_taken_twice
-- Of a token and those that took its place, one is credited: a second Accept is energy given away.
SELECT 'top-up ' || top_up_id, 'one credit accepted', count(*) || ' credits accepted'
FROM token WHERE class = 0 AND result = 'Accept'
GROUP BY top_up_id HAVING count(*) > 1
LIMIT %(limit)s

-- name: count_commands
-- How many commands were given.
SELECT count(*) FROM command

-- name: counters_out_of_order
-- A meter refuses a lower counter as stale: counters are unique and grow as commands are issued.
SELECT 'command ' || c.id, c.expected, c.found
FROM (
    SELECT c.id, 'a counter that no other has' AS expected, 'counter ' || c.ctr || ' again' AS found
    FROM (SELECT id, ctr, count(*) OVER (PARTITION BY meter_id, ctr) AS times FROM command) c
    WHERE c.times > 1
    UNION ALL
    SELECT c.id, 'a counter below ' || s.next_ctr, 'counter ' || c.ctr
    FROM command c JOIN meter_state s ON s.meter_id = c.meter_id WHERE c.ctr >= s.next_ctr
    UNION ALL
    SELECT c.id, 'issued not before counter ' || c.before_ctr, 'issued ' || c.late_ms || ' ms before'
    FROM (SELECT id, lag(ctr) OVER by_ctr AS before_ctr,
                 max(issued_ms) OVER (PARTITION BY meter_id ORDER BY ctr
                                      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                     - issued_ms AS late_ms
          FROM command WINDOW by_ctr AS (PARTITION BY meter_id ORDER BY ctr)) c
    WHERE c.late_ms > %(skew_ms)s
) c
LIMIT %(limit)s

-- name: count_meters
-- How many meters are registered.
SELECT count(*) FROM meter

-- name: meters_with_two_relay_orders
-- One outstanding relay intention per meter (mqtt.md section 3).
SELECT 'meter ' || m.number, 'one open relay order', count(*) || ' open relay orders'
FROM command c JOIN meter m ON m.id = c.meter_id
WHERE c.type IN ('relay', 'arm') AND c.state IN ('queued', 'sent', 'accepted')
GROUP BY m.number HAVING count(*) > 1
LIMIT %(limit)s

-- name: relays_against_supply
-- The relay that a meter should have follows the supply of the account that it serves now.
SELECT 'meter ' || m.number, 'relay ' || w.relay || ' for a ' || s.supply || ' supply',
       'relay ' || ms.desired_relay
FROM account_state s
JOIN LATERAL (SELECT i.meter_id FROM installation i WHERE i.account_id = s.account_id
              ORDER BY i.opened_at DESC LIMIT 1) mine ON true
JOIN LATERAL (SELECT i.account_id FROM installation i WHERE i.meter_id = mine.meter_id
              ORDER BY i.opened_at DESC LIMIT 1) theirs ON theirs.account_id = s.account_id
JOIN meter m ON m.id = mine.meter_id
JOIN meter_state ms ON ms.meter_id = m.id
JOIN (VALUES ('connected', 'closed'), ('disconnected', 'open')) AS w (supply, relay)
    ON w.supply = s.supply AND w.relay <> ms.desired_relay
-- A replayed reading is never by itself the cause of a cut (mqtt.md section 2): the next one is. Nor
-- is the opening: a supply point stays as it is until its first reading or charge.
-- Nor is anything while a guard withholds the cut.
WHERE w.relay = 'closed'
   OR NOT EXISTS (SELECT FROM hold h WHERE h.account_id = s.account_id AND h.released_ms IS NULL)
  AND NOT EXISTS (SELECT FROM withheld_cut c WHERE c.account_id = s.account_id AND c.ended_ms IS NULL)
  AND NOT coalesce((SELECT bool_and(r.historical) FROM reading r
                    WHERE r.meter_id = m.id AND r.register = '1.8.0'
                      AND r.received_at = (SELECT max(received_at) FROM reading n
                                           WHERE n.meter_id = m.id AND n.register = '1.8.0')), true)
LIMIT %(limit)s

-- name: count_guards
-- How many triggers keep append-only tables from being changed.
SELECT count(*) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
WHERE p.proname = 'refuse_change' AND p.pronamespace = 'public'::regnamespace

-- name: guards_not_in_force
-- The tables that are never edited still refuse it.
SELECT 'table ' || g.name || ' trigger ' || g.trigger_name, 'in force',
       CASE WHEN t.tgenabled IS NULL THEN 'missing' ELSE 'disabled' END
FROM (VALUES ('ledger_posting', 'ledger_transaction_is_append_only'),
             ('ledger_posting', 'ledger_transaction_is_not_truncated'),
             ('energy_debit', 'energy_debit_is_append_only'),
             ('energy_debit', 'energy_debit_is_not_truncated'),
             ('pricing', 'pricing_is_immutable'),
             ('pricing', 'pricing_is_not_truncated'),
             ('audit_log', 'audit_log_is_append_only'),
             ('audit_log', 'audit_log_is_not_truncated'),
             ('tariff_version', 'tariff_version_is_immutable'),
             ('tariff_version', 'tariff_version_is_not_truncated'),
             ('suspense_transaction', 'suspense_transaction_is_append_only'),
             ('suspense_transaction', 'suspense_transaction_is_not_truncated'),
             ('payment_step', 'payment_step_is_append_only'),
             ('payment_step', 'payment_step_is_not_truncated'),
             ('reversal', 'reversal_is_append_only'),
             ('reversal', 'reversal_is_not_truncated'),
             ('decision', 'decision_is_append_only'),
             ('decision', 'decision_is_not_truncated'),
             ('audit_log', 'audit_log_is_append_only'),
             ('audit_log', 'audit_log_is_not_truncated'),
             ('installation', 'installation_is_immutable'),
             ('installation', 'installation_is_not_truncated'),
             ('token_replacement', 'token_replacement_is_immutable'),
             ('token_replacement', 'token_replacement_is_not_truncated')) AS g (name, trigger_name)
LEFT JOIN pg_trigger t ON t.tgname = g.trigger_name AND t.tgrelid = to_regclass('public.' || g.name)
WHERE t.tgenabled IS DISTINCT FROM 'O' AND t.tgenabled IS DISTINCT FROM 'A'
LIMIT %(limit)s

-- name: count_payment_attempts
-- How many payments customers started.
SELECT count(*) FROM payment_attempt

-- name: attempts_not_accounted
-- What a channel took became one top-up or waits in suspense, under the channel's number and with
-- the amount that it took; nothing else did; and the newest step says the state.
SELECT 'attempt ' || p.id, 'one payment of ' || coalesce(p.told_micro, p.amount_micro) || ' µ as '
           || p.provider_reference,
       coalesce(t.amount_micro, s.amount_micro)::text || ' µ as '
           || coalesce(t.partner_txn_id, s.partner_txn_id)
FROM payment_attempt p
LEFT JOIN top_up t ON t.id = p.top_up_id
LEFT JOIN suspect_payment s ON s.id = p.suspect_id
WHERE p.state = 'paid'
  AND (coalesce(t.channel, s.channel), coalesce(t.partner_txn_id, s.partner_txn_id),
       coalesce(t.amount_micro, s.amount_micro))
      IS DISTINCT FROM (p.method, p.provider_reference, coalesce(p.told_micro, p.amount_micro))
UNION ALL
SELECT 'attempt ' || p.id, 'the state ' || p.state, 'a newest step to ' || coalesce(n.state, 'none')
FROM payment_attempt p
LEFT JOIN LATERAL (SELECT state FROM payment_step n WHERE n.attempt_id = p.id
                   ORDER BY n.id DESC LIMIT 1) n ON true
WHERE n.state IS DISTINCT FROM p.state
UNION ALL
SELECT 'attempt ' || p.id, 'no payment while it is ' || p.state, 'top-up ' || t.id
FROM payment_attempt p
JOIN top_up t ON t.channel = p.method AND t.partner_txn_id = p.provider_reference
WHERE p.state = 'received'
LIMIT %(limit)s
