"""The audit passes what the system wrote, whatever happened, and finds what was planted."""

import json
from typing import Any

import pytest
from psycopg import Connection, sql

from prepaid.commands.audit import form, lines
from store.audit import CASES_TOLD, Check, audit
from store.clockwork import drop_old_readings

OPENED = 1_772_323_200_000  # 2026-03-01T00:00:00Z, when the accounts of the busy database open
DAY = 86_400_000

# One row that nothing was corrected under, in the middle of somebody's days: of a steady reading,
# and of another.
DEBIT = """(SELECT d.id FROM energy_debit d WHERE NOT EXISTS (
    SELECT FROM ledger_posting o WHERE o.corrects = d.id) ORDER BY d.id OFFSET 100 LIMIT 1)"""
POSTING = """(SELECT t.id FROM ledger_posting t WHERE t.kind = 'energy' AND NOT EXISTS (
    SELECT FROM ledger_posting o WHERE o.corrects = t.id) AND t.corrects IS NULL
    ORDER BY t.id OFFSET 100 LIMIT 1)"""
# A reading in the middle, accepted and charged.
READING = """(meter_id, ts) IN (SELECT meter_id, ts FROM reading
    WHERE verdict = 'accepted' ORDER BY meter_id, ts OFFSET 400 LIMIT 1)"""
AN_ACCOUNT = "account_id = (SELECT min(account_id) FROM account_state)"
A_TOKEN = "id = (SELECT id FROM token ORDER BY id OFFSET 3 LIMIT 1)"
A_COMMAND = "SELECT * FROM command WHERE type = 'token' ORDER BY meter_id, ctr LIMIT 1"

