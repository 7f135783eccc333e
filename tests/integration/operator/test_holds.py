"""A hold keeps a supply on and nothing else; its end decides again."""

from typing import Any

import pytest

from schemas.quantities import parse_instant_ms
from store import clockwork, holds
from store.errors import Conflict, NotFound

Desk = Any


def hold(desk: Desk, account: int, until: str | None = None, at: str | None = None) -> int:
    return holds.place(
        desk.conn,
        account,
        kind="medical",
        from_ms=desk.now if at is None else parse_instant_ms(at),
        until_ms=None if until is None else parse_instant_ms(until),
        who="supervisor.1",
        reason="oxygen at home",
        now_ms=desk.now,
    )


def release(desk: Desk, number: int) -> bool:
    return holds.release(
        desk.conn, desk.terms, number, who="supervisor.2", reason="moved out", now_ms=desk.now
    )


def test_a_hold_keeps_an_empty_account_on_supply_while_it_is_debited(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    number = hold(desk, account)
    desk.read(account, "2026-03-01T02:00:00Z", 8_000)
    assert desk.orders(account) == []
    assert desk.state(account).balance_micro == -6_000_000
    # What the engine says stays what the facts say; what is decided is that it is protected.
    assert desk.state(account).supply == "disconnected"
    assert desk.state(account).decided_supply == "protected"
    assert desk.kinds(account)[-2:] == ["zero", "protected"]
    desk.turn("2026-03-01T03:00:00Z")
    assert release(desk, number)
    assert desk.decided(account)[-1] == ("disconnected", "2026-03-01T03:00:00Z", f"hold:{number}")
    assert desk.orders(account) == [("open", "queued")]


def test_a_hold_ends_by_itself_and_after_days_of_downtime(desk: Desk) -> None:
    desk.set(reading_hours=None)
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    number = hold(desk, account, until="2026-03-03T00:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 8_000)
    desk.tick("2026-03-02T23:59:59Z")
    assert desk.orders(account) == []
    desk.tick("2026-03-06T10:00:00Z")
    assert desk.kinds(account)[-1] == "disconnected"
    assert desk.orders(account) == [("open", "queued")]
    ended = holds.of_account(desk.conn, account, limit=5)[0]
    assert (ended.id, ended.released_by) == (number, holds.TIME)
    assert not release(desk, number)


def test_a_hold_that_ends_at_an_account_in_credit_orders_nothing(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    before = desk.decided(account)
    number = hold(desk, account)
    assert release(desk, number)
    assert (desk.decided(account), desk.orders(account)) == (before, [])


def test_a_hold_blocks_cuts_only_and_restores_no_supply(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 8_000, relay="closed")
    desk.sent()
    hold(desk, account)
    desk.read(account, "2026-03-01T03:00:00Z", 8_000)
    assert desk.orders(account) == [("open", "sent")]
    desk.pay(account, 50, "2026-03-01T04:00:00Z")
    assert desk.orders(account)[-1] == ("close", "queued")


def test_an_order_that_nobody_has_yet_is_withdrawn_by_a_hold(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 8_000, relay="closed")
    assert desk.orders(account) == [("open", "queued")]
    hold(desk, account)
    assert desk.orders(account) == [("open", "superseded")]
    desk.read(account, "2026-03-01T03:00:00Z", 8_100, relay="closed")
    desk.turn("2026-03-01T03:01:00Z")
    clockwork.reconcile(desk.conn, desk.terms, desk.now, 10)
    assert desk.orders(account) == [("open", "superseded")]


def test_an_order_that_failed_is_not_repeated_under_a_hold(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 8_000, relay="closed")
    desk.sent()
    number = hold(desk, account)
    desk.turn("2026-03-01T03:00:00Z")
    clockwork.close_overdue(desk.conn, desk.now)
    desk.read(account, "2026-03-01T03:10:00Z", 8_100, relay="closed")
    desk.turn("2026-03-01T03:11:00Z")
    clockwork.reconcile(desk.conn, desk.terms, desk.now, 10)
    assert [state for _, state in desk.orders(account)] == ["unknown"]
    assert release(desk, number)
    clockwork.reconcile(desk.conn, desk.terms, desk.now, 10)
    assert [state for _, state in desk.orders(account)] == ["superseded", "queued"]


def test_a_hold_of_the_future_does_not_protect_today(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    hold(desk, account, at="2026-03-02T00:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 8_000)
    assert desk.orders(account) == [("open", "queued")]


@pytest.mark.parametrize(
    ("until", "who", "reason"),
    [
        ("2026-02-01T00:00:00Z", "a", "b"),
        (None, " ", "b"),
        (None, "a", ""),
    ],
)
def test_a_hold_without_end_person_or_reason_is_refused(
    desk: Desk, until: str | None, who: str, reason: str
) -> None:
    account = desk.open()
    until_ms = None if until is None else parse_instant_ms(until)
    with pytest.raises(Conflict) as caught:
        holds.place(
            desk.conn, account, kind="dispute", from_ms=desk.now, until_ms=until_ms, who=who,
            reason=reason, now_ms=desk.now,
        )  # fmt: skip
    assert caught.value.code == "hold_refused"


def test_what_is_not_there_cannot_be_held_released_or_warned(desk: Desk) -> None:
    account = desk.open()
    with pytest.raises(NotFound):
        hold(desk, account + 1)
    with pytest.raises(NotFound):
        release(desk, 7)
    with pytest.raises(NotFound):
        holds.set_low_credit(desk.conn, desk.terms, account + 1, 5, desk.now, who="vera")
    with pytest.raises(Conflict, match="zero or above"):
        holds.set_low_credit(desk.conn, desk.terms, account, -1, desk.now, who="vera")
    number = hold(desk, account)
    with pytest.raises(Conflict, match="why"):
        holds.release(desk.conn, desk.terms, number, who="x", reason=" ", now_ms=desk.now)
