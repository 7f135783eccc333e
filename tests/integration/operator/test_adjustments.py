"""An adjustment moves the balance once, with a reason, and a large one by two people."""

from typing import Any

import pytest

from credit_engine.terms import Installation
from schemas.quantities import parse_instant_ms
from store import adjustments, books, reads, registry
from store.adjustments import CarriedOver
from store.errors import Conflict, NotFound
from store.registry import NewMeter

Desk = Any
MRU = 10**6


def enter(desk: Desk, account: int, amount: int, number: str = "c1", **more: Any) -> str:
    given = {"reason": "meter ran backwards", "who": "desk.1"} | more
    return adjustments.enter(
        desk.conn,
        desk.terms,
        adjustment=number,
        account_id=account,
        amount_micro=amount,
        now_ms=desk.now,
        **given,
    )


def approve(desk: Desk, number: str, who: str) -> bool:
    return adjustments.approve(desk.conn, desk.terms, number, who=who, now_ms=desk.now)


def test_an_adjustment_is_an_entry_with_its_reason_and_restores_supply(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 8_000)
    assert enter(desk, account, 26 * MRU) == "posted"
    entry = reads.entries(desk.conn, account, before_id=None, limit=1)[0]
    assert (entry.kind, entry.amount_micro, entry.balance_micro) == (
        "adjustment", 26 * MRU, 20 * MRU,
    )  # fmt: skip
    opened = reads.entry(desk.conn, account, entry.id)
    assert opened.explanation["reason"] == "meter ran backwards"
    assert dict(opened.legs) == {"customer": 26 * MRU, "adjustment": -26 * MRU}
    assert desk.decided(account)[-1] == ("connected", "2026-03-01T02:00:00Z", "adjustment:c1")
    assert [to for to, _ in desk.orders(account)] == ["open", "close"]


def test_a_debit_takes_no_debt_and_may_cut(desk: Desk) -> None:
    account = desk.open(
        debt={"outstanding": "100", "rules": [{"kind": "payment_share", "percent": "50"}]}
    )
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    assert enter(desk, account, 3 * MRU) == "posted"
    assert desk.state(account).debt_micro == 95 * MRU
    desk.read(account, "2026-03-01T02:00:00Z", 0)
    assert enter(desk, account, -8 * MRU, "c2") == "posted"
    assert (desk.state(account).balance_micro, desk.state(account).supply) == (0, "disconnected")


def test_the_same_adjustment_again_is_one_and_another_content_is_refused(desk: Desk) -> None:
    account = desk.open()
    assert [enter(desk, account, 5 * MRU) for _ in range(3)] == ["posted"] * 3
    assert desk.state(account).balance_micro == 5 * MRU
    with pytest.raises(Conflict) as caught:
        enter(desk, account, 6 * MRU)
    assert caught.value.code == "idempotency_conflict"


def test_a_large_one_is_a_fact_only_once_a_second_person_says_so(desk: Desk) -> None:
    account = desk.open()
    assert enter(desk, account, -501 * MRU) == "requested"
    assert enter(desk, account, -501 * MRU) == "requested"
    assert desk.state(account).balance_micro == 0
    with pytest.raises(Conflict) as caught:
        approve(desk, "c1", "desk.1")
    assert caught.value.code == "second_person_needed"
    desk.turn("2026-03-02T10:00:00Z")
    assert approve(desk, "c1", "supervisor.1")
    assert not approve(desk, "c1", "supervisor.1")
    assert desk.state(account).balance_micro == -501 * MRU
    assert adjustments.by_id(desk.conn, "c1").adjusted_ms == desk.now


