"""What a version would have cost, by hand and against accounts that really had it."""

from collections.abc import Callable
from datetime import date
from typing import Any

import psycopg
import pytest

from credit_engine.errors import CreditError
from store import tariffs
from store.errors import Conflict, NotFound
from store.impact import Impact, prepare, simulate

Desk = Any
MRU = 10**6


def form(price: str, standing: str = "0", **more: Any) -> dict[str, Any]:
    return {
        "valid_from": "2026-03-02",
        "period": "month",
        "bands": [{"name": "all", "method": "graduated", "blocks": [{"price": price}]}],
        "standing_per_day": standing,
        **more,
    }


def code_of(desk: Desk, tariff: int) -> str:
    return str(desk.conn.execute("SELECT code FROM tariff WHERE id = %s", (tariff,)).fetchone()[0])


def impact(desk: Desk, tariff: int, version: Any, first: str, last: str) -> list[Impact]:
    found = prepare(
        desk.conn,
        code_of(desk, tariff),
        version,
        date.fromisoformat(first),
        date.fromisoformat(last),
        desk.now,
    )
    return list(simulate(desk.conn, found))


def consume(desk: Desk, account: int) -> None:
    desk.pay(account, 500, "2026-03-01T01:00:00Z")
    for hour, register in ((6, 900), (30, 4_100), (47, 6_000), (61, 9_500), (90, 14_000)):
        day, clock = divmod(hour, 24)
        desk.read(account, f"2026-03-{day + 1:02}T{clock:02}:00:00Z", register)
    desk.tick("2026-03-06T00:00:01Z")


def test_the_difference_is_what_it_is_by_hand_and_nothing_is_written(desk: Desk) -> None:
    tariff = desk.tariff(price="2", standing="1")
    account = desk.open(tariff)
    desk.pay(account, 100, "2026-03-01T01:00:00Z")
    # 1000 Wh on the 1st, 2400 on the 2nd (half of the last interval is the 3rd's).
    desk.read(account, "2026-03-02T00:00:00Z", 1_000)
    desk.read(account, "2026-03-02T20:00:00Z", 3_000)
    desk.read(account, "2026-03-03T04:00:00Z", 3_800)
    tax = {"name": "vat", "percent": "10", "on": ["energy"], "included": False}
    before = desk.conn.execute("SELECT count(*), max(id) FROM ledger_transaction").fetchone()
    found = impact(desk, tariff, form("3", "2", taxes=[tax]), "2026-03-02", "2026-03-03")
    assert found == [
        Impact(desk.number(account), 2_400, 4_800_000 + MRU, 7_200_000 + 720_000 + 2 * MRU)
    ]
    after = desk.conn.execute("SELECT count(*), max(id) FROM ledger_transaction").fetchone()
    assert after == before


def test_what_is_simulated_is_what_an_account_on_that_version_was_charged(desk: Desk) -> None:
    blocks = [{"up_to_kwh": "3", "price": "1.5"}, {"price": "4.25"}]
    version = form("1", "0.75")
    version["bands"][0]["blocks"] = blocks
    old, new = desk.tariff(standing="1"), desk.tariff(standing="1")
    drafted = tariffs.draft(
        desk.conn, code_of(desk, new), version, note="n", who="a", now_ms=desk.now
    )
    tariffs.approve(desk.conn, drafted, who="b", now_ms=desk.now)
    simulated, real = desk.open(old), desk.open(new)
    for account in (simulated, real):
        consume(desk, account)
    (found,) = impact(desk, old, version, "2026-03-02", "2026-03-05")
    (same,) = impact(desk, new, version, "2026-03-02", "2026-03-05")
    assert found.new_micro == same.old_micro == same.new_micro
    assert found.energy_wh == same.energy_wh
    assert found.old_micro != found.new_micro


def test_the_same_version_costs_the_same_for_every_account(desk: Desk) -> None:
    tariff = desk.tariff(price="2", standing="1")
    for _ in range(3):
        consume(desk, desk.open(tariff))
    found = impact(desk, tariff, form("2", "1"), "2026-03-02", "2026-03-06")
    assert len(found) == 3
    assert {one.difference_micro for one in found} == {0}
    # 3300 Wh were used by the first midnight: 900, and 18 of 24 hours of the 3200 after it.
    assert found[0].old_micro == 10_700 * 2_000 + 4 * MRU


def test_accounts_are_those_that_the_tariff_priced_when_the_window_began(desk: Desk) -> None:
    first, other = desk.tariff(), desk.tariff(price="5")
    stays, moves = desk.open(first), desk.open(first)
    tariffs.assign(
        desk.conn, moves, code_of(desk, other), date(2026, 3, 2), who="a", reason="r",
        now_ms=desk.now,
    )  # fmt: skip
    for account in (stays, moves):
        consume(desk, account)

    def numbers(tariff: int, first_day: str) -> list[str]:
        return [one.account for one in impact(desk, tariff, form("1"), first_day, "2026-03-05")]

    assert numbers(first, "2026-03-01") == [desk.number(stays), desk.number(moves)]
    assert numbers(first, "2026-03-02") == [desk.number(stays)]
    assert numbers(other, "2026-03-03") == [desk.number(moves)]


def test_a_window_whose_readings_were_dropped_is_refused_not_guessed(
    desk: Desk, as_owner: Callable[[str], str]
) -> None:
    tariff = desk.tariff()
    consume(desk, desk.open(tariff))
    with psycopg.connect(as_owner(desk.url), autocommit=True) as owner:
        owner.execute("DELETE FROM reading WHERE ts < '2026-03-03'")
    with pytest.raises(Conflict) as caught:
        impact(desk, tariff, form("1"), "2026-03-02", "2026-03-05")
    assert caught.value.code == "readings_missing"


def test_windows_and_versions_that_cannot_be_are_refused(desk: Desk) -> None:
    tariff = desk.tariff()
    for first, last in (("2026-03-02", "2026-03-02"), ("2026-02-01", "2026-03-02")):
        with pytest.raises(Conflict) as caught:
            impact(desk, tariff, form("1"), first, last)
        assert caught.value.code == "window_refused"
    with pytest.raises(CreditError):
        impact(desk, tariff, form("1.2345"), "2026-02-01", "2026-03-01")
    with pytest.raises(NotFound):
        prepare(desk.conn, "none", form("1"), date(2026, 2, 1), date(2026, 3, 1), desk.now)
