import pytest

from prepaid.clock import Clock, wall_ms
from schemas.errors import DomainError


def test_the_wall_clock_is_the_default() -> None:
    assert abs(Clock.parse("").now_ms() - wall_ms()) < 1000


def test_a_fast_clock_is_a_function_of_real_time_and_its_origins() -> None:
    origin_ms = wall_ms() - 60_000
    clock = Clock.parse(f"{origin_ms}:1000000:100")
    assert 0 <= clock.now_ms() - (1_000_000 + 60_000 * 100) < 100_000
    assert Clock.parse(str(clock)) == clock


@pytest.mark.parametrize("text", ["1", "1:2", "a:b:c", "1:2:0", "1:2:-5", "1:2:3:4"])
def test_a_clock_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DomainError) as caught:
        Clock.parse(text)
    assert caught.value.code == "bad_clock"
