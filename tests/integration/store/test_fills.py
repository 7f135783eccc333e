"""Late readings that fill a gap the short way, and those that must not go it."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from store import fills, ingest, registry, vending
from store.audit import audit
from store.lanes import Lanes
from tests.integration.store.conftest import TARIFF, receipts

MINUTE = 60_000
SLOT = 15 * MINUTE
OPENED = 1_772_323_200_000  # 2026-03-01T00:00:00Z
OPENING_WH = 100_000
# The meter says two slots, is away for four, and says the seventh.
GONE_FROM, BACK = 2, 7


@pytest.fixture
def general(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages of each batch went the general way."""
    counted: list[int] = []
    record = ingest.record_in_general

    def count(conn: Any, terms: Any, messages: Any, now_ms: int) -> Any:
        counted.append(len(messages))
        return record(conn, terms, messages, now_ms)

    monkeypatch.setattr(ingest, "record_in_general", count)
    return counted


@pytest.fixture
def back(utility: Any, general: list[int]) -> Any:
    """A supply whose meter is back, and has not said yet what it missed."""
    supply = utility.open()
    utility.top_up(supply, 50_000_000, "p", OPENED)
    for seq in (*range(1, GONE_FROM + 1), BACK):
        utility.slot(supply.meter, seq)
    general.clear()
    return supply


@pytest.fixture
def odd_names(utility: Any) -> int:
    """A tariff whose names hold what forms are made of."""
    tariff = deepcopy(TARIFF)
    version = tariff["tariff"]["versions"][0]
    version["bands"] = [version["bands"][-1] | {"name": '100 %d "\\1"'}]
    version["taxes"][0]["name"] = "vat %b"
    return registry.add_tariff(utility.conn, "odd", "Odd", tariff)


def books_are_right(utility: Any) -> None:
    assert [check.name for check in audit(utility.conn) if not check.passed] == []


def entries(utility: Any, supply: Any) -> list[tuple[str, int]]:
    """What stands in the ledger: keys with the slots that they begin and end at."""
    rows = utility.rows(
        "SELECT (from_ms - %s) / 900000 || '-' || (at_ms - %s) / 900000, sum(energy_wh)::bigint"
        " FROM ledger_transaction WHERE account_id = %s AND kind = 'energy'"
        " GROUP BY from_ms, at_ms HAVING sum(energy_wh) <> 0 ORDER BY at_ms",
        OPENED, OPENED, supply.id,
    )  # fmt: skip
    return list(rows)


def test_a_buffer_is_replayed_the_short_way_and_each_row_is_confirmed(
    utility: Any, back: Any, general: list[int]
) -> None:
    balance = utility.state(back).balance_micro
    for seq in range(GONE_FROM + 1, BACK):
        recorded = utility.slot(back.meter, seq, hist=True)
        assert (recorded.accepted, receipts(recorded)) == (1, [(1, seq)])
        assert utility.rows("SELECT after_seq FROM gap WHERE closed_at IS NULL") == (
            [seq] if seq < BACK - 1 else []
        )
    assert general == []
    assert utility.rows("SELECT reason FROM gap") == ["filled"]
    assert entries(utility, back) == [(f"{slot}-{slot + 1}", 10) for slot in range(BACK)]
    assert utility.state(back).balance_micro == balance
    # Nothing is missing any more: what asks for a receipt is plain again.
    assert receipts(utility.slot(back.meter, BACK + 1, rcpt=True)) == [(1, BACK + 1)]
    assert general == []
    assert utility.slot(back.meter, 4, hist=True).duplicate == 1
    books_are_right(utility)


def test_rows_of_one_batch_are_written_once(utility: Any, back: Any, general: list[int]) -> None:
    """Between them and what came meanwhile nothing is debited only to be reversed."""
    utility.now += SLOT
    said = [
        utility.reading(back.meter, OPENED + seq * SLOT, OPENING_WH + seq * 10, seq=seq)
        for seq in (3, BACK + 1, 4, 5)
    ]
    assert utility.record(*said).accepted == 4
    assert general == []
    reversed_ = utility.rows("SELECT energy_wh FROM ledger_posting WHERE corrects IS NOT NULL")
    assert reversed_ == [-50]
    assert [key for key, _ in entries(utility, back)][2:] == ["2-3", "3-4", "4-5", "5-7", "7-8"]
    books_are_right(utility)


def test_a_receipt_reaches_to_what_is_missing_before(
    utility: Any, back: Any, general: list[int]
) -> None:
    """Readings that the meter lost, and two gaps behind them."""
    utility.slot(back.meter, 5)
    utility.slot(back.meter, 10)
    general.clear()
    assert receipts(utility.slot(back.meter, 8, hist=True)) == [(1, GONE_FROM)]
    assert receipts(utility.slot(back.meter, 6, hist=True)) == [(1, GONE_FROM)]
    assert general == []
    assert utility.rows("SELECT after_seq FROM gap WHERE closed_at IS NULL ORDER BY 1") == [2, 8]
    books_are_right(utility)


