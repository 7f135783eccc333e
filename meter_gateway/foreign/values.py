"""What a foreign message says, in our units: registers in integer Wh, instants in UTC ms.

JSON numbers are read as the decimals that were written, and a protobuf float stands for the
shortest decimal that denotes it. What is finer than a Wh is cut off, never rounded up, so that a
register never runs ahead of the energy that flowed.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Context, Decimal
from typing import Literal
from zoneinfo import ZoneInfo

from schemas.telemetry import PayloadError
from schemas.wire import TimeQuality

Unit = Literal["Wh", "kWh", "MWh", "varh", "kvarh", "Mvarh"]
# Whole Wh (varh) in one of these.
WH: dict[Unit, Decimal] = {
    "Wh": Decimal(1),
    "kWh": Decimal(1000),
    "MWh": Decimal(1_000_000),
    "varh": Decimal(1),
    "kvarh": Decimal(1000),
    "Mvarh": Decimal(1_000_000),
}
# A total of more digits, or farther from one, is no total; it also bounds what arithmetic costs.
DIGITS_MAX = 40
EXPONENT_MAX = 18
_EXACT = Context(prec=100)
_EPOCH = datetime(1970, 1, 1)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class ForeignReading:
    """The cumulative registers of one device at one instant; `at_ms` None means on arrival.

    `local` is the device's own clock without an offset, still to be placed by the device's zone.
    """

    device: str
    registers: Mapping[str, int]
    at_ms: int | None = None
    local: datetime | None = None
    quality: TimeQuality = "sync"
    historical: bool = False
    instantaneous: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ForeignState:
    """The connection of a device came or went."""

    device: str
    online: bool


def whole_wh(value: Decimal, factor: Decimal) -> int:
    """Integer Wh of `value` times `factor`. Errors: PayloadError `wrong_type`."""
    if not value.is_finite():
        raise PayloadError("wrong_type", "A register is no finite number.")
    if len(value.as_tuple().digits) > DIGITS_MAX or abs(value.adjusted()) > EXPONENT_MAX:
        if value.is_zero():
            return 0
        raise PayloadError("wrong_type", "A register has more digits than any total.")
    product = _EXACT.multiply(value, factor)
    whole = int(product.to_integral_value(rounding=ROUND_FLOOR, context=_EXACT))
    if abs(whole) >= 1 << 63:
        raise PayloadError("unsafe_integer", "A register exceeds 64 bits.")
    return whole


def decimal_of_double(value: float) -> Decimal:
    """The shortest decimal that denotes this IEEE 754 double: what its sender wrote."""
    return Decimal(repr(value))


def decimal_of_single(value: float) -> Decimal:
    """The shortest decimal that denotes this IEEE 754 single (given as the equal double)."""
    if value != value or value in {float("inf"), float("-inf")}:
        return Decimal(repr(value))
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        try:
            if struct.unpack("<f", struct.pack("<f", float(text)))[0] == value:
                return Decimal(text)
        except OverflowError:
            continue
    return Decimal(repr(value))


def unix_ms(value: Decimal, per_second: int) -> int:
    """UTC ms of a Unix time in units of 1/`per_second` s. Errors: PayloadError `bad_instant`."""
    if not value.is_finite() or abs(value.adjusted()) > EXPONENT_MAX:
        raise PayloadError("bad_instant", "Send the time as a Unix time.")
    scaled = _EXACT.divide(_EXACT.multiply(value, Decimal(1000)), Decimal(per_second))
    return int(scaled.to_integral_value(rounding=ROUND_FLOOR, context=_EXACT))


def placed_ms(local: datetime, zone: ZoneInfo) -> tuple[int, bool]:
    """UTC ms of a clock without offset in `zone`, and whether that is certain.

    In the hour that a zone repeats, and the one it leaves out, the instant is a guess.
    Errors: PayloadError `bad_instant` at the ends of the calendar.
    """
    try:
        first, second = (
            local.replace(tzinfo=zone, fold=fold).astimezone(UTC).replace(tzinfo=None)
            for fold in (0, 1)
        )
    except OverflowError:
        raise PayloadError("bad_instant", "The time lies outside the calendar.") from None
    return (first - _EPOCH) // _MILLISECOND, first == second


def offset_ms(local: datetime, offset: timedelta) -> int:
    """UTC ms of a local clock that is `offset` ahead of UTC."""
    return (local - _EPOCH - offset) // _MILLISECOND
