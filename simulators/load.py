"""How much a household consumes: BDEW standard load profile H0, dynamised, made individual.

`HouseholdLoad.energy_wh(ms)` is the energy consumed since `since_ms`. Laws: it never falls; it is
a function of the instant alone, so any sampling of it agrees; over whole years it comes to
`annual_wh` within the daily variation. Integers throughout; nothing is lost to rounding, because
only the cumulative value is ever divided.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from itertools import accumulate

QUARTERS = 96
QUARTER_MS = 15 * 60 * 1000
MS_PER_HOUR = 4 * QUARTER_MS
DAY_MS = QUARTERS * QUARTER_MS
_EPOCH_DAY = date(1970, 1, 1).toordinal()
# First days (month, day) of the profile's seasons: BDEW, 1 Nov, 21 Mar, 15 May, 15 Sep.
_SEASON_STARTS = ((1, 1), (3, 21), (5, 15), (9, 15), (11, 1))
_SEASON_NAMES = ("winter", "transition", "summer", "transition", "winter")
# Sum over the days of a common year of profile times dynamisation, in the units of _day_weight;
# computed once per process by _annual_weight for this reference year.
_REFERENCE_YEAR = 2026
# A household's days vary by up to this share around the standard, and its habits by this shift.
_DAY_SPREAD_PER_MILLE = 300
_HABIT_SHIFT_MIN = 75


@cache
def _profile() -> dict[str, tuple[int, ...]]:
    """Centiwatts per quarter hour, by `season_daytype` column of bdew_h0.csv."""
    text = files("simulators").joinpath("bdew_h0.csv").read_text(encoding="utf-8")
    rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
    return {
        name: tuple(_centi(row[column]) for row in rows[1:])
        for column, name in enumerate(rows[0])
        if column > 0
    }


def _centi(text: str) -> int:
    units, _, hundredths = text.partition(".")
    return int(units) * 100 + int(hundredths.ljust(2, "0"))


def dynamisation_e4(day_of_year: int) -> int:
    """The H0 dynamisation factor times 10^4, rounded to 4 decimals as BDEW prescribes.

    F(t) = -3.92e-10 t^4 + 3.2e-7 t^3 - 7.02e-5 t^2 + 2.1e-3 t + 1.24, t = day of the year from 1.
    """
    t = day_of_year
    e12 = -392 * t**4 + 320_000 * t**3 - 70_200_000 * t**2 + 2_100_000_000 * t + 1_240_000_000_000
    return (e12 + 50_000_000) // 100_000_000


@cache
def _standard_day(day: int) -> tuple[tuple[int, ...], int]:
    """The profile of a civil day (days since 1970) and the day's whole weight, dynamised."""
    civil = date.fromordinal(_EPOCH_DAY + day)
    season = _SEASON_NAMES[bisect_right(_SEASON_STARTS, (civil.month, civil.day)) - 1]
    day_type = {5: "saturday", 6: "sunday"}.get(civil.weekday(), "workday")
    profile = _profile()[f"{season}_{day_type}"]
    factor = dynamisation_e4(civil.timetuple().tm_yday)
    return profile, sum(profile) * factor


@cache
def _annual_weight() -> int:
    first = date(_REFERENCE_YEAR, 1, 1)
    days = (date(_REFERENCE_YEAR + 1, 1, 1) - first) // timedelta(days=1)
    start = first.toordinal() - _EPOCH_DAY
    return sum(_standard_day(start + i)[1] for i in range(days))


@dataclass(slots=True)
class HouseholdLoad:
    """One household: `annual_wh` a year, `seed` its habits, `since_ms` where its register began.

    `utc_offset_ms` places its evenings; daylight saving is left out, as people keep to the sun.
    """

    annual_wh: int
    seed: int
    since_ms: int
    utc_offset_ms: int = 0
    _shift_ms: int = field(init=False)
    _first_day: int = field(init=False)
    # Cumulative weight at each local midnight since the first day: a memory, never a state.
    _midnights: list[int] = field(init=False, default_factory=lambda: [0])
    _shape: tuple[int, Sequence[int]] = field(init=False, default=(-1, ()))
    _origin: int = field(init=False)

    def __post_init__(self) -> None:
        entropy = int.from_bytes(self._entropy(b"habit", 0, 8), "big")
        minutes = entropy % (2 * _HABIT_SHIFT_MIN + 1) - _HABIT_SHIFT_MIN
        self._shift_ms = self.utc_offset_ms + minutes * 60_000
        self._first_day = (self.since_ms + self._shift_ms) // DAY_MS
        self._origin = 0
        self._origin = self._weight(self.since_ms)

    def energy_wh(self, ms: int) -> int:
        """Wh consumed since `since_ms`; before it, 0."""
        if ms <= self.since_ms:
            return 0
        return (
            self.annual_wh * (self._weight(ms) - self._origin) // (_annual_weight() * _WEIGHT_UNIT)
        )

    def _weight(self, ms: int) -> int:
        """Cumulative weight since the first day's midnight, in parts of _WEIGHT_UNIT."""
        day, into_day = divmod(ms + self._shift_ms, DAY_MS)
        index = day - self._first_day
        while len(self._midnights) <= index + 1:
            passed = self._first_day + len(self._midnights) - 1
            self._midnights.append(self._midnights[-1] + self._day_weight(passed))
        before = self._midnights[index]
        cumulative = self._day_shape(day)
        quarter, into_quarter = divmod(into_day, QUARTER_MS)
        done = cumulative[quarter] * QUARTER_MS
        done += (cumulative[quarter + 1] - cumulative[quarter]) * into_quarter
        # The part of the day's weight that has passed, by the day's own shape.
        part = (self._midnights[index + 1] - before) * _WEIGHT_UNIT * done
        return before * _WEIGHT_UNIT + part // (cumulative[QUARTERS] * QUARTER_MS)

    def _day_weight(self, day: int) -> int:
        spread = int.from_bytes(self._entropy(b"day", day, 4), "big")
        per_mille = 1000 - _DAY_SPREAD_PER_MILLE + spread % (2 * _DAY_SPREAD_PER_MILLE + 1)
        return _standard_day(day)[1] * per_mille // 1000

    def _day_shape(self, day: int) -> Sequence[int]:
        """Cumulative weights of the day's quarter hours: the standard shape with appliances."""
        if self._shape[0] != day:
            entropy = self._entropy(b"low", day, 48) + self._entropy(b"high", day, 48)
            weights = [
                watts * _appliance_per_mille(byte)
                for watts, byte in zip(_standard_day(day)[0], entropy, strict=True)
            ]
            self._shape = (day, (0, *accumulate(weights)))
        return self._shape[1]

    def _entropy(self, purpose: bytes, day: int, size: int) -> bytes:
        key = purpose + b"%d/%d" % (self.seed, day)
        return blake2b(key, digest_size=size).digest()


# Divides a day finely enough that one quarter hour's weight is never lost.
_WEIGHT_UNIT = 1 << 32


def _appliance_per_mille(byte: int) -> int:
    """Most quarter hours run below the mean; one in six has a kettle, an iron or an air cooler."""
    return 500 + 2 * byte if byte < 212 else 1400 + 40 * (byte - 212)


@dataclass(frozen=True, slots=True)
class SteadyLoad:
    """A load that never changes, as a laboratory's: `watts` since `since_ms`."""

    watts: int
    since_ms: int

    def energy_wh(self, ms: int) -> int:
        """Wh consumed since `since_ms`; before it, 0."""
        return self.watts * max(ms - self.since_ms, 0) // MS_PER_HOUR
