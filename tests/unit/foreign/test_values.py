import struct
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter_gateway.foreign.values import (
    decimal_of_double,
    decimal_of_single,
    placed_ms,
    unix_ms,
    whole_wh,
)
from schemas.quantities import parse_instant_ms
from schemas.telemetry import PayloadError


@given(st.integers(-(10**14), 10**14), st.integers(0, 6))
def test_wh_are_the_whole_part_of_the_decimal_that_was_written(units: int, places: int) -> None:
    written = Decimal(units).scaleb(-places)
    exact = Fraction(units, 10**places) * 1000
    assert whole_wh(written, Decimal(1000)) == exact.numerator // exact.denominator


@pytest.mark.parametrize("odd", ["NaN", "Infinity", "-Infinity", "1e400", "1e-400", "1" * 41])
def test_what_is_no_total_is_refused(odd: str) -> None:
    with pytest.raises(PayloadError) as refused:
        whole_wh(Decimal(odd), Decimal(1000))
    assert refused.value.code == "wrong_type"


def test_a_total_beyond_64_bits_is_refused() -> None:
    with pytest.raises(PayloadError) as refused:
        whole_wh(Decimal("9e18"), Decimal(1000))
    assert refused.value.code == "unsafe_integer"


def test_nothing_with_many_zeros_is_zero() -> None:
    assert whole_wh(Decimal("0e-90"), Decimal(1)) == 0


@given(st.integers(0, 10**9))
def test_a_double_is_the_kwh_that_its_sender_wrote(wh: int) -> None:
    assert whole_wh(decimal_of_double(float(f"{wh // 1000}.{wh % 1000:03d}")), Decimal(1000)) == wh


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_single_is_the_shortest_decimal_that_denotes_it(value: float) -> None:
    found = decimal_of_single(value)
    assert struct.unpack("<f", struct.pack("<f", float(found)))[0] == value
    assert len(found.as_tuple().digits) <= 9


def test_a_single_of_a_display_has_the_digits_of_the_display() -> None:
    (sent,) = struct.unpack("<f", struct.pack("<f", 1234.567))
    assert decimal_of_single(sent) == Decimal("1234.567")


@pytest.mark.parametrize(
    ("local", "zone", "utc", "certain"),
    [
        ("2026-03-01T10:15:00", "Africa/Nouakchott", "2026-03-01T10:15:00Z", True),
        ("2026-07-01T10:15:00", "Europe/Paris", "2026-07-01T08:15:00Z", True),
        # Repeated at the end of summer time, left out at its beginning.
        ("2026-10-25T02:30:00", "Europe/Paris", "2026-10-25T00:30:00Z", False),
        ("2026-03-29T02:30:00", "Europe/Paris", "2026-03-29T01:30:00Z", False),
    ],
)
def test_a_local_clock_is_placed_by_the_zone_of_the_device(
    local: str, zone: str, utc: str, certain: bool
) -> None:
    placed = placed_ms(datetime.fromisoformat(local), ZoneInfo(zone))
    assert placed == (parse_instant_ms(utc), certain)


def test_a_local_clock_at_the_end_of_the_calendar_is_refused() -> None:
    with pytest.raises(PayloadError):
        placed_ms(datetime.max, ZoneInfo("Etc/GMT+12"))


@pytest.mark.parametrize(
    ("written", "per_second", "ms"),
    [("1678699440.85", 1, 1678699440850), ("1678699440850", 1000, 1678699440850), ("0", 1, 0)],
)
def test_a_unix_time_is_exact_to_the_ms(written: str, per_second: int, ms: int) -> None:
    assert unix_ms(Decimal(written), per_second) == ms


@pytest.mark.parametrize("odd", ["NaN", "1e30"])
def test_a_time_beyond_any_calendar_is_refused(odd: str) -> None:
    with pytest.raises(PayloadError) as refused:
        unix_ms(Decimal(odd), 1)
    assert refused.value.code == "bad_instant"
