-- name: add_centre
-- A centre by its code; the same code again is the same centre.
INSERT INTO centre (code, name) VALUES (%(code)s, %(name)s)
ON CONFLICT (code) DO UPDATE SET name = excluded.name
RETURNING id

-- name: add_customer
-- A person or body that holds accounts.
INSERT INTO customer (name, created_at) VALUES (%(name)s, at_ms(%(now_ms)s)) RETURNING id

-- name: add_tariff
-- A tariff without versions yet.
INSERT INTO tariff (code, name, currency, timezone, holidays)
VALUES (%(code)s, %(name)s, %(currency)s, %(timezone)s, %(holidays)s)
RETURNING id

-- name: find_tariff
-- A tariff by its code.
SELECT id FROM tariff WHERE code = %(code)s

-- name: add_tariff_version
-- A version from a local date on; never edited.
INSERT INTO tariff_version (tariff_id, valid_from, body)
VALUES (%(tariff)s, %(valid_from)s, %(body)s)

-- name: tariff_form
-- A tariff with its versions as the mapping of rating.md section 10.
SELECT t.timezone, t.currency, t.holidays,
       (SELECT jsonb_agg(v.body || jsonb_build_object('valid_from', v.valid_from::text)
                         ORDER BY v.valid_from)
        FROM tariff_version v WHERE v.tariff_id = t.id)
FROM tariff t WHERE t.id = %(tariff)s

-- name: priced_accounts
-- Accounts that a tariff prices at any time.
SELECT id FROM account WHERE tariff_id = %(tariff)s
UNION
SELECT account_id FROM tariff_assignment WHERE tariff_id = %(tariff)s
ORDER BY 1

-- name: bump_terms
-- Terms of these accounts changed: parsed copies are old, and the schedule looks again at once.
WITH locked AS (
    SELECT account_id FROM account_state
    WHERE account_id = ANY(%(accounts)s)
    ORDER BY account_id
    FOR UPDATE
)
UPDATE account_state s
SET terms_revision = terms_revision + 1, due_ms = least(due_ms, settled_until_ms)
FROM locked WHERE locked.account_id = s.account_id

-- name: rewind_accounts
-- Accounts that are rated beyond an instant at which their prices change go back to a stored position
-- before it; the next settlement rates them again from there.
WITH back AS (
    SELECT s.account_id, c.anchor_ms, c.position
    FROM account_state s
    CROSS JOIN LATERAL (SELECT c.anchor_ms, c.position FROM checkpoint c
                        WHERE c.account_id = s.account_id AND c.anchor_ms < %(from_ms)s
                        ORDER BY c.anchor_ms DESC LIMIT 1) c
    WHERE s.account_id = ANY(%(accounts)s) AND s.anchor_ms >= %(from_ms)s),
positions AS (
    UPDATE account_position p SET position = back.position
    FROM back WHERE p.account_id = back.account_id)
UPDATE account_state s
SET numbers = NULL, anchor_ms = back.anchor_ms, has_tail = true
FROM back WHERE back.account_id = s.account_id

-- name: drop_checkpoints_from
-- Positions that other prices have overtaken.
DELETE FROM checkpoint WHERE account_id = ANY(%(accounts)s) AND anchor_ms >= %(from_ms)s

-- name: add_gateway
-- A concentrator by its name.
INSERT INTO gateway (number) VALUES (%(number)s)
ON CONFLICT (number) DO UPDATE SET number = excluded.number RETURNING id

-- name: add_meter
-- A meter in stock; it measures for nobody until it is installed.
INSERT INTO meter (number, centre_id, gateway_id, meter_pan, sgc, krn, kt, ken, ti, base_date, ea,
                   dkga, third_kct, transformer, interval_s)
VALUES (%(number)s, %(centre)s, %(gateway)s, %(meter_pan)s, %(sgc)s, %(krn)s, %(kt)s, %(ken)s,
        %(ti)s, %(base_date)s, %(ea)s, %(dkga)s, %(third_kct)s, %(transformer)s, %(interval_s)s)
ON CONFLICT (number) DO NOTHING
RETURNING id

-- name: add_meter_state
-- The state row of a new meter.
INSERT INTO meter_state (meter_id) VALUES (%(meter)s)

-- name: find_meter
-- A meter by its number.
SELECT id FROM meter WHERE number = %(number)s

-- name: add_account
-- A supply point of a customer.
INSERT INTO account (number, customer_id, centre_id, tariff_id, terms, opened_at)
VALUES (%(number)s, %(customer)s, %(centre)s, %(tariff)s, %(terms)s, at_ms(%(opened_ms)s))
ON CONFLICT (number) DO NOTHING
RETURNING id

-- name: customer_of_account
-- Who holds an account.
SELECT customer_id FROM account WHERE number = %(number)s

-- name: add_installation
-- A meter begins to measure an account.
INSERT INTO installation (account_id, opened_at, meter_id, opening_wh, closing_wh, max_power_w,
                          modulus_wh, recorded_at)
VALUES (%(account)s, at_ms(%(opened_ms)s), %(meter)s, %(opening_wh)s, %(closing_wh)s,
        %(max_power_w)s, %(modulus_wh)s, at_ms(%(now_ms)s))

-- name: installation_at
-- What is recorded for an account at an instant, and what its newest installation is.
SELECT m.number, i.opening_wh, i.closing_wh, i.max_power_w, i.modulus_wh
FROM installation i JOIN meter m ON m.id = i.meter_id
WHERE i.account_id = %(account)s AND i.opened_at = at_ms(%(opened_ms)s)

-- name: newest_reading_of_meter
-- The last stored instant of a meter's billable register.
SELECT ms_of(max(ts)) FROM reading WHERE meter_id = %(meter)s AND register = '1.8.0'

-- name: add_access_key
-- A customer's credential; only its digest.
INSERT INTO access_key (sha256, role, customer_id, created_at)
VALUES (%(sha256)s, 'customer', %(customer)s, at_ms(%(now_ms)s))

-- name: simulated_now
-- Where the demonstration's time stood.
SELECT now_ms FROM simulated_clock

-- name: keep_simulated_now
-- Where the demonstration's time stands; it never goes back.
INSERT INTO simulated_clock (now_ms) VALUES (%(now_ms)s)
ON CONFLICT (single) DO UPDATE SET now_ms = greatest(simulated_clock.now_ms, excluded.now_ms)

-- name: currency_of_meter
-- What the account that a meter serves is priced in.
SELECT t.currency
FROM meter m
JOIN installation i ON i.meter_id = m.id
JOIN account a ON a.id = i.account_id
JOIN tariff t ON t.id = a.tariff_id
WHERE m.number = %(number)s
ORDER BY i.opened_at DESC LIMIT 1