# What is planted, and the law that must find it.
CORRUPTIONS = {
    "a leg that its counterpart does not match": (
        "transactions_sum_to_zero",
        (
            f"ALTER TABLE ledger_posting DROP CONSTRAINT ledger_transaction_amounts_check; "
            f"UPDATE ledger_posting SET amounts[2] = amounts[2] + 1 WHERE id = {POSTING}"
        ),
    ),
    "a leg of a steady debit that its counterpart does not match": (
        "transactions_sum_to_zero",
        (
            "ALTER TABLE energy_debit DROP CONSTRAINT energy_debit_sums_to_zero; "
            f"UPDATE energy_debit SET amounts[2] = amounts[2] + 1 WHERE id = {DEBIT}"
        ),
    ),
    "an amount moved to another ledger account": (
        "ledger_equals_rerating",
        (
            "UPDATE ledger_posting SET legs[2] = (SELECT id FROM ledger_account "
            f"WHERE code = 'revenue:standing') WHERE id = {POSTING}"
        ),
    ),
    "all debits of a pricing moved to another ledger account": (
        "ledger_equals_rerating",
        (
            "UPDATE pricing SET legs[2] = (SELECT id FROM ledger_account "
            "WHERE code = 'revenue:standing') WHERE id = (SELECT min(pricing_id) FROM energy_debit)"
        ),
    ),
    "a price in the explanation that was not charged": (
        "debits_explained",
        "UPDATE pricing SET price_micro_per_wh = price_micro_per_wh + 1",
    ),
    "a tax in the explanation that was not charged": (
        "debits_explained",
        "UPDATE pricing SET body = jsonb_set(body, '{taxes,0,ppm}', '170000')",
    ),
    "a debit made smaller on both sides": (
        "balances_equal_entries",
        (
            "UPDATE energy_debit SET amounts[1] = amounts[1] + 1, "
            f"amounts[2] = amounts[2] - 1 WHERE id = {DEBIT}"
        ),
    ),
    "a balance improved by hand": (
        "balances_equal_entries",
        f"UPDATE account_state SET balance_micro = balance_micro + 1 WHERE {AN_ACCOUNT}",
    ),
    "a running balance that does not follow": (
        "running_balances_unbroken",
        f"UPDATE ledger_posting SET balance_micro = balance_micro - 1 WHERE id = {POSTING}",
    ),
    "a running balance of a steady debit that does not follow": (
        "running_balances_unbroken",
        f"UPDATE energy_debit SET balance_micro = balance_micro - 1 WHERE id = {DEBIT}",
    ),
    "a debt forgiven by hand": (
        "debts_equal_entries",
        "UPDATE account_state SET debt_micro = debt_micro - 1 WHERE debt_micro > 0",
    ),
    "a debit deleted": (
        "no_interval_missing",
        f"DELETE FROM ledger_posting WHERE id = {POSTING}",
    ),
    "a steady debit deleted": (
        "no_interval_missing",
        f"DELETE FROM energy_debit WHERE id = {DEBIT}",
    ),
    "an interval charged once more": (
        "no_interval_charged_twice",
        """INSERT INTO ledger_posting (account_id, key, correction, kind, from_ms, at_ms,
               recorded_at, local_day, band, energy_wh, legs, amounts, customer_micro,
               balance_micro, explanation)
           SELECT account_id, key || '+', 0, kind, from_ms + 1, at_ms, recorded_at, local_day, band,
                  energy_wh, legs, amounts, customer_micro, balance_micro, explanation
           FROM ledger_transaction WHERE id = """
        + DEBIT,
    ),
    "a correction that points elsewhere": (
        "corrections_point_home",
        (
            "UPDATE ledger_posting SET corrects = (SELECT max(id) FROM ledger_posting "
            "WHERE correction = 0) WHERE id = "
            "(SELECT min(id) FROM ledger_posting WHERE correction > 0)"
        ),
    ),
    "a transaction of nobody": (
        "ledger_has_its_accounts",
        f"UPDATE energy_debit SET account_id = 4711 WHERE id = {DEBIT}",
    ),
    "a reading deleted": ("ledger_equals_rerating", f"DELETE FROM reading WHERE {READING}"),
    "a register turned back": (
        "no_interval_missing",
        f"UPDATE reading SET value_wh = value_wh - 1 WHERE {READING}",
    ),
    "a verdict lifted": (
        "verdicts_equal_rejudging",
        "UPDATE reading SET verdict = 'accepted' WHERE verdict = 'implausible'",
    ),
    "a reading with a lost clock billed": (
        "unbilled_readings_charge_nothing",
        "UPDATE reading SET verdict = 'accepted' WHERE verdict = 'clock_lost'",
    ),
    "another register judged": (
        "unbilled_readings_charge_nothing",
        "UPDATE reading SET register = '2.8.0' WHERE " + READING,
    ),
    "a stored position changed": (
        "checkpoints_equal_rerating",
        (
            "UPDATE checkpoint SET position = "
            "jsonb_set(position::jsonb, '{register_wh}', '1')::json "
            "WHERE (account_id, anchor_ms) IN (SELECT account_id, anchor_ms FROM checkpoint "
            "ORDER BY account_id, anchor_ms OFFSET 7 LIMIT 1)"
        ),
    ),
    "the position of the opening lost": (
        "checkpoints_equal_rerating",
        f"DELETE FROM checkpoint WHERE {AN_ACCOUNT} AND anchor_ms < 0",
    ),
    "an anchor that counts other taxes": (
        "states_equal_rerating",
        (
            "UPDATE account_position SET position = "
            f"jsonb_set(position::jsonb, '{{taxed_micro}}', '[]')::json WHERE {AN_ACCOUNT}"
        ),
    ),
    "an unreadable anchor": (
        "ledger_equals_rerating",
        f"UPDATE account_position SET position = '{{}}' WHERE {AN_ACCOUNT}",
    ),
    "a schedule put off": (
        "states_equal_rerating",
        f"UPDATE account_state SET due_ms = due_ms + 1 WHERE {AN_ACCOUNT}",
    ),
    "facts after the anchor forgotten": (
        "states_equal_rerating",
        "UPDATE account_state SET has_tail = false",
    ),
    "a state row lost": ("states_equal_rerating", f"DELETE FROM account_state WHERE {AN_ACCOUNT}"),
    "a supply restored by hand": (
        "states_equal_rerating",
        "UPDATE account_state SET supply = 'protected' WHERE " + AN_ACCOUNT,
    ),
    "a price changed afterwards": (
        "ledger_equals_rerating",
        "UPDATE tariff_version SET body = jsonb_set(body, '{standing_per_day}', '\"1.21\"')",
    ),
    "a meter's opening register changed": (
        "ledger_equals_rerating",
        (
            "UPDATE installation SET opening_wh = opening_wh + 1 "
            "WHERE account_id = (SELECT min(id) FROM account) AND closing_wh IS NULL"
        ),
    ),
    "a payment that was never credited": (
        "top_ups_posted_once",
        """INSERT INTO top_up (id, account_id, meter_id, channel, partner_txn_id, request_sha256,
               amount_micro, paid_at, credited_ms, energy_wh, lines)
           SELECT 'planted', account_id, meter_id, channel, 'planted', request_sha256, amount_micro,
                  paid_at, credited_ms, 0, lines FROM top_up LIMIT 1""",
    ),
    "a payment made larger": (
        "top_ups_posted_once",
        "UPDATE top_up SET amount_micro = amount_micro + 1 WHERE id = (SELECT max(id) FROM top_up)",
    ),
    "credit without a payment": (
        "top_ups_posted_once",
        "DELETE FROM top_up WHERE id = (SELECT max(id) FROM top_up)",
    ),
    "cash that was not counted in coins": (
        "cash_in_coins",
        (
            "ALTER TABLE top_up DROP CONSTRAINT top_up_cash_is_counted_in_coins; "
            "UPDATE top_up SET cash_rounding_micro = cash_rounding_micro + 1 "
            "WHERE cash_step_micro IS NOT NULL"
        ),
    ),
    "money that left suspense by itself": (
        "suspense_explained",
        "DELETE FROM suspense_transaction WHERE kind = 'held'",
    ),
    "a payment returned and credited": (
        "suspense_explained",
        (
            "ALTER TABLE suspect_payment DROP CONSTRAINT suspect_payment_check1; "
            "UPDATE suspect_payment SET top_up_id = NULL WHERE decision = 'credited'"
        ),
    ),
    "a channel's payment under another number": (
        "attempts_accounted",
        "UPDATE payment_attempt SET provider_reference = 'x' WHERE top_up_id IS NOT NULL",
    ),
    "a moved payment in both places": (
        "moved_payments_in_one_place",
        "DELETE FROM reversal WHERE reason LIKE 'moved%'",
    ),
    "a reversal withdrawn": ("reversals_posted_once", "DELETE FROM reversal"),
    "a reversal of something else": (
        "reversals_posted_once",
        (
            "UPDATE reversal SET top_up_id = (SELECT min(id) FROM top_up) "
            "WHERE top_up_id = (SELECT min(top_up_id) FROM reversal)"
        ),
    ),
    "a token lost": ("top_ups_have_tokens", f"DELETE FROM token WHERE {A_TOKEN}"),
    "a token of a unit more": (
        "top_ups_have_tokens",
        f"UPDATE token SET amount = amount + 1 WHERE {A_TOKEN}",
    ),
    "a token that nobody carries": (
        "top_ups_have_tokens",
        f"UPDATE token SET command_id = NULL WHERE {A_TOKEN}",
    ),
    "a TID used twice": (
        "tids_used_once",
        (
            "DROP INDEX token_tid_is_used_once; "
            "UPDATE token t SET tid = (SELECT min(tid) FROM token o WHERE o.meter_id = t.meter_id)"
        ),
    ),
    "the TID of 00:01": (
        "tids_used_once",
        f"UPDATE token SET tid = tid / 1440 * 1440 + 1 WHERE {A_TOKEN}",
    ),
    "a shared TID that is of no other token": (
        "tids_used_once",
        f"UPDATE token SET shares_tid = true WHERE {A_TOKEN}",
    ),
    "credit that was taken twice": (
        "credit_taken_once",
        (
            "INSERT INTO token (meter_id, top_up_id, ordinal, digits, class, subclass, amount, "
            "sgc, krn, base_date, tid, issued_at, command_id, result) "
            "SELECT meter_id, top_up_id, 50 + n, digits, 0, 0, 0, sgc, krn, base_date, tid + n, "
            "issued_at, command_id, 'Accept' FROM token, generate_series(1, 2) n "
            "WHERE id = (SELECT max(id) FROM token WHERE class = 0)"
        ),
    ),
    "a counter used twice": (
        "counters_grow",
        "ALTER TABLE command DROP CONSTRAINT command_meter_id_ctr_key; UPDATE command SET ctr = 1",
    ),
    "counters against the order of issue": (
        "counters_grow",
        (
            "ALTER TABLE command DROP CONSTRAINT command_meter_id_ctr_key; "
            "UPDATE command c SET ctr = s.next_ctr - c.ctr FROM meter_state s "
            "WHERE s.meter_id = c.meter_id"
        ),
    ),
    "a counter that would be given again": (
        "counters_grow",
        "UPDATE meter_state SET next_ctr = next_ctr - 1 WHERE next_ctr > 1",
    ),
    "two relay orders under way": (
        "one_open_relay_order",
        (
            "INSERT INTO command (id, meter_id, ctr, type, args, state, issued_ms, expires_ms) "
            "SELECT gen_random_uuid(), meter_id, 1000 + n, 'relay', '{}', 'sent', issued_ms, "
            f"expires_ms FROM ({A_COMMAND}) c, generate_series(1, 2) n"
        ),
    ),
    "a relay against the supply": (
        "relays_follow_supply",
        (
            "UPDATE meter_state SET desired_relay = "
            "CASE desired_relay WHEN 'open' THEN 'closed' ELSE 'open' END"
        ),
    ),
    "a ledger that may be edited": (
        "append_only_in_force",
        "ALTER TABLE ledger_posting DISABLE TRIGGER ledger_transaction_is_append_only",
    ),
    "a tariff that may be emptied": (
        "append_only_in_force",
        "DROP TRIGGER tariff_version_is_not_truncated ON tariff_version",
    ),
}