def test_a_refused_one_never_posts_and_a_posted_one_is_mended_by_another(desk: Desk) -> None:
    account = desk.open()
    enter(desk, account, 900 * MRU)
    with pytest.raises(Conflict, match="another person"):
        adjustments.refuse(desk.conn, desk.terms, "c1", who="desk.1", now_ms=desk.now)
    assert adjustments.refuse(desk.conn, desk.terms, "c1", who="boss", now_ms=desk.now)
    assert not adjustments.refuse(desk.conn, desk.terms, "c1", who="boss", now_ms=desk.now)
    with pytest.raises(Conflict) as caught:
        approve(desk, "c1", "boss")
    assert caught.value.code == "adjustment_refused"
    enter(desk, account, 1 * MRU, "c2")
    with pytest.raises(Conflict) as caught:
        adjustments.refuse(desk.conn, desk.terms, "c2", who="boss", now_ms=desk.now)
    assert caught.value.code == "adjustment_posted"
    assert desk.state(account).balance_micro == MRU


@pytest.mark.parametrize(("amount", "more"), [(0, {}), (1, {"reason": " "}), (1, {"who": ""})])
def test_an_adjustment_of_nothing_for_nothing_or_by_nobody_is_refused(
    desk: Desk, amount: int, more: dict[str, str]
) -> None:
    with pytest.raises(Conflict) as caught:
        enter(desk, desk.open(), amount, **more)
    assert caught.value.code == "adjustment_refused"


def test_what_is_not_there_cannot_be_adjusted_or_approved(desk: Desk) -> None:
    account = desk.open()
    with pytest.raises(NotFound):
        enter(desk, account + 1, 1)
    with pytest.raises(NotFound):
        approve(desk, "none", "boss")


def test_a_late_reading_before_an_adjustment_is_rated_around_it(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 100, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T04:00:00Z", 8_000)
    enter(desk, account, 7 * MRU)
    desk.read(account, "2026-03-01T08:00:00Z", 9_000)
    desk.read(account, "2026-03-01T03:00:00Z", 7_000)
    assert desk.state(account).balance_micro == (100 - 18 + 7) * MRU
    whole = books.outcome_at(desk.conn, desk.terms, account, desk.now, from_genesis=True)
    assert whole.status.balance_micro == desk.state(account).balance_micro
    assert enter(desk, account, 7 * MRU) == "posted"


def converted(desk: Desk, carried: CarriedOver | None, **terms: Any) -> int:
    registry.add_meter(desk.conn, desk.centre, NewMeter("77000000001"))
    opened = parse_instant_ms("2026-03-01T00:00:00Z")
    return registry.open_account(
        desk.conn,
        number="C-1",
        customer=registry.add_customer(desk.conn, "Sidi", opened),
        centre=desk.centre,
        tariff=desk.tariff(),
        terms={"activated_at": "2026-03-01T00:00:00Z", **terms},
        installation=Installation("77000000001", 10**9, opened, 0),
        now_ms=desk.now,
        carried_over=carried,
    )


def test_a_conversion_carries_credit_over_and_is_connected(desk: Desk) -> None:
    account = converted(desk, CarriedOver(120 * MRU, "desk.1"))
    assert (desk.state(account).balance_micro, desk.state(account).supply) == (
        120 * MRU, "connected",
    )  # fmt: skip
    assert desk.decided(account)[-1][2] == "adjustment:carried-over-C-1"


def test_a_conversion_carries_debt_over_as_debt(desk: Desk) -> None:
    rules = [{"kind": "payment_share", "percent": "20"}]
    account = converted(desk, None, debt={"outstanding": "300", "rules": rules})
    desk.pay(account, 100, "2026-03-01T01:00:00Z")
    state = desk.state(account)
    assert (state.balance_micro, state.debt_micro) == (80 * MRU, 280 * MRU)


@pytest.mark.parametrize(
    ("carried", "code"),
    [
        (CarriedOver(-5, "desk.1"), "adjustment_refused"),
        (CarriedOver(0, "desk.1"), "adjustment_refused"),
        (CarriedOver(501 * MRU, "desk.1"), "second_person_needed"),
        (CarriedOver(501 * MRU, "desk.1", "desk.1"), "second_person_needed"),
    ],
)
def test_a_conversion_that_one_person_may_not_make_opens_nothing(
    desk: Desk, carried: CarriedOver, code: str
) -> None:
    with pytest.raises(Conflict) as caught:
        converted(desk, carried)
    assert caught.value.code == code
    assert reads.accounts(desk.conn, None, after_id=None, limit=5) == []
