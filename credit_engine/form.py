"""A value from outside beside its path, so that every refusal names the field.

Each reader returns a plain value or raises CreditError bad_input, `path: what to give instead`.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from credit_engine.errors import CreditError

MICRO_DIGITS = 6
# 12 digits before the point keep any amount in µ, and a few thousand of them, within 64 bits.
WHOLE_DIGITS = 12
INTEGER_LIMIT = 10**15
# Civil time is worked out a day ahead and behind, which must still be a date.
YEARS = range(1900, 9000)

_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,3}))?Z", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def bad_input(message: str, *paths: str) -> CreditError:
    return CreditError("bad_input", f"{', '.join(paths)}: {message}")


def decimal_text(micro: int) -> str:
    """µ as a decimal string with six decimals."""
    sign = "-" if micro < 0 else ""
    whole, fraction = divmod(abs(micro), 10**MICRO_DIGITS)
    return f"{sign}{whole}.{fraction:0{MICRO_DIGITS}d}"


def instant_text(at_ms: int) -> str:
    """UTC with `Z`, milliseconds only if not zero."""
    instant = _EPOCH + timedelta(milliseconds=at_ms)
    text = instant.replace(tzinfo=None).isoformat(timespec="milliseconds")
    return text.removesuffix(".000") + "Z"


@dataclass(frozen=True, slots=True)
class Form:
    path: str
    value: Any

    def refuse(self, message: str, *others: "Form") -> CreditError:
        return bad_input(message, self.path, *(other.path for other in others))

    def fields(
        self, required: Collection[str], optional: Collection[str] = ()
    ) -> dict[str, "Form"]:
        """The fields of a mapping; a field that is null counts as given."""
        if not isinstance(self.value, dict):
            raise self.refuse("give a mapping")
        for key in self.value:
            if key not in required and key not in optional:
                known = ", ".join([*required, *optional])
                raise self.child(key).refuse(f"unknown key; one of: {known}")
        for key in required:
            if key not in self.value:
                raise self.child(key).refuse("is missing")
        return {key: self.child(key) for key in self.value}

    def child(self, key: object) -> "Form":
        # A refusal is one line, whatever a key may hold.
        name = str(key) if str(key).isprintable() else repr(key)
        path = f"{self.path}.{name}" if self.path else name
        return Form(path, self.value.get(key))

    def items(self, at_least: int = 0) -> list["Form"]:
        if not isinstance(self.value, list):
            raise self.refuse("give a list")
        if len(self.value) < at_least:
            raise self.refuse(f"give at least {at_least}")
        return [Form(f"{self.path}[{place}]", item) for place, item in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value:
            raise self.refuse("give a string (in quotes) that is not empty")
        return self.value

    def choice(self, *options: str) -> str:
        if not isinstance(self.value, str) or self.value not in options:
            raise self.refuse(f"give one of: {', '.join(options)}")
        return self.value

    def truth(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.refuse("give true or false")
        return self.value

    def integer(self, minimum: int = 0) -> int:
        value = self.value
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.refuse("give an integer, without quotes")
        if not minimum <= value < INTEGER_LIMIT:
            raise self.refuse(f"give an integer from {minimum} to {INTEGER_LIMIT - 1}")
        return value

    def decimal(self, places: int, *, signed: bool = False) -> int:
        """A decimal string as an integer of its `places`-th decimal."""
        value = self.value
        if not isinstance(value, str):
            raise self.refuse('give a decimal string in quotes, as "10.00"')
        pattern = rf"(-?)(\d{{1,{WHOLE_DIGITS}}})(?:\.(\d{{1,{places}}}))?"
        match = re.fullmatch(pattern, value, re.ASCII)
        if match is None or (match[1] and not signed):
            raise self.refuse(
                f'give a decimal string with at most {places} decimals, as "10.00"'
                + ("" if signed else ", not below zero")
            )
        number = int(match[2] + (match[3] or "").ljust(places, "0"))
        return -number if match[1] else number

    def money(self, *, signed: bool = False) -> int:
        return self.decimal(MICRO_DIGITS, signed=signed)

    def instant(self) -> int:
        """An RFC 3339 instant in UTC as milliseconds."""
        match = _INSTANT.fullmatch(self.value) if isinstance(self.value, str) else None
        try:
            if match is None:
                raise ValueError
            instant = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
        except ValueError:
            raise self.refuse('give an instant in UTC, as "2026-03-01T00:00:00Z"') from None
        if instant.year not in YEARS:
            raise self.refuse(f"give a year from {YEARS[0]} to {YEARS[-1]}")
        milliseconds = int((match[2] or "").ljust(3, "0"))
        return (instant - _EPOCH) // timedelta(milliseconds=1) + milliseconds

    def day(self) -> date:
        try:
            if not isinstance(self.value, str) or _DAY.fullmatch(self.value) is None:
                raise ValueError
            day = date.fromisoformat(self.value)
        except ValueError:
            raise self.refuse('give a date, as "2026-03-01"') from None
        if day.year not in YEARS:
            raise self.refuse(f"give a year from {YEARS[0]} to {YEARS[-1]}")
        return day

    def clock(self) -> int:
        """Wall-clock time as a minute of the day, "24:00" included."""
        if self.value == "24:00":
            return 24 * 60
        match = _CLOCK.fullmatch(self.value) if isinstance(self.value, str) else None
        if match is None:
            raise self.refuse('give a wall-clock time, as "06:30"')
        return int(match[1]) * 60 + int(match[2])
