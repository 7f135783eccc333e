"""A price changes from a local date on, by two people, and never what is past."""

from datetime import date
from typing import Any

import pytest

from credit_engine.errors import CreditError
from store import registry, tariffs
from store.errors import Conflict, NotFound

Desk = Any
MRU = 10**6


def form(price: str, valid_from: str, standing: str = "0") -> dict[str, Any]:
    return {
        "valid_from": valid_from,
        "period": "month",
        "bands": [{"name": "all", "method": "graduated", "blocks": [{"price": price}]}],
        "standing_per_day": standing,
    }


def code_of(desk: Desk, tariff: int) -> str:
    return str(desk.conn.execute("SELECT code FROM tariff WHERE id = %s", (tariff,)).fetchone()[0])


def draft(desk: Desk, tariff: int, version: Any, who: str = "desk.1") -> int:
    code = code_of(desk, tariff)
    return tariffs.draft(
        desk.conn, code, version, note="regulator's order 7", who=who, now_ms=desk.now
    )


def approve(desk: Desk, number: int, who: str = "boss") -> bool:
    return tariffs.approve(desk.conn, number, who=who, now_ms=desk.now)


def test_an_approved_version_prices_from_its_local_midnight_on(desk: Desk) -> None:
    tariff = desk.tariff(zone="Asia/Kathmandu")
    account = desk.open(tariff)
    desk.pay(account, 100, "2026-03-01T01:00:00Z")
    assert approve(desk, draft(desk, tariff, form("3", "2026-03-02", standing="1")))
    # Midnight of 2 March in Kathmandu is 18:15 UTC of the 1st: half of this interval.
    desk.read(account, "2026-03-01T16:15:00Z", 1_000)
    desk.read(account, "2026-03-01T20:15:00Z", 3_000)
    assert desk.state(account).balance_micro == (100 - 2 - 2 - 1 - 3) * MRU


def test_a_draft_changes_nothing_until_another_person_approves(desk: Desk) -> None:
    tariff = desk.tariff()
    account = desk.open(tariff)
    desk.pay(account, 100, "2026-03-01T01:00:00Z")
    number = draft(desk, tariff, form("9", "2026-03-02"))
    with pytest.raises(Conflict) as caught:
        approve(desk, number, who="desk.1")
    assert caught.value.code == "second_person_needed"
    desk.read(account, "2026-03-03T00:00:00Z", 4_000)
    assert desk.state(account).balance_micro == 92 * MRU


def test_a_version_whose_date_came_while_it_waited_is_refused(desk: Desk) -> None:
    tariff = desk.tariff()
    desk.open(tariff)
    number = draft(desk, tariff, form("9", "2026-03-02"))
    desk.turn("2026-03-02T00:00:00Z")
    with pytest.raises(Conflict) as caught:
        approve(desk, number)
    assert caught.value.code == "version_in_past"
    assert tariffs.withdraw(desk.conn, number, who="desk.1", now_ms=desk.now)
    with pytest.raises(Conflict) as caught:
        approve(desk, number)
    assert caught.value.code == "draft_withdrawn"


def test_a_tariff_that_prices_nobody_may_begin_in_the_past(desk: Desk) -> None:
    tariff = desk.tariff()
    assert approve(desk, draft(desk, tariff, form("9", "2026-02-01")))
    account = desk.open(tariff)
    desk.pay(account, 100, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 1_000)
    assert desk.state(account).balance_micro == 91 * MRU
    with pytest.raises(Conflict) as caught:
        draft(desk, tariff, form("5", "2026-03-01"))
    assert caught.value.code == "version_in_past"


def test_approving_and_withdrawing_twice_is_once_and_a_version_stays(desk: Desk) -> None:
    tariff = desk.tariff()
    number = draft(desk, tariff, form("9", "2026-03-02"))
    assert [approve(desk, number), approve(desk, number)] == [True, False]
    with pytest.raises(Conflict) as caught:
        tariffs.withdraw(desk.conn, number, who="boss", now_ms=desk.now)
    assert caught.value.code == "draft_approved"
    other = draft(desk, tariff, form("9", "2026-04-02"))
    said = [tariffs.withdraw(desk.conn, other, who="desk.1", now_ms=desk.now) for _ in range(2)]
    assert said == [True, False]


def test_two_drafts_of_one_date_are_one_version(desk: Desk) -> None:
    tariff = desk.tariff()
    first, second = (draft(desk, tariff, form(price, "2026-03-02")) for price in ("3", "4"))
    assert approve(desk, first)
    with pytest.raises(CreditError, match="two versions begin on one day"):
        approve(desk, second)


