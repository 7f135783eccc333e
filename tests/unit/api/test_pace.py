"""The sliding minute: what the last 60 seconds had, and how long until there is room again."""

from hypothesis import given
from hypothesis import strategies as st

from api.pace import Pace


class Clock:
    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def paced(bound: int, now_s: float = 0.0) -> tuple[Pace, Clock]:
    clock = Clock(now_s)
    return Pace(per_caller=bound, per_address=bound, clock_s=clock), clock


def test_a_minute_has_so_many_and_each_caller_his_own() -> None:
    pace, _ = paced(3)
    assert [pace.of_caller("a") for _ in range(3)] == [None] * 3
    assert pace.of_caller("a") == 60
    assert pace.of_caller("b") is None
    assert pace.of_address("192.0.2.1") is None


def test_the_minute_before_counts_as_far_as_the_last_60_seconds_reach_into_it() -> None:
    pace, clock = paced(4)
    assert [pace.of_caller("a") for _ in range(4)] == [None] * 4
    clock.now_s = 90.0  # half of them count
    assert [pace.of_caller("a") for _ in range(3)] == [None, None, 1]
    clock.now_s = 91.001
    assert pace.of_caller("a") is None
    clock.now_s = 600.0  # of so long ago nothing counts
    assert [pace.of_caller("a") for _ in range(4)] == [None] * 4


@given(
    st.integers(1, 8),
    st.lists(st.floats(0, 40, allow_nan=False), min_size=1, max_size=60),
)
def test_who_waits_as_he_was_told_is_served(bound: int, pauses: list[float]) -> None:
    pace, clock = paced(bound)
    for pause in pauses:
        clock.now_s += pause
        wait_s = pace.of_caller("a")
        if wait_s is not None:
            assert 1 <= wait_s <= 120
            clock.now_s += wait_s + 0.001
            assert pace.of_caller("a") is None
