-- name: account_report
-- An account as its centre knows it.
SELECT a.number, h.name, c.code,
       (SELECT t.code FROM tariff t WHERE t.id = coalesce(
           (SELECT g.tariff_id FROM tariff_assignment g
            WHERE g.account_id = a.id
              AND g.valid_from <= (at_ms(%(now_ms)s) AT TIME ZONE f.timezone)::date
            ORDER BY g.valid_from DESC LIMIT 1), a.tariff_id)),
       ms_of(a.opened_at), s.low_credit_micro, s.decided_supply,
       (SELECT m.number FROM installation i JOIN meter m ON m.id = i.meter_id
        WHERE i.account_id = a.id ORDER BY i.opened_at DESC LIMIT 1)
FROM account a
JOIN account_state s ON s.account_id = a.id
JOIN customer h ON h.id = a.customer_id
JOIN centre c ON c.id = a.centre_id
JOIN tariff f ON f.id = a.tariff_id
WHERE a.id = %(account)s

-- name: holds_newest
-- Holds newest first, each with its account.
SELECT a.number, h.id, h.kind, h.from_ms, h.until_ms, h.placed_by, h.reason, h.released_ms,
       h.released_by, h.release_reason
FROM hold h JOIN account a ON a.id = h.account_id
WHERE (%(account)s::text IS NULL OR a.number = %(account)s)
  AND (NOT %(in_force)s OR h.released_ms IS NULL)
  AND (%(hold)s::bigint IS NULL OR h.id = %(hold)s)
  AND (%(centres)s::smallint[] IS NULL OR a.centre_id = ANY(%(centres)s))
  AND (%(before)s::bigint IS NULL OR h.id < %(before)s)
ORDER BY h.id DESC
LIMIT %(limit)s

-- name: adjustments_newest
-- Adjustments, last id first, each with its account and currency.
SELECT a.number, t.currency, d.id, d.account_id, d.amount_micro, d.reason, d.requested_by,
       ms_of(d.requested_at), d.state, d.decided_by, d.adjusted_ms
FROM adjustment d
JOIN account a ON a.id = d.account_id
JOIN tariff t ON t.id = a.tariff_id
WHERE (%(account)s::text IS NULL OR a.number = %(account)s)
  AND (%(state)s::text IS NULL OR d.state = %(state)s)
  AND (%(id)s::text IS NULL OR d.id = %(id)s)
  AND (%(centres)s::smallint[] IS NULL OR a.centre_id = ANY(%(centres)s))
  AND (%(before)s::text IS NULL OR d.id < %(before)s)
ORDER BY d.id DESC
LIMIT %(limit)s

-- name: decisions_before
-- What was decided about an account, newest first.
SELECT ordinal, threshold, kind, at_ms, ms_of(recorded_at), balance_micro, cause, guards
FROM decision
WHERE account_id = %(account)s AND (%(before)s::integer IS NULL OR ordinal < %(before)s)
ORDER BY ordinal DESC
LIMIT %(limit)s

-- name: tariff_reports
-- Tariffs with their versions.
SELECT t.code, t.name, t.currency, t.timezone,
       (SELECT count(*) FROM account WHERE tariff_id = t.id),
       coalesce((SELECT jsonb_agg(jsonb_build_object('valid_from', v.valid_from::text) || v.body
                                  ORDER BY v.valid_from)
                 FROM tariff_version v WHERE v.tariff_id = t.id), '[]')
FROM tariff t
WHERE %(code)s::text IS NULL OR t.code = %(code)s
ORDER BY t.code

-- name: drafts_newest
-- Tariff drafts newest first.
SELECT d.id, t.code, jsonb_build_object('valid_from', d.valid_from::text) || d.body, d.note,
       d.state, d.drafted_by, ms_of(d.drafted_at), d.decided_by, ms_of(d.decided_at)
FROM tariff_draft d JOIN tariff t ON t.id = d.tariff_id
WHERE (%(state)s::text IS NULL OR d.state = %(state)s)
  AND (%(draft)s::bigint IS NULL OR d.id = %(draft)s)
  AND (%(before)s::bigint IS NULL OR d.id < %(before)s)
ORDER BY d.id DESC
LIMIT %(limit)s

-- name: engineering_tokens_of_centres
-- Requests for engineering tokens newest first, all or those that wait for a decision.
SELECT e.id, m.number, e.meter_id, e.class, e.subclass, e.fields, e.reason, e.requested_by,
       ms_of(e.requested_at), e.decision, e.decided_by, ms_of(e.decided_at), e.decision_reason,
       (SELECT k.digits FROM token k WHERE k.engineering_token_id = e.id)
FROM engineering_token e JOIN meter m ON m.id = e.meter_id
WHERE (NOT %(waiting)s OR e.decision IS NULL)
  AND (%(id)s::bigint IS NULL OR e.id = %(id)s)
  AND (%(centres)s::smallint[] IS NULL OR m.centre_id = ANY(%(centres)s))
  AND (%(before)s::bigint IS NULL OR e.id < %(before)s)
ORDER BY e.id DESC
LIMIT %(limit)s

-- name: engineering_requests_since
-- How many tokens somebody asked for.
SELECT count(*) FROM engineering_token
WHERE requested_by = %(by)s AND requested_at > at_ms(%(since_ms)s)

-- name: top_up_of_centres
-- A top-up as its channel named it.
SELECT a.id, a.number, p.channel, p.partner_txn_id
FROM top_up p JOIN account a ON a.id = p.account_id
WHERE p.id = %(top_up)s AND (%(centres)s::smallint[] IS NULL OR a.centre_id = ANY(%(centres)s))

-- name: issued_in_centres
-- Each time that digits were issued to a meter of these centres.
SELECT ms_of(k.issued_at), m.number, k.class, k.subclass, p.receipt_number, k.result,
       ms_of(k.answered_at), ms_of(r.replaced_at)
FROM token k
JOIN meter m ON m.id = k.meter_id
LEFT JOIN token_replacement r ON r.replaced_token_id = k.id
LEFT JOIN top_up p ON p.id = k.top_up_id
WHERE k.digits = %(digits)s
  AND (%(centres)s::smallint[] IS NULL OR m.centre_id = ANY(%(centres)s))
ORDER BY k.issued_at, k.id

-- name: suspects_of_centres
-- Suspect payments oldest first, all, those that wait, or one. One without an account belongs to no
-- centre, and is for operators of all of them.
SELECT a.number, y.currency, s.id, s.channel, s.partner_txn_id, s.request_sha256, s.meter,
       s.amount_micro, ms_of(s.paid_at), s.msisdn, s.suspicion, s.detail, ms_of(s.held_at),
       s.decision, s.decided_by, ms_of(s.decided_at), s.reason, s.top_up_id
FROM suspect_payment s
LEFT JOIN account a ON a.id = s.account_id
LEFT JOIN tariff y ON y.id = a.tariff_id
WHERE (NOT %(waiting)s::boolean OR s.decision IS NULL)
  AND (%(id)s::text IS NULL OR s.id = %(id)s)
  AND (%(centres)s::smallint[] IS NULL OR a.centre_id = ANY(%(centres)s))
  AND (%(after)s::text IS NULL OR s.id > %(after)s)
ORDER BY s.id
LIMIT %(limit)s
