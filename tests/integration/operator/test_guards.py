"""A cut waits for its guards, says which, and is decided again by itself when they let go."""

from random import Random
from typing import Any

import pytest

from schemas.commands import payload
from schemas.quantities import format_instant
from simulators.meter import Meter, Nameplate
from simulators.meter_state import MeterState
from store import centres, clockwork, cuts, holds, outbox, supply, unsettled
from store.audit import audit
from store.errors import Conflict, NotFound

Desk = Any
MINUTE = 60_000
FRIENDLY = [{"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "20:00",
             "to": "07:00"}]  # fmt: skip


class Nobody:
    """No load."""

    def energy_wh(self, ms: int) -> int:
        return 0


def withheld(desk: Desk, account: int) -> list[tuple[list[str], str | None]]:
    """(standing guards, how it ended), oldest first."""
    found = cuts.of_account(desk.conn, account, limit=50)
    return [(list(each.standing), each.ended_by) for each in reversed(found)]


def commands(desk: Desk, kind: str) -> list[str]:
    rows = desk.conn.execute("SELECT state FROM command WHERE type = %s ORDER BY ctr", (kind,))
    return [state for (state,) in rows]


def test_a_cut_says_what_every_guard_found(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 8_000)
    made = desk.guards(account)
    assert made[-1][0] == "disconnected"
    assert made[-1][1] == {
        "reading": "read 2026-03-01T02:00:00Z, at most 48 h ago",
        "hold": "none",
        "payment": "none waits",
        "notice": "not required",
        "outage": "none",
        "window": "none ahead",
        "brake": "free",
    }
    assert [guards for kind, guards in made if kind == "zero"] == [{}]
    assert withheld(desk, account) == []


def test_a_stale_reading_withholds_the_cut_and_asks_the_meter_once(desk: Desk) -> None:
    account = desk.open(desk.tariff(standing="1.50"))
    desk.pay(account, 2, "2026-03-01T01:00:00Z")
    desk.tick("2026-03-03T00:00:01Z")
    assert desk.decided(account)[-1][0] == "protected"
    assert desk.orders(account) == []
    assert withheld(desk, account) == [(["reading"], None)]
    desk.tick("2026-03-04T00:00:01Z")
    assert commands(desk, "read") == ["queued"]
    assert all(check.passed for check in audit(desk.conn))
    # The meter is heard: now the balance is known, and it is what it was taken for.
    desk.read(account, "2026-03-04T01:00:00Z", 100)
    assert desk.orders(account) == [("open", "queued")]
    assert withheld(desk, account) == [(["reading"], "cut")]


def test_credit_that_comes_while_a_cut_is_withheld_ends_it(desk: Desk) -> None:
    account = desk.open(desk.tariff(standing="1.50"))
    desk.pay(account, 2, "2026-03-01T01:00:00Z")
    desk.tick("2026-03-03T00:00:01Z")
    desk.pay(account, 50, "2026-03-03T01:00:00Z")
    assert withheld(desk, account) == [(["reading"], "credit")]
    assert desk.kinds(account)[-1] == "connected"
    assert desk.orders(account) == []


def test_notice_is_given_as_credit_runs_low_and_the_cut_waits_its_hours(desk: Desk) -> None:
    desk.set(notice_hours=6)
    account = desk.open()
    desk.pay(account, 40, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 11_000)
    assert desk.kinds(account)[-1] == "low_credit"
    assert commands(desk, "display") == ["queued"]
    desk.sent()
    desk.read(account, "2026-03-01T04:00:00Z", 21_000)
    assert withheld(desk, account) == [(["notice"], None)]
    desk.tick("2026-03-01T07:59:59Z")
    assert desk.orders(account) == []
    # Six hours after the broker had it, without another reading: by the schedule alone.
    desk.tick("2026-03-01T08:00:00Z")
    assert desk.decided(account)[-1] == ("disconnected", "2026-03-01T08:00:00Z", "notice")
    assert desk.orders(account) == [("open", "queued")]
    assert commands(desk, "display") == ["sent"]


