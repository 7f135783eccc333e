from pathlib import Path

import pytest

from prepaid.clock import Clock, HandClock, wall_ms
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


def test_a_clock_set_by_hand_stands_until_it_is_set_again(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    file.write_text("1000")
    clock = Clock.parse(f"@{file}")
    assert isinstance(clock, HandClock)
    assert [clock.now_ms(), clock.now_ms(), clock.speed] == [1000, 1000, 1]
    clock.set(5000)
    assert Clock.parse(str(clock)).now_ms() == 5000


@pytest.mark.parametrize("content", [None, "", "noon"])
def test_a_clock_file_that_holds_no_instant_is_refused(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "clock"
    if content is not None:
        file.write_text(content)
    with pytest.raises(DomainError) as caught:
        Clock.parse(f"@{file}")
    assert caught.value.code == "bad_clock"
