"""Cash, payments that wait for a person, reversals after the fact, moves, and the daily file."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from schemas.errors import DomainError
from store import reconciliation, reversals, suspects, vending
from store.audit import audit
from store.matching import Line, Trailer, canonical

UNIT = 1_000_000
HOUR = 3_600_000
DAY = 24 * HOUR
OPENED = 1_772_323_200_000  # 2026-03-01T00:00:00Z
OPENING_WH = 100_000
ZONE = ZoneInfo("Africa/Nouakchott")


def receive(utility: Any, payment: vending.Payment) -> suspects.Received:
    return suspects.receive(utility.conn, utility.terms, utility.module, payment, utility.now)


def credit(utility: Any, suspect: str, **of: Any) -> str:
    of = {"who": "vera", "reason": "asked the payer", "now_ms": utility.now} | of
    return suspects.credit(utility.conn, utility.terms, utility.module, suspect, **of)


def move(utility: Any, txn: str, to_meter: str, **of: Any) -> str:
    of = {"who": "payer", "reason": "one digit off", "now_ms": utility.now} | of
    return reversals.move(
        utility.conn, utility.terms, utility.module, "bank", txn, to_meter=to_meter, **of
    )


def reverse(utility: Any, txn: str, **of: Any) -> int:
    of = {"who": "vera", "reason": "the bank called it back", "now_ms": utility.now} | of
    return reversals.reverse_after_issue(utility.conn, utility.terms, "bank", txn, **of)


def totals(utility: Any) -> dict[str, int]:
    """Every ledger account over all books; they sum to zero."""
    found: dict[str, int] = dict(
        utility.rows("SELECT code, sum(amount_micro)::bigint FROM ledger_entry GROUP BY code")
    )
    assert sum(found.values()) == 0
    return found


def passes(utility: Any) -> None:
    broken = [(check.name, check.failures) for check in audit(utility.conn) if not check.passed]
    assert broken == []


def refused(code: str) -> Any:
    return pytest.raises(DomainError, check=lambda error: error.code == code)


def test_cash_credits_the_amount_and_the_till_counts_coins(utility: Any) -> None:
    supply = utility.open()
    cash = replace(utility.payment(supply, 50_130_000, "c-1"), coin_micro=200_000)

    for counted in (50_130_000, 50_000_000, 50_400_000):
        with refused("cash_miscounted"):
            wrong = replace(cash, counted_micro=counted)
            vending.vend(utility.conn, utility.terms, utility.module, wrong, utility.now)
    with refused("cash_miscounted"):
        dust = replace(cash, amount_micro=90_000, counted_micro=0)
        vending.vend(utility.conn, utility.terms, utility.module, dust, utility.now)

    right = replace(cash, counted_micro=50_200_000)
    vending.vend(utility.conn, utility.terms, utility.module, right, utility.now)
    assert utility.state(supply).balance_micro == 50_130_000
    found = totals(utility)
    assert (found["clearing:bank"], found["cash_rounding"]) == (-50_200_000, 70_000)
    [lines] = utility.rows("SELECT lines FROM top_up")
    assert lines[-1] == {"name": "cash_rounding", "amount": "0.070000"}
    passes(utility)

    # Taken back, the till gives out the coins that it counted.
    vending.reverse(utility.conn, utility.terms, "bank", "c-1", "changed his mind", utility.now)
    found = totals(utility)
    assert (found["clearing:bank"], found["cash_rounding"]) == (0, 0)
    passes(utility)


def test_a_payment_for_nobody_waits_in_suspense_and_is_credited_once(utility: Any) -> None:
    supply = utility.open()
    payment = replace(utility.payment(supply, 9 * UNIT, "s-1"), meter="37999999999")
    first = receive(utility, payment)
    assert first.top_up is None
    assert first.suspect is not None
    assert receive(utility, payment) == first
    with refused("idempotency_conflict"):
        receive(utility, replace(payment, request_sha256=bytes(32)))
    assert totals(utility) == {"clearing:bank": -9 * UNIT, "suspense": 9 * UNIT}
    [waits] = suspects.waiting(utility.conn, limit=10)
    assert (waits.suspicion, waits.meter) == ("unknown_meter", "37999999999")

    with refused("reason_missing"):
        credit(utility, first.suspect, meter=supply.meter, reason=" ")
    with refused("not_found"):
        credit(utility, first.suspect, meter="37999999999")
    with refused("not_found"):
        credit(utility, "no such", meter=supply.meter)
    top_up = credit(utility, first.suspect, meter=supply.meter)
    assert credit(utility, first.suspect, meter=supply.meter) == top_up
    assert receive(utility, payment) == suspects.Received(top_up, None)
    with refused("suspect_decided"):
        suspects.send_back(
            utility.conn, first.suspect, who="vera", reason="again", now_ms=utility.now
        )
    found = totals(utility)
    assert (found["clearing:bank"], found["suspense"]) == (-9 * UNIT, 0)
    assert utility.state(supply).balance_micro == 9 * UNIT
    assert suspects.waiting(utility.conn, limit=10) == []
    passes(utility)


def test_the_same_payment_by_another_channel_waits_and_a_partner_takes_it_back(
    utility: Any,
) -> None:
    supply = utility.open()
    utility.vend(supply, 50 * UNIT, "t-1")
    again = replace(utility.payment(supply, 50 * UNIT, "w-1"), channel="wallet")
    held = receive(utility, again).suspect
    assert held is not None
    [waits] = suspects.waiting(utility.conn, limit=10)
    assert waits.suspicion == "paid_twice"
    of = (utility.conn, utility.terms, "wallet", "w-1", "the payer asked", utility.now)
    assert reversals.take_back(*of) == held == reversals.take_back(*of)
    with refused("suspect_decided"):
        credit(utility, held, meter=supply.meter)
    assert totals(utility)["clearing:wallet"] == 0
    assert utility.state(supply).balance_micro == 50 * UNIT
    passes(utility)
    # One that was credited is reversed by the same word.
    reversals.take_back(utility.conn, utility.terms, "bank", "t-1", "also", utility.now)
    assert utility.state(supply).balance_micro == 0


def test_what_was_consumed_before_a_reversal_becomes_debt(utility: Any) -> None:
    supply = utility.open(sts=True)
    utility.vend(supply, 100 * UNIT, "r-1")
    with refused("token_issued"):
        vending.reverse(utility.conn, utility.terms, "bank", "r-1", "x", utility.now)
    utility.read(supply, OPENED + 6 * HOUR, OPENING_WH + 20_000)
    left = utility.state(supply).balance_micro
    assert 0 < left < 100 * UNIT

    with refused("reason_missing"):
        reverse(utility, "r-1", who="")
    with refused("second_person_needed"):
        reverse(utility, "r-1", limit_micro=UNIT)
    with refused("second_person_needed"):
        reverse(utility, "r-1", limit_micro=UNIT, second="vera")
    consumed = reverse(utility, "r-1", limit_micro=UNIT, second="omar")
    assert consumed == 100 * UNIT - left
    assert reverse(utility, "r-1") == consumed
    state = utility.state(supply)
    assert (state.balance_micro, state.debt_micro) == (0, consumed)
    assert totals(utility)["clearing:bank"] == 0
    # The token is not carried any more, nor again.
    assert utility.rows("SELECT state FROM command WHERE type = 'token'") == ["superseded"]
    passes(utility)
    # A late reading changes what is owed, and the ledger follows.
    utility.read(supply, OPENED + 3 * HOUR, OPENING_WH + 19_000)
    passes(utility)


def test_an_unspent_payment_moves_to_the_meter_that_was_meant(utility: Any) -> None:
    wrong, right, taken = utility.open(), utility.open(), utility.open(sts=True)
    utility.vend(wrong, 30 * UNIT, "m-1")
    for to_meter, code in (("1", "not_found"), (wrong.meter, "same_account")):
        with refused(code):
            move(utility, "m-1", to_meter)
    with refused("not_found"):
        move(utility, "no such", right.meter)
    with refused("reason_missing"):
        move(utility, "m-1", right.meter, reason="")
    moved = move(utility, "m-1", right.meter)
    assert move(utility, "m-1", right.meter) == moved
    with refused("payment_moved"):
        move(utility, "m-1", taken.meter)
    assert utility.state(wrong).balance_micro == 0
    assert utility.state(right).balance_micro == 30 * UNIT
    assert totals(utility)["clearing:bank"] == -30 * UNIT
    [reason] = utility.rows("SELECT reason FROM reversal")
    assert reason == f"moved to meter {right.meter}: one digit off"

    # An account that owed before stands again where it stood.
    utility.read(wrong, OPENED + HOUR, OPENING_WH + 500)
    owed = utility.state(wrong).balance_micro
    assert owed < 0
    utility.vend(wrong, 30 * UNIT, "m-4")
    move(utility, "m-4", right.meter)
    assert utility.state(wrong).balance_micro == owed

    utility.vend(taken, 30 * UNIT, "m-2")
    with refused("token_issued"):
        move(utility, "m-2", right.meter)
    utility.vend(wrong, 30 * UNIT, "m-3")
    utility.read(wrong, OPENED + 6 * HOUR, OPENING_WH + 1_000)
    with refused("credit_spent"):
        move(utility, "m-3", right.meter)
    vending.reverse(utility.conn, utility.terms, "bank", "m-3", "x", utility.now)
    with refused("payment_reversed"):
        move(utility, "m-3", right.meter)
    passes(utility)


def upload(utility: Any, day: date, lines: Sequence[Line]) -> bool:
    trailer = Trailer(
        len(lines),
        sum(line.amount_micro for line in lines),
        hashlib.sha256(canonical(lines)).digest(),
    )
    return reconciliation.reconcile(
        utility.conn, "bank", day, lines, trailer, zone=ZONE, who="bank", now_ms=utility.now
    )


def classes(utility: Any, day: date) -> dict[str, str]:
    return {
        item.partner_txn_id: item.cls
        for item in reconciliation.items_of(utility.conn, "bank", day)
        if item.decision != "overtaken"
    }


def test_a_day_is_reconciled_once_and_a_newer_file_replaces_what_nobody_decided(
    utility: Any,
) -> None:
    first_day, second_day = date(2026, 3, 1), date(2026, 3, 2)
    supply, other = utility.open(), utility.open()
    utility.now = OPENED + 12 * HOUR
    for txn, amount in (("d-1", 10), ("d-2", 20), ("d-3", 30)):
        utility.vend(supply, amount * UNIT, txn)
    move(utility, "d-1", other.meter)
    lost = replace(utility.payment(supply, 5 * UNIT, "d-4"), meter="1")
    receive(utility, lost)

    def line(txn: str, amount: int, meter: str = supply.meter, at_ms: int = utility.now) -> Line:
        return Line(txn, meter, amount * UNIT, at_ms)

    lines = [line("d-1", 10), line("d-2", 21), line("d-4", 5, "1"), line("d-9", 9)]
    with refused("date_not_over"):
        upload(utility, first_day, lines)
    utility.now += DAY
    assert upload(utility, first_day, lines)
    assert not upload(utility, first_day, lines)
    assert classes(utility, first_day) == {
        "d-1": "matched",
        "d-2": "amount_differs",
        "d-3": "ours_only",
        "d-4": "matched",
        "d-9": "theirs_only",
    }
    found = reconciliation.open_items(utility.conn, limit=10, channel="bank")
    assert {item.partner_txn_id: item.owner for item in found} == {
        "d-2": "finance",
        "d-3": "partner",
        "d-9": "finance",
    }
    by_number = {item.partner_txn_id: item for item in found}
    assert by_number["d-2"].age_days(utility.now + 3 * DAY) == 3

    of = {"note": "they counted the fee", "who": "vera", "now_ms": utility.now}
    with refused("reason_missing"):
        reconciliation.close(utility.conn, by_number["d-2"].id, decision=" ", **of)
    with refused("not_found"):
        reconciliation.close(utility.conn, 10**9, decision="agreed", **of)
    closed = reconciliation.close(utility.conn, by_number["d-2"].id, decision="agreed", **of)
    assert reconciliation.close(utility.conn, closed.id, decision="agreed", **of) == closed
    with refused("item_closed"):
        reconciliation.close(utility.conn, closed.id, decision="otherwise", **of)

    # Their correction: one line less. What vera decided stays.
    assert upload(utility, first_day, lines[:3])
    assert "d-9" not in classes(utility, first_day)
    assert [
        item.decision
        for item in reconciliation.items_of(utility.conn, "bank", first_day)
        if item.partner_txn_id == "d-2"
    ] == ["agreed"]

    # What was missing stands in the next day's file, and one comes twice.
    utility.now += DAY
    late = line("d-3", 30, at_ms=OPENED + 12 * HOUR)
    assert upload(utility, second_day, [late, line("d-1", 10)])
    assert classes(utility, second_day) == {"d-3": "late", "d-1": "duplicate"}
    still = reconciliation.open_items(utility.conn, limit=10)
    assert [item.cls for item in still] == ["duplicate"]