def broken(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks if not check.passed}


def test_days_of_everything_pass(busy: Connection) -> None:
    checks = audit(busy)
    assert lines(checks)[-1] == f"{len(checks)} passed, 0 failed"
    assert [check.name for check in checks if not check.checked] == []


def test_an_account_before_its_first_payment_and_reading_passes(utility: Any) -> None:
    utility.open()
    assert broken(audit(utility.conn)) == {}


@pytest.mark.parametrize("planted", CORRUPTIONS)
def test_what_was_planted_is_found_by_its_law(
    busy: Connection, busy_owner: Connection, planted: str
) -> None:
    law, statements = CORRUPTIONS[planted]
    # As one who owns the database can: neither triggers nor references hold.
    busy_owner.execute("SET session_replication_role = replica")
    for statement in statements.split("; "):
        changed = busy_owner.execute(sql.SQL(statement))  # type: ignore[arg-type]
        assert changed.rowcount != 0, "nothing was planted"
    found = broken(audit(busy))
    assert law in found
    assert found[law].failures[0].expected != found[law].failures[0].found


def test_each_law_is_broken_by_something_planted(busy: Connection) -> None:
    assert {check.name for check in audit(busy)} == {law for law, _ in CORRUPTIONS.values()}


def test_accounts_are_rated_from_where_their_readings_are_kept(busy: Connection) -> None:
    kept_from_ms = OPENED + 8 * DAY
    assert drop_old_readings(busy, kept_from_ms) > 0
    assert "ledger_equals_rerating" in broken(audit(busy))
    checks = audit(busy, kept_from_ms=kept_from_ms)
    assert broken(checks) == {}
    assert {check.name: check for check in checks}["no_interval_missing"].checked > 500


def test_progress_is_told(busy: Connection) -> None:
    told: list[str] = []
    audit(busy, told.append)
    assert told[0] == "7 accounts, all"


def test_many_cases_are_counted_and_the_first_are_told(
    busy: Connection, busy_owner: Connection
) -> None:
    busy_owner.execute("SET session_replication_role = replica")
    busy_owner.execute("UPDATE ledger_posting SET balance_micro = 1 WHERE kind = 'standing'")
    check = broken(audit(busy))["running_balances_unbroken"]
    assert check.failed > CASES_TOLD == len(check.failures)
    written = lines([check])
    assert written[0].startswith("FAIL  running_balances_unbroken")
    assert written[-2].strip() == f"and {check.failed - CASES_TOLD} more"
    assert written[-1] == "0 passed, 1 failed"
    assert json.loads(json.dumps(form([check])))["checks"][0]["failed"] == check.failed
