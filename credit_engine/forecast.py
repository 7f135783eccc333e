"""How many days a balance lasts, from what the last days cost. Integers only.

Robust on purpose: a day of guests or a day away moves the range, not the middle of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# Below this a forecast would be a guess.
MIN_DAYS = 3
# Two weeks hold each weekday twice and follow the season.
WINDOW_DAYS = 14
# Further than this nobody plans, and the past says nothing.
LONGEST_DAYS = 365

# A weekday is told from the others by its own days from this many on.
MIN_SAME_WEEKDAY = 2

Reason = Literal["too_few_days", "no_use"]


@dataclass(frozen=True, slots=True)
class DaysLeft:
    """Whole days until the balance is used up: `low` if days are dear, `high` if they are cheap."""

    low: int
    likely: int
    high: int


def quantile(values: Sequence[int], numerator: int, denominator: int) -> int:
    """The smallest of `values` that at least that part of them does not exceed."""
    ordered = sorted(values)
    rank = -(-len(ordered) * numerator // denominator)
    return ordered[max(rank, 1) - 1]


def days_left(balance_micro: int, daily_costs_micro: Sequence[int]) -> DaysLeft | Reason:
    """`daily_costs_micro`: what each of the last whole days cost, zero for a day without cost.

    `too_few_days` under three days, `no_use` where the usual day costs nothing.
    """
    if len(daily_costs_micro) < MIN_DAYS:
        return "too_few_days"
    dear, usual, cheap = (quantile(daily_costs_micro, part, 10) for part in (8, 5, 2))
    if usual <= 0:
        return "no_use"
    balance = max(balance_micro, 0)
    return DaysLeft(
        low=min(balance // dear, LONGEST_DAYS),
        likely=min(balance // usual, LONGEST_DAYS),
        high=min(balance // cheap, LONGEST_DAYS) if cheap > 0 else LONGEST_DAYS,
    )


def expected_cost_micro(costs: Sequence[tuple[int, int]], weekdays: Sequence[int]) -> int | None:
    """What coming days are expected to cost together: each as the middle of its weekday's days.

    `costs`: (weekday, µ) of each of the last whole days, zero for a day without cost; `weekdays`:
    of the coming days; Monday is 0. None under three days.
    """
    if len(costs) < MIN_DAYS:
        return None
    usual = quantile([micro for _, micro in costs], 1, 2)
    total = 0
    for weekday in weekdays:
        same = [micro for each, micro in costs if each == weekday]
        total += quantile(same, 1, 2) if len(same) >= MIN_SAME_WEEKDAY else usual
    return max(total, 0)