def test_a_house_that_used_nothing_meanwhile(utility: Any, general: list[int]) -> None:
    """Parts without energy are not debited, and there may be none left to divide."""
    supply = utility.open()
    utility.top_up(supply, 50_000_000, "p", OPENED)
    for seq, wh in ((1, 10), (6, 50)):
        utility.now = OPENED + seq * SLOT
        utility.record(utility.reading(supply.meter, utility.now, OPENING_WH + wh, seq=seq))
    general.clear()
    for seq, wh in ((2, 10), (3, 50), (4, 50), (5, 50)):
        said = utility.reading(supply.meter, OPENED + seq * SLOT, OPENING_WH + wh, seq=seq)
        assert utility.record(said).accepted == 1
    assert general == []
    assert entries(utility, supply) == [("0-1", 10), ("2-3", 40)]
    books_are_right(utility)


def fill(utility: Any, supply: Any, seq: int = GONE_FROM + 1, **more: Any) -> Any:
    return utility.slot(supply.meter, seq, **more)


def too_much(utility: Any, supply: Any) -> None:
    """A reading between, refused beside the one before it, and right beside the late one."""
    at_ms = OPENED + 4 * SLOT
    wh = utility.rows("SELECT max(value_wh) FROM reading")[0] + 1
    utility.record(utility.reading(supply.meter, at_ms, wh, seq=4))


LEFT: dict[str, Callable[[Any, Any], object]] = {
    "money came in between": lambda utility, supply: utility.top_up(
        supply, 1_000_000, "q", OPENED + 4 * SLOT
    ),
    "emergency credit was asked for in between": lambda utility, supply: (
        vending.record_emergency_request(
            utility.conn, utility.terms, supply.id, OPENED + 4 * SLOT, utility.now
        )
    ),
    "a reading in between was refused": too_much,
    "the gap was given up": lambda utility, supply: utility.rows(
        "UPDATE gap SET closed_at = now(), reason = 'not_kept' RETURNING id"
    ),
    "its oldest rows are lost": lambda utility, supply: None,
}


@pytest.mark.parametrize("case", LEFT)
def test_what_is_left_to_the_general_way(
    utility: Any, back: Any, general: list[int], case: str
) -> None:
    LEFT[case](utility, back)
    general.clear()
    seq = 5 if case == "its oldest rows are lost" else GONE_FROM + 1
    assert fill(utility, back, seq).accepted == 1
    assert general == [1]
    books_are_right(utility)


def test_what_was_recorded_before_a_gap_since_its_debit_makes_that_stale(
    utility: Any, back: Any, general: list[int]
) -> None:
    """The counts that the debit says are those of before: its parts would be taxed by them."""
    at_ms = OPENED + SLOT + 1
    utility.top_up(back, 1_000_000, "q", at_ms)
    utility.record(utility.reading(back.meter, at_ms, OPENING_WH + 15, seq=10**6))
    general.clear()
    fill(utility, back)
    assert general == [1]
    books_are_right(utility)


@pytest.mark.parametrize("what", ["gap", "account"])
def test_what_changed_meanwhile_is_seen(
    utility: Any, back: Any, general: list[int], what: str
) -> None:
    """Another worker filled it, or the clockwork gave it up, after it was read."""
    fill(utility, back)
    assert general == []
    if what == "gap":
        utility.rows("UPDATE gap SET closed_at = now(), reason = 'no_answer' RETURNING id")
    else:
        mine, utility.lanes = utility.lanes, Lanes()
        fill(utility, back, 4)
        utility.lanes = mine
    general.clear()
    assert fill(utility, back, 5).accepted == 1
    assert general == ([1] if what == "gap" else [])
    for seq in (4, 6):
        fill(utility, back, seq)
    assert entries(utility, back) == [(f"{slot}-{slot + 1}", 10) for slot in range(BACK)]
    books_are_right(utility)


def test_a_batch_that_was_rolled_back_is_read_anew(
    utility: Any, back: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = fills.Filling.write

    def fail(self: Any, *of: Any) -> None:
        write(self, *of)
        monkeypatch.setattr(fills.Filling, "write", write)
        raise ConnectionError("the server went away")

    monkeypatch.setattr(fills.Filling, "write", fail)
    with pytest.raises(ConnectionError):
        fill(utility, back)
    assert fill(utility, back).accepted == 1
    assert utility.rows("SELECT after_seq FROM gap") == [GONE_FROM + 1]
    books_are_right(utility)


def test_names_that_read_like_forms_are_names(
    utility: Any, general: list[int], odd_names: int
) -> None:
    supply = utility.open(tariff=odd_names)
    utility.top_up(supply, 50_000_000, "p", OPENED)
    for seq in (1, 2, 5):
        utility.slot(supply.meter, seq)
    general.clear()
    for seq in (3, 4):
        fill(utility, supply, seq)
    assert general == []
    (said,) = utility.rows(
        "SELECT explanation FROM ledger_transaction WHERE at_ms = %s", OPENED + 4 * SLOT
    )
    assert (said["band"], said["taxes"][0]["name"]) == ('100 %d "\\1"', "vat %b")
    assert said["segment"] == {"from_ms": OPENED + 3 * SLOT, "to_ms": OPENED + 4 * SLOT}
    books_are_right(utility)
