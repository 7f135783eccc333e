"""Laws of the days left."""

from hypothesis import given
from hypothesis import strategies as st

from credit_engine.forecast import (
    LONGEST_DAYS,
    MIN_DAYS,
    DaysLeft,
    days_left,
    expected_cost_micro,
    quantile,
)

COSTS = st.lists(st.integers(0, 10**12), min_size=MIN_DAYS, max_size=14)
BALANCES = st.integers(-(10**15), 10**15)


@given(BALANCES, COSTS)
def test_low_likely_and_high_are_in_order_and_bounded(balance: int, costs: list[int]) -> None:
    found = days_left(balance, costs)
    if isinstance(found, DaysLeft):
        assert 0 <= found.low <= found.likely <= found.high <= LONGEST_DAYS
    else:
        assert found == "no_use"
        assert sorted(costs)[(len(costs) - 1) // 2] == 0


@given(BALANCES, COSTS, st.randoms(use_true_random=False))
def test_the_order_of_days_is_no_matter(balance: int, costs: list[int], chance: object) -> None:
    shuffled = list(costs)
    chance.shuffle(shuffled)  # type: ignore[attr-defined] # hypothesis gives a random.Random
    assert days_left(balance, shuffled) == days_left(balance, costs)


@given(st.integers(0, 10**12), st.integers(1, 10**9), st.integers(MIN_DAYS, 14))
def test_days_that_cost_the_same_leave_no_doubt(balance: int, cost: int, days: int) -> None:
    whole = min(balance // cost, LONGEST_DAYS)
    assert days_left(balance, [cost] * days) == DaysLeft(whole, whole, whole)


@given(st.integers(0, 10**12), COSTS, st.integers(0, 10**12))
def test_more_money_never_lasts_less(balance: int, costs: list[int], more: int) -> None:
    before, after = days_left(balance, costs), days_left(balance + more, costs)
    if isinstance(before, DaysLeft) and isinstance(after, DaysLeft):
        assert before.low <= after.low
        assert before.likely <= after.likely
        assert before.high <= after.high
    else:
        assert before == after


@given(BALANCES, st.lists(st.integers(0, 10**12), max_size=MIN_DAYS - 1))
def test_under_three_days_nothing_is_guessed(balance: int, costs: list[int]) -> None:
    assert days_left(balance, costs) == "too_few_days"


@given(st.lists(st.integers(), min_size=1), st.integers(1, 10))
def test_a_quantile_is_the_smallest_value_that_enough_do_not_exceed(
    values: list[int], tenths: int
) -> None:
    found = quantile(values, tenths, 10)
    assert found in values
    assert sum(value <= found for value in values) * 10 >= len(values) * tenths
    assert sum(value < found for value in values) * 10 < len(values) * tenths


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 10**9)), min_size=MIN_DAYS, max_size=14)
)
def test_days_ahead_cost_what_their_weekdays_cost(spent: list[tuple[int, int]]) -> None:
    costs = [micro for _, micro in spent]
    each = [expected_cost_micro(spent, [weekday]) for weekday in range(7)]
    week = expected_cost_micro(spent, list(range(7)))
    assert week == sum(micro for micro in each if micro is not None)
    for weekday, micro in enumerate(each):
        same = [cost for day, cost in spent if day == weekday]
        assert micro in (same if len(same) > 1 else costs)


def test_a_dear_weekend_is_seen_before_it_comes() -> None:
    # Two weeks from a Monday on: 10 a working day, 40 on Saturdays and Sundays.
    spent = [(day % 7, 40 if day % 7 > 4 else 10) for day in range(14)]
    assert expected_cost_micro(spent, [0, 1, 2]) == 30
    assert expected_cost_micro(spent, [4, 5, 6]) == 90
    assert expected_cost_micro(spent[:2], [0]) is None
