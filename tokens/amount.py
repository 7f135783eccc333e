"""Amount coding: a power of ten and 14 bits (IEC 62055-41 6.3.6 units, 6.3.7 currency).

With exponent e and mantissa m a field means m*10^e + offset(e), where the offsets are chosen so
that the bands follow each other without overlap: 0..16383 by 1, from 16384 by 10, from 180224 by
100, and so on. Everything here is whole smallest units: 0.1 kWh, 1 W, or 10^-5 of a currency.
"""

from dataclasses import dataclass
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, ROUND_CEILING, Context, Decimal

from tokens.errors import TokenError

MANTISSA_LAST = 0x3FFF
UNIT_EXPONENT_LAST = 3
CURRENCY_EXPONENT_LAST = 31
NEGATIVE = 0b1000  # the sign bit of the S&E nibble
STEPS: tuple[int, ...] = tuple(10**exponent for exponent in range(CURRENCY_EXPONENT_LAST + 1))


@dataclass(frozen=True, slots=True)
class CurrencyField:
    """The two places of a currency amount: the S&E nibble and the 16-bit amount."""

    s_and_e: int
    amount: int


def _offset(exponent: int) -> int:
    return 16384 * (STEPS[exponent] - 1) // 9


def _largest(exponent: int) -> int:
    return _offset(exponent) + MANTISSA_LAST * STEPS[exponent]


AMOUNT_LAST = _largest(UNIT_EXPONENT_LAST)
CURRENCY_AMOUNT_LAST = _largest(CURRENCY_EXPONENT_LAST)
# The 28 digits of the context that everybody shares would round half-even before the ceiling.
EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)


def smallest_units(value: Decimal, places: int) -> int:
    """`value` in units of 10 to the minus `places`, rounded toward plus infinity.

    Exact for any number of digits. More than any field holds comes back as just that, to be
    refused by its own sentence: written out, 1e999999999 would fill the memory.
    """
    beyond = CURRENCY_AMOUNT_LAST + 1
    units = value.scaleb(places, EXACT)
    return int(min(max(units, Decimal(-beyond)), Decimal(beyond)).to_integral_value(ROUND_CEILING))


def encode_amount(count: int) -> int:
    """The 16-bit field of `count` smallest units, rounded up: never less than was paid for."""
    if not 0 <= count <= AMOUNT_LAST:
        raise TokenError(
            "amount_out_of_range",
            f"{count} smallest units do not fit in one token; issue at most {AMOUNT_LAST}.",
        )
    exponent, mantissa = _round_up(count)
    return exponent << 14 | mantissa


def decode_amount(field: int) -> int:
    """Smallest units of a 16-bit field."""
    exponent = field >> 14
    return _offset(exponent) + (field & MANTISSA_LAST) * STEPS[exponent]


def encode_currency(count: int) -> CurrencyField:
    """The fields of `count` hundred-thousandths, rounded toward plus infinity.

    So a charge (negative) rounds toward zero: in both signs the customer is never worse off.
    """
    magnitude = abs(count)
    if magnitude > CURRENCY_AMOUNT_LAST:
        raise TokenError(
            "amount_out_of_range",
            f"{count} hundred-thousandths do not fit in one token; "
            f"issue at most {CURRENCY_AMOUNT_LAST}.",
        )
    exponent, mantissa = _round_down(magnitude) if count < 0 else _round_up(magnitude)
    sign = NEGATIVE if count < 0 else 0
    return CurrencyField(sign | exponent >> 2, (exponent & 0b11) << 14 | mantissa)


def decode_currency(s_and_e: int, field: int) -> int:
    """Hundred-thousandths, with their sign."""
    exponent = (s_and_e & 0b111) << 2 | field >> 14
    magnitude = _offset(exponent) + (field & MANTISSA_LAST) * STEPS[exponent]
    return -magnitude if s_and_e & NEGATIVE else magnitude


def _round_up(count: int) -> tuple[int, int]:
    exponent = 0
    while _largest(exponent) < count:
        exponent += 1
    # A count between two bands (180214 < count < 180224) is the first step of the upper one: the
    # ceiling of a negative fraction is zero.
    return exponent, -(-(count - _offset(exponent)) // STEPS[exponent])


def _round_down(count: int) -> tuple[int, int]:
    exponent = 0
    while exponent < CURRENCY_EXPONENT_LAST and _offset(exponent + 1) <= count:
        exponent += 1
    return exponent, min((count - _offset(exponent)) // STEPS[exponent], MANTISSA_LAST)
