"""Amounts as channels write them: hundredths of the currency unit, or decimal text."""

from schemas.errors import DomainError
from schemas.quantities import format_micro

MICRO_PER_HUNDREDTH = 10_000
# 18 digits fit the database's bigint in micro-units many times over; more is no amount.
MAX_DIGITS = 14


def hundredths(amount_micro: int) -> int:
    """An amount that may be paid has at most 2 decimals (`api.numbers`)."""
    assert amount_micro % MICRO_PER_HUNDREDTH == 0, "attempts are in whole hundredths"
    return amount_micro // MICRO_PER_HUNDREDTH


def of_hundredths(said: object) -> int:
    """Micro-units of an amount as a channel says it. Errors: DomainError notification_malformed."""
    text = str(said) if isinstance(said, str | int) and not isinstance(said, bool) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS and int(text) > 0):
        raise DomainError("notification_malformed", "the amount is no whole number above zero")
    return int(text) * MICRO_PER_HUNDREDTH


def decimal_text(amount_micro: int) -> str:
    """`"50"` or `"50.25"`."""
    whole, decimals = format_micro(amount_micro).split(".")
    return whole if not decimals.strip("0") else f"{whole}.{decimals[:2]}"
