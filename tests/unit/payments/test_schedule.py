"""When a channel is asked again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments.schedule import GIVEN_UP_MS, MINUTE_MS, next_check_ms


def test_the_first_checks_are_those_of_the_domain() -> None:
    at, asked = 0, []
    for _ in range(5):
        wait = next_check_ms(at)
        assert wait is not None
        at += wait
        asked.append(at // 1000)
    assert asked == [5, 15, 30, 60, 120]


def test_after_a_day_nobody_asks_any_more() -> None:
    at, checks = 0, 0
    while (wait := next_check_ms(at)) is not None:
        at += wait
        checks += 1
    assert GIVEN_UP_MS <= at < GIVEN_UP_MS + 15 * MINUTE_MS
    # A day of a payment that nobody knows costs the channel so many questions.
    assert checks == 127


@given(st.integers(min_value=0, max_value=2 * GIVEN_UP_MS))
def test_the_wait_is_never_nothing_and_never_shorter_than_before(age_ms: int) -> None:
    wait = next_check_ms(age_ms)
    if wait is None:
        assert age_ms >= GIVEN_UP_MS
    else:
        assert 0 < wait <= 15 * MINUTE_MS


@pytest.mark.parametrize("age_ms", [-1, -(10**9)])
def test_a_clock_that_was_put_back_asks_at_the_first_time(age_ms: int) -> None:
    assert next_check_ms(age_ms) == 5000 - age_ms
