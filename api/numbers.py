"""Numbers and names as people and programs send them, judged: each refusal has a code.

Amounts are decimal strings, in the digits of the writer's keyboard.
"""

import re
import zlib
from datetime import date

from api.errors import RequestRefused
from api.settings import ApiSettings
from schemas.contacts import Channel, PhonePlan, parse_address, parse_phone, typed_digits
from schemas.errors import DomainError
from schemas.identity import parse_meter_number
from schemas.quantities import format_micro, parse_instant_ms, parse_micro, typed_decimal
from tokens.numbers import TYPED

# 0.01 of a currency unit is the least that a channel moves.
PAYABLE_DECIMALS = 2
# Mauritania: 8 digits, no trunk prefix; these begin the numbers of mobiles.
COUNTRY_CODE = "222"
_MOBILE = re.compile(r"(?:(?:\+|00)?222)?([2-4][0-46-9][0-9]{6})")
# bigint of the database; nothing that is stored may reach it.
LARGEST = 2**63 - 1

# What an instant says beyond milliseconds; no clock says so much of a second's fraction.
_FINER = re.compile(r"(?<=\.[0-9]{3})[0-9]{1,6}(?=[Zz+-])")

# Nothing metered lies outside; at the edges of the calendar civil time cannot be worked out.
FIRST_MS = parse_instant_ms("2000-01-01T00:00:00Z")
END_MS = parse_instant_ms("2100-01-01T00:00:00Z")


def payment_micro(text: str, settings: ApiSettings, place: str = "/amount") -> int:
    """Micro-units of an amount that may be paid.

    Errors: RequestRefused bad_amount, amount_not_positive, amount_too_precise,
    amount_below_minimum, amount_above_maximum.
    """
    micro = positive_micro(text, place)
    if micro < settings.min_payment_micro:
        raise RequestRefused(
            "amount_below_minimum",
            f"Send at least {format_micro(settings.min_payment_micro)}.",
            place,
        )
    if micro > settings.max_payment_micro:
        raise RequestRefused(
            "amount_above_maximum",
            f"Send at most {format_micro(settings.max_payment_micro)}.",
            place,
        )
    return micro


def positive_micro(text: str, place: str) -> int:
    """Micro-units of an amount above zero with at most 2 decimals. Errors: as payment_micro."""
    try:
        plain = typed_decimal(text)
        micro = parse_micro(plain)
    except DomainError as error:
        raise RequestRefused("bad_amount", str(error), place) from None
    if micro <= 0:
        raise RequestRefused("amount_not_positive", "Send an amount above zero.", place)
    if micro % 10 ** (6 - PAYABLE_DECIMALS):
        raise RequestRefused("amount_too_precise", "Send at most 2 decimals.", place)
    if micro > LARGEST:
        raise RequestRefused("amount_above_maximum", "Send a smaller amount.", place)
    return micro


def signed_micro(text: str, place: str) -> int:
    """Micro-units of an amount above or below zero with at most 2 decimals.

    Errors: as positive_micro.
    """
    stripped = text.strip()
    if stripped[:1] in {"-", "−"}:
        return -positive_micro(stripped[1:], place)
    return positive_micro(stripped.removeprefix("+"), place)


def sum_micro(text: str, place: str) -> int:
    """Micro-units of a sum, zero included. Errors: RequestRefused bad_amount."""
    try:
        micro = parse_micro(typed_decimal(text))
    except DomainError as error:
        raise RequestRefused("bad_amount", str(error), place) from None
    if not 0 <= micro <= LARGEST:
        raise RequestRefused("bad_amount", "Send the sum of the lines' amounts.", place)
    return micro


def threshold_micro(text: str, place: str = "/amount") -> int:
    """Micro-units of a balance to warn at, zero or above. Errors: RequestRefused bad_amount,
    amount_above_maximum.
    """
    try:
        micro = parse_micro(typed_decimal(text))
    except DomainError as error:
        raise RequestRefused("bad_amount", str(error), place) from None
    if micro < 0:
        raise RequestRefused("bad_amount", "Send an amount of zero or above.", place)
    if micro > LARGEST:
        raise RequestRefused("amount_above_maximum", "Send a smaller amount.", place)
    return micro


def business_date_of(day: date) -> date:
    """A date of which we may have payments. Errors: RequestRefused bad_date."""
    if not 2000 <= day.year < 2100:
        raise RequestRefused(
            "bad_date", "Send a date of the years 2000 to 2099.", "{business_date}"
        )
    return day


def meter_number(text: str, place: str = "/meter") -> str:
    """The digits of a typed meter number. Errors: RequestRefused bad_meter_number."""
    try:
        return parse_meter_number(typed_digits(text).translate(TYPED))
    except DomainError as error:
        raise RequestRefused(error.code, str(error), place) from None


def typed_passcode(text: str, place: str = "/passcode") -> str:
    """Digits of a passcode, from any keyboard. Errors: RequestRefused bad_passcode; it says
    nothing of what was typed.
    """
    plain = typed_digits(text).translate(TYPED)
    if not (plain.isascii() and plain.isdigit()):
        raise RequestRefused("bad_passcode", "Send the digits that the app shows.", place)
    return plain


def phone_number(text: str, plan: PhonePlan, place: str = "/phone") -> str:
    """E.164 of a typed mobile number. Errors: RequestRefused bad_phone, phone_not_mobile."""
    try:
        return parse_phone(text, plan)
    except DomainError as error:
        raise RequestRefused(error.code, str(error), place) from None


def contact_address(channel: Channel, text: str, plan: PhonePlan, place: str = "/address") -> str:
    """What a channel reaches somebody at. Errors: as phone_number; RequestRefused bad_email."""
    try:
        return parse_address(channel, text, plan)
    except DomainError as error:
        raise RequestRefused(error.code, str(error), place) from None


def instant_ms(text: str, place: str) -> int:
    """UTC milliseconds of an RFC 3339 instant from 2000 to 2099; what is finer is cut off.

    Errors: bad_instant.
    """
    try:
        at_ms = parse_instant_ms(_FINER.sub("", text))
    except DomainError as error:
        raise RequestRefused(error.code, str(error), place) from None
    if not FIRST_MS <= at_ms < END_MS:
        raise RequestRefused("bad_instant", "Send an instant of the years 2000 to 2099.", place)
    return at_ms


def check_currency(given: str | None, wanted: str) -> None:
    """Errors: RequestRefused currency_mismatch, for money of another country."""
    if given is not None and given != wanted:
        raise RequestRefused("currency_mismatch", f"This account is in {wanted}.", "/currency")


def cursor_id(cursor: str | None) -> int | None:
    """The id that a page ended with. Errors: RequestRefused bad_cursor."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit()) or int(cursor) > LARGEST:
        raise RequestRefused("bad_cursor", "Send next_cursor of the page before.", "?cursor")
    return int(cursor)


def text_cursor(last: str) -> str:
    """Where the next page of a list begins whose ids are text of several forms: the last id, and a
    check by which another text is known to be none.
    """
    return f"{last}.{zlib.crc32(last.encode()):08x}"


def cursor_text(cursor: str | None) -> str | None:
    """The id that a page ended with. Errors: RequestRefused bad_cursor."""
    if cursor is None:
        return None
    last = cursor.rpartition(".")[0]
    if cursor != text_cursor(last):
        raise RequestRefused("bad_cursor", "Send next_cursor of the page before.", "?cursor")
    return last


def masked(name: str) -> str:
    """A holder's name that its owner knows again and nobody else learns: `A••• S•••`."""
    return " ".join(f"{part[0]}•••" for part in name.split())