def test_each_time_the_credit_runs_low_needs_a_notice_of_its_own(desk: Desk) -> None:
    desk.set(notice_hours=1)
    account = desk.open()
    desk.pay(account, 40, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 11_000)
    desk.sent()
    desk.pay(account, 40, "2026-03-01T03:00:00Z")
    desk.read(account, "2026-03-01T05:00:00Z", 41_000)
    assert withheld(desk, account) == [(["notice"], None)]
    assert commands(desk, "display") == ["sent", "queued"]


def test_a_notice_that_the_meter_would_not_show_does_not_count(desk: Desk) -> None:
    desk.set(notice_hours=0)
    account = desk.open()
    desk.pay(account, 40, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T01:30:00Z", 11_000)
    desk.conn.execute("UPDATE command SET state = 'refused' WHERE type = 'display'")
    desk.read(account, "2026-03-01T02:00:00Z", 21_000)
    assert withheld(desk, account) == [(["notice"], None)]
    # It is said once a day, not with every reading.
    desk.read(account, "2026-03-01T03:00:00Z", 21_100)
    assert commands(desk, "display") == ["refused"]
    desk.read(account, "2026-03-02T02:00:00Z", 21_200)
    assert commands(desk, "display") == ["refused", "queued"]


@pytest.mark.parametrize("state", ["received", "pending", "suspect"])
def test_a_payment_on_its_way_keeps_the_supply_on(desk: Desk, state: unsettled.State) -> None:
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    desk.turn("2026-03-01T01:30:00Z")
    unsettled.note(desk.conn, account, "wallet", "w-1", state, amount_micro=5, received_ms=desk.now)
    desk.read(account, "2026-03-01T02:00:00Z", 8_000)
    assert withheld(desk, account) == [(["payment"], None)]
    # It will never come: the channel says so, and the supply is decided again at once.
    desk.turn("2026-03-01T03:00:00Z")
    assert unsettled.settle(desk.conn, desk.terms, "wallet", "w-1", desk.now)
    assert not unsettled.settle(desk.conn, desk.terms, "wallet", "w-1", desk.now)
    assert desk.orders(account) == [("open", "queued")]


def test_a_payment_that_nobody_settles_protects_for_its_hours_only(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    unsettled.note(
        desk.conn, account, "wallet", "w-1", "pending", amount_micro=5, received_ms=desk.now
    )
    desk.read(account, "2026-03-01T02:00:00Z", 8_000)
    desk.tick("2026-03-02T00:59:59Z")
    assert desk.orders(account) == []
    desk.tick("2026-03-02T01:00:00Z")
    assert desk.orders(account) == [("open", "queued")]


def test_other_guards_are_another_row(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    number = holds.place(
        desk.conn, account, kind="medical", from_ms=desk.now, until_ms=None, who="a", reason="b",
        now_ms=desk.now,
    )  # fmt: skip
    desk.read(account, "2026-03-01T02:00:00Z", 8_000)
    unsettled.note(
        desk.conn, account, "wallet", "w-1", "pending", amount_micro=5, received_ms=desk.now
    )
    desk.read(account, "2026-03-01T03:00:00Z", 8_100)
    assert withheld(desk, account) == [
        ([f"hold:{number}"], "other_guards"),
        ([f"hold:{number}", "payment"], None),
    ]


def test_a_cut_too_near_a_window_waits_for_its_end(desk: Desk) -> None:
    account = desk.open(non_disconnection=FRIENDLY)
    desk.pay(account, 2, "2026-03-01T12:00:00Z")
    desk.read(account, "2026-03-01T19:44:01Z", 1_500)
    assert withheld(desk, account) == [(["window"], None)]
    desk.tick("2026-03-02T06:59:59Z")
    assert desk.orders(account) == []
    desk.tick("2026-03-02T07:00:00Z")
    assert desk.orders(account) == [("open", "queued")]


@pytest.mark.parametrize("minute", [40, 43, 44])
def test_an_order_is_over_a_clock_margin_before_the_window(desk: Desk, minute: int) -> None:
    account = desk.open(non_disconnection=FRIENDLY)
    desk.pay(account, 2, "2026-03-01T12:00:00Z")
    desk.read(account, f"2026-03-01T19:{minute}:00Z", 1_500)
    (order,) = supply.queued_commands(desk.conn, 10)
    assert format_instant(order.command.expires_ms) == "2026-03-01T19:45:00Z"


def test_supply_that_a_centre_arms_is_closed_by_the_button(desk: Desk) -> None:
    desk.set(reconnect="arm")
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 8_000, relay="closed")
    desk.sent()
    desk.read(account, "2026-03-01T02:15:00Z", 8_000, relay="open")
    desk.pay(account, 50, "2026-03-01T03:00:00Z")
    assert commands(desk, "arm") == ["queued"]
    assert desk.orders(account) == [("open", "superseded")]
    desk.sent()
    desk.read(account, "2026-03-01T03:05:00Z", 8_000, relay="armed")
    desk.turn("2026-03-01T04:00:00Z")
    clockwork.close_overdue(desk.conn, desk.now)
    clockwork.reconcile(desk.conn, desk.terms, desk.now, 10)
    # The customer has not pressed it yet: that is nobody's fault, and no supply.
    assert commands(desk, "arm") == ["unknown"]
    assert desk.took(account) == []
    desk.read(account, "2026-03-01T04:10:00Z", 8_000, relay="closed")
    assert desk.took(account) == [70 * 60]


@pytest.mark.parametrize(
    "changes",
    [
        {"reading_hours": -1},
        {"reading_hours": "2"},
        {"reconnect": "maybe"},
        {"brake_least": None},
        {"brake_minutes": True},
        {"colour": 1},
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(desk: Desk, changes: dict[str, object]) -> None:
    with pytest.raises(Conflict) as caught:
        centres.change(desk.conn, "north", changes, by="a", now_ms=desk.now)
    assert caught.value.code == "setting_refused"
    assert centres.settings_of_code(desk.conn, "north") == centres.CentreSettings()
    with pytest.raises(NotFound):
        centres.change(desk.conn, "south", {}, by="a", now_ms=desk.now)


@pytest.mark.parametrize("seed", [1, 3])
def test_no_meter_is_cut_in_a_window_whatever_the_clocks_and_the_way_do(
    desk: Desk, seed: int
) -> None:
    """Days of one account that is out of credit, with a meter whose clock is off, a broker that
    keeps commands, a gateway that rests, and a switch that somebody closes by hand.
    """
    chance = Random(seed)
    account = desk.open(desk.tariff(zone="UTC"), non_disconnection=FRIENDLY)
    off_ms = chance.randint(-15, 4) * MINUTE
    state = MeterState()
    meter = Meter(Nameplate(desk.meter(account), 0, 365 * 24 * 60 * MINUTE, 0), Nobody(), state)
    meter.power_up(desk.now + off_ms)
    waiting: list[tuple[int, bytes]] = []
    obeyed = 0
    for _ in range(120):
        desk.now += chance.randint(1, 30) * MINUTE
        if chance.random() < 0.7:
            clockwork.settle_due(desk.conn, desk.terms, desk.now, 10)
            clockwork.close_overdue(desk.conn, desk.now)
            clockwork.reconcile(desk.conn, desk.terms, desk.now, 10)
            for each in outbox.claim(desk.conn, desk.now, 10, outbox.USUAL_PACING):
                waiting.append((desk.now + chance.randint(0, 40) * MINUTE, payload(each.command)))
                supply.mark_sent(desk.conn, [each.command.cmd], desk.now)
        for due_ms, order in list(waiting):
            if due_ms <= desk.now:
                waiting.remove((due_ms, order))
                before = state.relay
                meter.receive(desk.now + off_ms, "cmd", order)
                if before == "closed" and state.relay == "open":
                    obeyed += 1
                    assert "07:00" <= desk.instant()[11:16] < "20:00"
        if chance.random() < 0.3:
            state.relay = "closed"
        at = format_instant(desk.now + off_ms)
        desk.say(account, desk.reading(at, 100, relay=state.relay), desk.instant())
    assert obeyed > 0
