"""Money, energy and instants: integers inside, exact text outside.

Money is micro-units (`_micro`), one millionth of the currency unit. Energy is watt-hours (`_wh`).
Instants are UTC milliseconds since 1970 (`_ms`). Only `in_coins` rounds: text that an integer
cannot hold exactly is refused.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from schemas.errors import DomainError

MICRO_PER_UNIT = 1_000_000
WH_PER_KWH = 1_000

_DECIMAL = re.compile(r"(-?)([0-9]{1,18})(?:\.([0-9]{1,18}))?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,3})?"
    r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
# Western, Arabic-Indic and Extended Arabic-Indic digits, and the Arabic decimal separator.
_TYPED_DIGITS = str.maketrans(
    "٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹٫",
    "01234567890123456789.",
)
# Arabic thousands separator, space, no-break space, narrow no-break space, apostrophe.
_TYPED_GROUPING = re.compile("(?<=[0-9])[٬ \u00a0\u202f'](?=[0-9]{3}(?![0-9]))")
# Marks that a right-to-left keyboard or a copied page leaves invisibly around a number.
_INVISIBLE = dict.fromkeys([0x200E, 0x200F, 0x061C, 0x202A, 0x202B, 0x202C, 0x2066, 0x2067, 0x2069])


def parse_micro(text: str) -> int:
    """Micro-units of a decimal string with at most 6 decimals: `"123.456789"` -> 123456789.

    Raises DomainError `bad_amount`: not a string, an exponent, a sign other than `-`, 7 decimals.
    """
    return _scaled(text, 6, "bad_amount", 'an amount such as "200.00", at most 6 decimals')


def format_micro(micro: int) -> str:
    """The decimal string of an amount, always with 6 decimals: 123456789 -> `"123.456789"`."""
    sign = "-" if micro < 0 else ""
    units, rest = divmod(abs(micro), MICRO_PER_UNIT)
    return f"{sign}{units}.{rest:06d}"


def in_coins(amount_micro: int, coin_micro: int) -> int:
    """The multiple of a coin that is nearest to an amount, a half up: what a till can count.

    >>> in_coins(50_130_000, 200_000)
    50200000
    """
    return (2 * amount_micro + coin_micro) // (2 * coin_micro) * coin_micro


def parse_kwh(text: str) -> int:
    """Watt-hours of a decimal string in kWh with at most 3 decimals: `"41.230"` -> 41230.

    Raises DomainError `bad_energy`.
    """
    return _scaled(text, 3, "bad_energy", 'an energy in kWh such as "41.230", at most 3 decimals')


def format_kwh(wh: int) -> str:
    """The decimal string of an energy in kWh, always with 3 decimals: 41230 -> `"41.230"`."""
    sign = "-" if wh < 0 else ""
    kwh, rest = divmod(abs(wh), WH_PER_KWH)
    return f"{sign}{kwh}.{rest:03d}"


def _scaled(text: str, decimals: int, code: str, wanted: str) -> int:
    # Callers hold values from JSON, so a number may stand where the type promises a string.
    found = _DECIMAL.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise DomainError(code, f"Write {wanted}, as a string; this is not one: {text!r:.60}.")
    sign, units, fraction = found.groups(default="")
    if len(fraction) > decimals:
        raise DomainError(code, f"Write {wanted}; {text!r} has {len(fraction)}.")
    value = int(units + fraction.ljust(decimals, "0"))
    return -value if sign else value


def typed_decimal(text: str) -> str:
    """The plain decimal string that a person meant: Arabic-Indic digits, grouping, comma decimals.

    `"١٬٥٠٠٫٢٥"`, `"1 500,25"` and `"1500.25"` all give `"1500.25"`. A comma followed by exactly
    three digits could mean either, so it is refused rather than guessed.
    Raises DomainError `bad_amount`.
    """
    plain = text.translate(_INVISIBLE).strip().translate(_TYPED_DIGITS).replace("\u2212", "-")
    plain = _TYPED_GROUPING.sub("", plain)
    if "," in plain:
        whole, _, fraction = plain.partition(",")
        if "." in whole or len(fraction) == 3:
            raise DomainError(
                "bad_amount", f"Write a point before the decimals and no other mark: {text!r:.60}."
            )
        plain = f"{whole}.{fraction}"
    if _DECIMAL.fullmatch(plain) is None:
        raise DomainError("bad_amount", f"Write a number such as 1500.25, not {text!r:.60}.")
    return plain


_HOURS_MS = {f"{hour:02}": hour * 3_600_000 for hour in range(24)}
_MINUTES_MS = {f"{minute:02}": minute * 60_000 for minute in range(60)}
_SECONDS_MS = {f"{second:02}": second * 1000 for second in range(60)}


@lru_cache(maxsize=4096)
def _day_ms(text: str) -> int:
    """The first instant of a day, written YYYY-MM-DD. Raises ValueError."""
    if _DAY.fullmatch(text) is None:
        raise ValueError(text)
    return (datetime.fromisoformat(f"{text}T00:00:00+00:00") - _EPOCH) // _MILLISECOND


@lru_cache(maxsize=4096)
def _second_ms(text: str) -> int:
    """Of YYYY-MM-DDTHH:MM:SSZ; a fleet says the same quarter of an hour by the thousand. Raises
    KeyError, ValueError.
    """
    clock = _HOURS_MS[text[11:13]] + _MINUTES_MS[text[14:16]] + _SECONDS_MS[text[17:19]]
    return _day_ms(text[:10]) + clock


def parse_instant_ms(text: str) -> int:
    """UTC milliseconds of an RFC 3339 instant with `Z` or an offset, at most 3 decimals.

    Raises DomainError `bad_instant`, also outside the years 1 to 9999 in UTC. A leap second (`:60`)
    is refused: UTC milliseconds have none.
    """
    try:
        # Whole seconds with Z, as nearly every meter writes them.
        if len(text) == 20 and text[10] == "T" and text[13] == text[16] == ":" and text[19] == "Z":
            return _second_ms(text)
    except (KeyError, TypeError, ValueError):
        pass  # what is wrong with it is said below
    try:
        if _INSTANT.fullmatch(text) is None:
            raise ValueError(text)
        # Back to UTC, since an offset may lead out of the years that can be written again.
        return (datetime.fromisoformat(text.upper()).astimezone(UTC) - _EPOCH) // _MILLISECOND
    except (ValueError, TypeError, OverflowError):
        message = f'Write an instant such as "2026-03-01T10:15:00Z", not {text!r:.60}.'
        raise DomainError("bad_instant", message) from None


def format_instant(ms: int) -> str:
    """RFC 3339 in UTC, with milliseconds only where they are not zero.

    Raises DomainError `bad_instant` outside the years 1 to 9999.
    """
    seconds, rest = divmod(ms, 1000)
    try:
        text = _second(seconds)
    except OverflowError:
        raise DomainError("bad_instant", f"{ms} ms lies outside the years 1 to 9999.") from None
    return f"{text}.{rest:03d}Z" if rest else f"{text}Z"


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    """The second so many after 1970 began, without its zone; an answer says the same ones often."""
    days, second = divmod(seconds, 86_400)
    minutes, second = divmod(second, 60)
    hour, minute = divmod(minutes, 60)
    return f"{_day(days)}T{hour:02d}:{minute:02d}:{second:02d}"


@lru_cache(maxsize=4096)
def _day(days: int) -> str:
    """The date so many days after that of 1970 began."""
    return (_EPOCH + timedelta(days=days)).date().isoformat()
