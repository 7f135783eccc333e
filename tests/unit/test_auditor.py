from datetime import timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from schemas.commands import encode
from simulators.auditor import Journal, SimpleTariff, expected_balance_micro

NUMBER = "37000000017"
DAY = 86_400_000
JAN_31 = 1_769_817_600_000  # 2026-01-31T00:00:00Z
FLAT = SimpleTariff([(None, 5)])
EAST = timezone(timedelta(hours=1))
PARIS = ZoneInfo("Europe/Paris")
BLOCKS = SimpleTariff([(100, 1), (300, 2), (None, 3)])


@pytest.mark.parametrize(
    ("wh", "micro"), [(0, 0), (100, 100), (101, 102), (300, 500), (301, 503), (1000, 2600)]
)
def test_each_wh_costs_what_its_block_says(wh: int, micro: int) -> None:
    assert BLOCKS.price_micro(wh) == micro


@pytest.mark.parametrize(
    ("tariff", "curve", "until", "left"),
    [
        (FLAT, [], JAN_31 + DAY, 10_000),
        (FLAT, [(JAN_31 + 1, 100)], JAN_31 + DAY, 9_500),
        # A reading that has not come yet charges nothing.
        (FLAT, [(JAN_31 + 2 * DAY, 100)], JAN_31 + DAY, 10_000),
        # Readings before the opening are not the account's.
        (FLAT, [(JAN_31 - 1, 999)], JAN_31 + DAY, 10_000),
        # 200 Wh over two days: 100 in January, 100 in February, each in the first block.
        (BLOCKS, [(JAN_31 + 2 * DAY, 200)], JAN_31 + 2 * DAY, 9_800),
        # 201 Wh: the odd one falls after midnight, floor(201 / 2) = 100 before it.
        (BLOCKS, [(JAN_31 + 2 * DAY, 201)], JAN_31 + 2 * DAY, 10_000 - 100 - 102),
        # One month, several readings: the block is crossed once.
        (BLOCKS, [(JAN_31 + 1000, 60), (JAN_31 + 2000, 120)], JAN_31 + DAY - 1, 10_000 - 140),
        # Two midnights.
        (SimpleTariff([(None, 0)], 7), [], JAN_31 + 2 * DAY, 10_000 - 14),
        (SimpleTariff([(None, 0)], 7), [], JAN_31 + 2 * DAY - 1, 10_000 - 7),
        # One hour east, the first midnight is an hour earlier.
        (SimpleTariff([(None, 0)], 7, EAST), [], JAN_31 + 23 * 3_600_000, 10_000 - 7),
    ],
)
def test_balances_of_simple_tariffs(
    tariff: SimpleTariff, curve: list[tuple[int, int]], until: int, left: int
) -> None:
    top_ups = {JAN_31: 10_000, until + 1: 777}
    assert expected_balance_micro(tariff, (JAN_31, 0), curve, top_ups, until) == left


def reading(seq: int, wh: int) -> bytes:
    ts = f"2026-01-31T00:00:0{seq}Z"
    return encode({"v": 1, "boot": 1, "seq": seq, "ts": ts, "reg": {"1.8.0": wh}})


def test_a_journal_counts_each_reading_once_however_often_it_was_sent() -> None:
    journal = Journal()
    journal.note(NUMBER, "reading", reading(2, 7))
    journal.note(NUMBER, "reading", b"[" + reading(1, 5) + b"," + reading(2, 7) + b"]")
    journal.note(NUMBER, "hello", b"{}")
    assert journal.curve(NUMBER) == [(JAN_31 + 1000, 5), (JAN_31 + 2000, 7)]
    assert journal.expected() == {
        (NUMBER, "1.8.0", JAN_31 + 1000): 5,
        (NUMBER, "1.8.0", JAN_31 + 2000): 7,
    }


def test_a_journal_does_not_accept_two_values_for_one_instant() -> None:
    journal = Journal()
    journal.note(NUMBER, "reading", reading(1, 5))
    with pytest.raises(AssertionError):
        journal.note(NUMBER, "reading", reading(1, 6))


def test_a_day_of_25_hours_is_one_day() -> None:
    eve = 1_792_879_200_000  # 2026-10-25T00:00 in Paris
    tariff = SimpleTariff([(None, 0)], 7, PARIS)
    assert tariff.midnights(eve, eve + 24 * 3_600_000) == 0
    assert tariff.midnights(eve, eve + 25 * 3_600_000) == 1
