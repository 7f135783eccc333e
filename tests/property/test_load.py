from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.load import DAY_MS, QUARTER_MS, HouseholdLoad, dynamisation_e4

SINCE_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
SPAN_MS = 40 * DAY_MS
households = st.builds(
    HouseholdLoad,
    annual_wh=st.integers(1, 50_000_000),
    seed=st.integers(0, 10**6),
    since_ms=st.just(SINCE_MS),
    utc_offset_ms=st.sampled_from([0, 3_600_000, -12_600_000]),
)
instants = st.integers(SINCE_MS - DAY_MS, SINCE_MS + SPAN_MS)


@given(households, st.lists(instants, min_size=2, max_size=12))
def test_a_register_never_falls(load: HouseholdLoad, at: list[int]) -> None:
    values = [load.energy_wh(ms) for ms in sorted(at)]
    assert values == sorted(values)


@given(households, st.lists(instants, min_size=1, max_size=12))
def test_a_register_does_not_depend_on_when_it_was_read_before(
    load: HouseholdLoad, at: list[int]
) -> None:
    seen = [load.energy_wh(ms) for ms in at]
    fresh = [
        HouseholdLoad(load.annual_wh, load.seed, SINCE_MS, load.utc_offset_ms).energy_wh(ms)
        for ms in at
    ]
    assert seen == fresh


@given(st.integers(0, 10**6))
def test_a_register_begins_at_zero(seed: int) -> None:
    load = HouseholdLoad(3_000_000, seed, SINCE_MS)
    assert load.energy_wh(SINCE_MS) == 0
    assert load.energy_wh(SINCE_MS - 1) == 0
    assert load.energy_wh(SINCE_MS + DAY_MS) > 0


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_a_year_comes_to_the_annual_consumption(seed: int) -> None:
    year_wh = HouseholdLoad(3_000_000, seed, SINCE_MS).energy_wh(SINCE_MS + 365 * DAY_MS)
    # Days spread by 30 % at most, so the mean of 365 lies well within 5 %.
    assert 2_850_000 < year_wh < 3_150_000


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(0, 364))
def test_no_household_draws_more_than_a_connection_gives(seed: int, day: int) -> None:
    load = HouseholdLoad(4_000_000, seed, SINCE_MS)
    start_ms = SINCE_MS + day * DAY_MS
    curve = [load.energy_wh(start_ms + i * QUARTER_MS) for i in range(97)]
    peak_w = 4 * max(after - before for before, after in pairwise(curve))
    assert peak_w < 9_200


@given(st.integers(1, 366))
def test_the_dynamisation_is_that_of_bdew(t: int) -> None:
    published = -3.92e-10 * t**4 + 3.2e-7 * t**3 - 7.02e-5 * t**2 + 2.1e-3 * t + 1.24
    assert abs(dynamisation_e4(t) - 10_000 * published) < 0.51
