"""How much an amount buys is searched from a guess, which changes how long it takes and no more."""

from hypothesis import given
from hypothesis import strategies as st

from credit_engine.quote import _greatest

NUMBERS = st.integers(0, 10**6) | st.integers(0, 20)


@given(NUMBERS, NUMBERS)
def test_any_guess_finds_the_greatest_number_that_holds(limit: int, near: int) -> None:
    tried: list[int] = []

    def holds(number: int) -> bool:
        tried.append(number)
        assert number >= 0
        return number <= limit

    assert _greatest(holds, near) == limit
    assert len(tried) <= 2 * (abs(limit - near) + 1).bit_length() + 4