@pytest.mark.parametrize(
    ("version", "note", "who", "error"),
    [
        (form("2.4591", "2026-03-02"), "n", "w", CreditError),
        ({"valid_from": "2026-03-02"}, "n", "w", CreditError),
        (form("1", "2026-13-02"), "n", "w", CreditError),
        (form("1", "2026-03-02"), " ", "w", Conflict),
        (form("1", "2026-03-02"), "n", "", Conflict),
    ],
)
def test_a_draft_that_the_engine_or_the_rules_refuse_is_not_kept(
    desk: Desk, version: Any, note: str, who: str, error: type[Exception]
) -> None:
    code = code_of(desk, desk.tariff())
    with pytest.raises(error):
        tariffs.draft(desk.conn, code, version, note=note, who=who, now_ms=desk.now)
    assert desk.conn.execute("SELECT count(*) FROM tariff_draft").fetchone() == (0,)
    with pytest.raises(NotFound):
        tariffs.draft(desk.conn, "none", version, note="n", who="w", now_ms=desk.now)
    with pytest.raises(NotFound):
        approve(desk, 1)


def assign(desk: Desk, account: int, tariff: int, day: str) -> bool:
    return tariffs.assign(
        desk.conn,
        account,
        code_of(desk, tariff),
        date.fromisoformat(day),
        who="desk.1",
        reason="moved to the social tariff",
        now_ms=desk.now,
    )


def test_an_assignment_prices_from_its_date_on_and_not_before(desk: Desk) -> None:
    account = desk.open(desk.tariff(price="2"))
    social = desk.tariff(price="1", standing="3")
    desk.pay(account, 100, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T12:00:00Z", 1_000)
    assert [assign(desk, account, social, "2026-03-02") for _ in range(2)] == [True, False]
    # Half of this day's energy at the old price, then the standing charge, then the new price.
    desk.read(account, "2026-03-02T12:00:00Z", 5_000)
    assert desk.state(account).balance_micro == (100 - 2 - 4 - 3 - 2) * MRU
    # A reading from before the date is still priced by the tariff of its own time.
    desk.read(account, "2026-03-01T18:00:00Z", 4_000)
    assert desk.state(account).balance_micro == 100 * MRU - (8 * MRU + 333 * 2_000) - 3 * MRU - (
        667 * 1_000
    )


def test_versions_of_an_assigned_tariff_come_into_force_for_the_account(desk: Desk) -> None:
    account = desk.open(desk.tariff(price="2"))
    other = desk.tariff(price="1")
    desk.pay(account, 100, "2026-03-01T01:00:00Z")
    assign(desk, account, other, "2026-03-02")
    assert approve(desk, draft(desk, other, form("5", "2026-03-03")))
    desk.read(account, "2026-03-04T00:00:00Z", 3_000)
    assert desk.state(account).balance_micro == (100 - 2 - 1 - 5) * MRU


def test_back_to_the_first_tariff_is_one_more_assignment(desk: Desk) -> None:
    first, other = desk.tariff(price="2"), desk.tariff(price="1")
    account = desk.open(first)
    desk.pay(account, 100, "2026-03-01T01:00:00Z")
    assign(desk, account, other, "2026-03-02")
    assign(desk, account, first, "2026-03-03")
    desk.read(account, "2026-03-04T00:00:00Z", 3_000)
    assert desk.state(account).balance_micro == (100 - 2 - 1 - 2) * MRU


def test_assignments_that_cannot_be_are_refused_with_the_reason(desk: Desk) -> None:
    account = desk.open(desk.tariff())
    other, far = desk.tariff(), desk.tariff(zone="Europe/Paris")
    late = registry.add_tariff(
        desk.conn,
        "late",
        "Late",
        {
            "timezone": "Africa/Nouakchott",
            "currency": "MRU",
            "tariff": {"versions": [form("1", "2027-01-01")]},
        },
    )
    for tariff, day, code in (
        (other, "2026-03-01", "assignment_in_past"),
        (far, "2026-03-05", "tariff_incompatible"),
        (late, "2026-03-05", "bad_input"),
    ):
        with pytest.raises((Conflict, CreditError)) as caught:
            assign(desk, account, tariff, day)
        assert caught.value.code == code
    assign(desk, account, other, "2026-03-05")
    with pytest.raises(Conflict) as caught:
        assign(desk, account, desk.tariff(), "2026-03-05")
    assert caught.value.code == "assignment_conflict"
    with pytest.raises(NotFound):
        assign(desk, account + 1, other, "2026-03-06")
    with pytest.raises(Conflict, match="why"):
        tariffs.assign(
            desk.conn, account, code_of(desk, other), date(2026, 3, 9), who="x", reason="",
            now_ms=desk.now,
        )  # fmt: skip
