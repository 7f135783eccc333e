"""A crossing is decided once, with the posting that crosses, whatever comes again or late."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from store import clockwork, holds, vending

Desk = Any
FRIENDLY = [{"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "20:00",
             "to": "07:00"}]  # fmt: skip


def test_each_threshold_on_the_way_down_and_up_is_one_decision(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 100, "2026-03-01T01:00:00Z", "p1")
    desk.read(account, "2026-03-01T02:00:00Z", 39_000)
    desk.read(account, "2026-03-01T03:00:00Z", 41_000)
    desk.read(account, "2026-03-01T04:00:00Z", 45_000)
    desk.read(account, "2026-03-01T05:00:00Z", 51_000)
    desk.read(account, "2026-03-01T06:00:00Z", 52_000)
    desk.pay(account, 50, "2026-03-01T07:00:00Z", "p2")

    def energy(hour: int) -> str:
        start = 1772323200000 + (hour - 1) * 3_600_000
        return f"energy:{start}-{start + 3_600_000}"

    assert desk.decided(account) == [
        ("low_credit_cleared", "2026-03-01T01:00:00Z", "top_up:p1"),
        ("credit_restored", "2026-03-01T01:00:00Z", "top_up:p1"),
        ("low_credit", "2026-03-01T03:00:00Z", energy(3)),
        ("zero", "2026-03-01T05:00:00Z", energy(5)),
        ("disconnected", "2026-03-01T05:00:00Z", energy(5)),
        ("low_credit_cleared", "2026-03-01T07:00:00Z", "top_up:p2"),
        ("credit_restored", "2026-03-01T07:00:00Z", "top_up:p2"),
        ("connected", "2026-03-01T07:00:00Z", "top_up:p2"),
    ]
    assert [to for to, _ in desk.orders(account)] == ["open", "close"]


def test_a_reading_that_comes_again_decides_nothing(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    last = desk.reading("2026-03-01T02:00:00Z", 6_000)
    desk.say(account, last, "2026-03-01T02:00:00Z")
    before = desk.decided(account)
    assert before[-1][0] == "disconnected"
    for _ in range(3):
        desk.say(account, last, "2026-03-01T03:00:00Z")
        desk.tick("2026-03-01T03:00:00Z")
    assert desk.decided(account) == before
    assert len(desk.orders(account)) == 1


def test_rating_again_does_not_cross_again(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T05:00:00Z", 6_000)
    before = desk.decided(account)
    desk.read(account, "2026-03-01T03:00:00Z", 5_500)
    desk.read(account, "2026-03-01T04:00:00Z", 5_800)
    assert desk.decided(account) == before


def test_a_late_fact_that_undoes_a_crossing_is_decided_anew_and_history_stands(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 30, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T05:00:00Z", 16_000)
    before = desk.decided(account)
    assert [kind for kind, _, _ in before[-2:]] == ["zero", "disconnected"]
    # Paid before the energy was used, heard of after it.
    desk.turn("2026-03-01T06:00:00Z")
    desk.pay(account, 40, "2026-03-01T02:00:00Z")
    assert desk.decided(account)[: len(before)] == before
    assert desk.decided(account)[len(before) :] == [
        ("low_credit_cleared", "2026-03-01T06:00:00Z", "history"),
        ("credit_restored", "2026-03-01T06:00:00Z", "history"),
        ("connected", "2026-03-01T06:00:00Z", "history"),
    ]
    assert [to for to, _ in desk.orders(account)] == ["open", "close"]


def test_a_balance_that_wavers_around_the_warning_is_one_warning(desk: Desk) -> None:
    account = desk.open()
    holds.set_low_credit(desk.conn, desk.terms, account, 20 * 10**6, desk.now, who="vera")
    desk.pay(account, 30, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 5_000)
    for hour, register in ((3, 6_500), (5, 8_000), (7, 9_500)):
        # 3 units back each time: 20 again, below the 25 at which the warning is armed again.
        desk.pay(account, 3, f"2026-03-01T{hour:02}:00:00Z")
        desk.read(account, f"2026-03-01T{hour + 1:02}:00:00Z", register)
    assert desk.kinds(account).count("low_credit") == 1
    desk.pay(account, 6, "2026-03-01T09:00:00Z")
    desk.read(account, "2026-03-01T10:00:00Z", 13_000)
    assert desk.kinds(account).count("low_credit") == 2


def test_a_midnight_charge_cuts_without_a_reading(desk: Desk) -> None:
    desk.set(reading_hours=None)
    account = desk.open(desk.tariff(standing="1.50"))
    desk.pay(account, 2, "2026-03-01T01:00:00Z")
    desk.tick("2026-03-03T00:00:01Z")
    assert desk.decided(account)[-2:] == [
        ("zero", "2026-03-03T00:00:00Z", "standing:2026-03-03"),
        ("disconnected", "2026-03-03T00:00:00Z", "standing:2026-03-03"),
    ]
    assert desk.orders(account) == [("open", "queued")]


def test_friendly_hours_protect_and_their_end_cuts_without_a_reading(desk: Desk) -> None:
    account = desk.open(non_disconnection=FRIENDLY)
    desk.pay(account, 2, "2026-03-01T12:00:00Z")
    desk.read(account, "2026-03-01T21:00:00Z", 1_500)
    assert desk.decided(account)[-1][:2] == ("protected", "2026-03-01T21:00:00Z")
    assert desk.orders(account) == []
    desk.tick("2026-03-02T06:59:59Z")
    assert desk.orders(account) == []
    desk.tick("2026-03-02T09:00:00Z")
    assert desk.decided(account)[-1] == ("disconnected", "2026-03-02T07:00:00Z", "window")
    assert desk.orders(account) == [("open", "queued")]
    # The next night protects what is on; what is off stays off, and nobody hears of it twice.
    desk.tick("2026-03-03T23:00:00Z")
    assert desk.kinds(account).count("disconnected") == 1


def test_emergency_credit_begins_and_lapses_by_charges_alone(desk: Desk) -> None:
    desk.set(reading_hours=None)
    account = desk.open(
        desk.tariff(standing="4"), emergency={"limit": "7", "activation": "automatic"}
    )
    desk.pay(account, 5, "2026-03-01T01:00:00Z")
    for day in (2, 3, 4, 5):
        desk.tick(f"2026-03-0{day}T00:00:01Z")
    # 5 - 4 - 4 - 4 = -7: the floor itself is not above the floor.
    assert desk.decided(account)[-3:] == [
        ("zero", "2026-03-03T00:00:00Z", "standing:2026-03-03"),
        ("emergency_begun", "2026-03-03T00:00:00Z", "standing:2026-03-03"),
        ("disconnected", "2026-03-04T00:00:00Z", "standing:2026-03-04"),
    ]
    desk.pay(account, 40, "2026-03-05T12:00:00Z", "saved")
    assert desk.kinds(account)[-4:] == [
        "low_credit_cleared", "credit_restored", "emergency_ended", "connected",
    ]  # fmt: skip


def test_requested_emergency_credit_restores_and_names_the_request(desk: Desk) -> None:
    account = desk.open(emergency={"limit": "7", "activation": "on_request"})
    desk.pay(account, 5, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 3_000)
    desk.turn("2026-03-01T03:00:00Z")
    assert vending.request_emergency_credit(desk.conn, desk.terms, account, desk.now)
    assert desk.decided(account)[-2:] == [
        ("emergency_begun", "2026-03-01T03:00:00Z", "emergency_request"),
        ("connected", "2026-03-01T03:00:00Z", "emergency_request"),
    ]


@pytest.mark.parametrize("charge", ["1.20", "4", "9.99"])
def test_catching_up_after_days_decides_the_same_in_the_same_order(desk: Desk, charge: str) -> None:
    terms = {
        "emergency": {"limit": "6", "activation": "automatic"},
        "non_disconnection": FRIENDLY,
    }
    desk.set(reading_hours=None)
    tariff = desk.tariff(standing=charge)
    stepped, slept = desk.open(tariff, **terms), desk.open(tariff, **terms)
    for account in (stepped, slept):
        desk.pay(account, 25, "2026-03-01T01:00:00Z", f"same-{account}")
    desk.conn.execute(
        "UPDATE account_state SET due_ms = due_ms + 10^15::bigint WHERE account_id = %s", (slept,)
    )
    for day in range(2, 28):
        for clock in ("00:00:01", "07:00:01", "20:00:01"):
            desk.tick(f"2026-03-{day:02}T{clock}Z")
    desk.conn.execute(
        "UPDATE account_state SET due_ms = due_ms - 10^15::bigint WHERE account_id = %s", (slept,)
    )
    desk.tick("2026-03-28T12:00:00Z")

    def decided(account: int) -> list[tuple[str, str, str]]:
        # Who was awake saw the night before the cut: a decision of its own.
        return [
            (kind, at, cause.replace(f"same-{account}", "same"))
            for kind, at, cause in desk.decided(account)
            if kind != "protected"
        ]

    assert decided(slept) == decided(stepped)
    assert decided(slept)[-1][0] == "disconnected"
    instants = [at for _, at, _ in desk.decided(slept)]
    assert instants == sorted(instants)
    assert desk.state(slept).balance_micro == desk.state(stepped).balance_micro


# What is said next of an account that replayed readings alone took below zero, and what it tells.
NEXT: dict[str, tuple[Callable[[Desk, int], object], list[str]]] = {
    "live reading": (
        lambda desk, account: desk.read(account, "2026-03-01T03:00:00Z", 51_000),
        ["low_credit", "zero", "disconnected"],
    ),
    "replayed reading": (
        lambda desk, account: desk.read(account, "2026-03-01T03:00:00Z", 52_000, hist=True),
        [],
    ),
    "late replayed reading": (
        lambda desk, account: desk.read(account, "2026-03-01T01:30:00Z", 10_000, hist=True),
        [],
    ),
    "clockwork": (
        lambda desk, account: desk.tick("2026-03-02T00:00:01Z"),
        ["low_credit", "zero", "disconnected"],
    ),
    "too small a payment": (
        lambda desk, account: desk.pay(account, 1, "2026-03-01T03:00:00Z"),
        ["low_credit", "zero", "disconnected"],
    ),
    "a payment that leaves it low": (
        lambda desk, account: desk.pay(account, 10, "2026-03-01T03:00:00Z"),
        ["low_credit"],
    ),
    "payment": (lambda desk, account: desk.pay(account, 99, "2026-03-01T03:00:00Z"), []),
}


@pytest.mark.parametrize("case", NEXT)
def test_replayed_readings_tell_nothing_and_what_comes_next_does(desk: Desk, case: str) -> None:
    desk.set(notice_hours=1, reading_hours=None)
    account = desk.open(desk.tariff(standing="0.50"))
    desk.pay(account, 100, "2026-03-01T01:00:00Z")
    before = desk.kinds(account)
    desk.read(account, "2026-03-01T01:40:00Z", 45_000, hist=True)
    desk.read(account, "2026-03-01T02:00:00Z", 51_000, hist=True)
    assert desk.state(account).supply == "disconnected"
    assert desk.kinds(account) == before
    assert desk.conn.execute("SELECT type FROM command").fetchall() == []
    then, told = NEXT[case]
    then(desk, account)
    if "disconnected" in told:
        # Its notice was not given before it was due.
        told = ["protected" if kind == "disconnected" else kind for kind in told]
    assert desk.kinds(account)[len(before) :] == told
    then(desk, account)
    assert desk.kinds(account)[len(before) :].count("zero") == told.count("zero")


def test_a_replayed_reading_is_no_cause_of_a_cut_and_the_next_live_one_is(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 2, "2026-03-01T01:00:00Z")
    before = desk.kinds(account)
    desk.read(account, "2026-03-01T02:00:00Z", 3_000, hist=True)
    assert desk.state(account).supply == "disconnected"
    assert desk.kinds(account) == before
    assert desk.orders(account) == []
    desk.read(account, "2026-03-01T03:00:00Z", 3_000)
    assert desk.kinds(account)[len(before) :] == ["zero", "disconnected"]
    assert desk.orders(account) == [("open", "queued")]


def test_replayed_readings_begin_no_emergency_credit_and_no_protection(desk: Desk) -> None:
    desk.set(reading_hours=None)
    account = desk.open(
        emergency={"limit": "7", "activation": "automatic"}, non_disconnection=FRIENDLY
    )
    desk.pay(account, 30, "2026-03-01T19:00:00Z")
    before = desk.kinds(account)
    desk.read(account, "2026-03-01T21:00:00Z", 16_000, hist=True)
    assert desk.state(account).emergency_in_use
    desk.read(account, "2026-03-01T22:00:00Z", 19_000, hist=True)
    assert desk.state(account).supply == "protected"
    assert desk.kinds(account) == before
    desk.read(account, "2026-03-01T23:00:00Z", 19_000)
    assert sorted(desk.kinds(account)[len(before) :]) == [
        "emergency_begun", "low_credit", "protected", "zero",
    ]  # fmt: skip


def test_a_decision_is_never_edited(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 30, "2026-03-01T01:00:00Z")
    for statement in ("UPDATE decision SET cause = 'x'", "DELETE FROM decision"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            desk.conn.execute(statement)
    with pytest.raises(psycopg.errors.UniqueViolation):
        desk.conn.execute(
            "INSERT INTO decision SELECT * FROM decision WHERE account_id = %s", (account,)
        )


def test_an_order_to_cut_is_not_repeated_inside_a_protected_window(desk: Desk) -> None:
    account = desk.open(non_disconnection=FRIENDLY)
    desk.pay(account, 2, "2026-03-01T12:00:00Z")
    desk.read(account, "2026-03-01T19:40:00Z", 1_500, relay="closed")
    assert desk.orders(account) == [("open", "queued")]
    desk.sent()
    # It expires before the window begins; the meter, still closed, says so inside the window.
    desk.turn("2026-03-01T20:00:00Z")
    clockwork.close_overdue(desk.conn, desk.now)
    desk.read(account, "2026-03-01T20:30:00Z", 1_600, relay="closed")
    desk.turn("2026-03-01T20:31:00Z")
    clockwork.reconcile(desk.conn, desk.terms, desk.now, 10)
    assert desk.orders(account) == [("open", "unknown")]
    desk.read(account, "2026-03-02T07:30:00Z", 1_700, relay="closed")
    desk.turn("2026-03-02T07:31:00Z")
    clockwork.reconcile(desk.conn, desk.terms, desk.now, 10)
    assert [to for to, state in desk.orders(account) if state == "queued"] == ["open"]
