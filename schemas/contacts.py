"""Telephone numbers and e-mail addresses as people type them, and as they are kept and masked.

A phone is kept in E.164, with its plus sign. Which numbers are a country's mobiles is a plan, not a
constant of the code: what a plan admits may be sent codes, anything else costs money to nobody.
"""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from schemas.errors import DomainError

Channel = Literal["phone", "whatsapp", "email"]
CHANNELS: tuple[Channel, ...] = get_args(Channel)
Language = Literal["ar", "fr", "en", "ff", "snk", "wo"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

# RFC 5321: the longest path is 256 octets with its brackets.
EMAIL_MAX = 254

_DIGITS = str.maketrans(
    "٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹",
    "01234567890123456789",
    # Marks of direction, which a keyboard or a copied page leaves unseen.
    "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
)
# What people put between digits, and the marks that a right-to-left keyboard leaves around them.
_BETWEEN = re.compile("[\\s().\\-\u2010-\u2015\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]")
_E164 = re.compile(r"\+[1-9][0-9]{7,14}")
_EMAIL = re.compile(
    r"[^\s@\"<>,;:\\\x00-\x1f]{1,64}@[^\s@\"<>,;:\\\x00-\x1f]+\.[^\s@.\x00-\x1f]{2,}"
)


@dataclass(frozen=True, slots=True)
class PhonePlan:
    """A country's numbers: its calling code, and its mobiles as a pattern of the national number.

    The default is Mauritania's numbering plan: eight digits, no trunk prefix.
    """

    calling_code: str = "222"
    mobile: str = r"[2-4][0-46-9][0-9]{6}"

    def __post_init__(self) -> None:
        """Errors: DomainError `bad_phone_plan`."""
        try:
            re.compile(self.mobile)
        except re.error as error:
            raise DomainError("bad_phone_plan", f"the pattern of mobiles: {error}") from None
        if re.fullmatch(r"[1-9][0-9]{0,2}", self.calling_code) is None:
            raise DomainError("bad_phone_plan", "write a calling code of 1 to 3 digits, as 222")


def typed_digits(text: str) -> str:
    """The text with Arabic-Indic digits as Western ones, and without marks that nobody sees.

    >>> typed_digits("\u200e٤٢")
    '42'
    """
    return text.translate(_DIGITS)


def parse_phone(text: str, plan: PhonePlan, *, abroad: bool = False) -> str:
    """E.164 of a mobile number as typed: national, with +, or with 00.

    `abroad`: numbers of other countries are taken too. Errors: DomainError `bad_phone`,
    `phone_not_mobile`.

    >>> parse_phone("٢٢ ٣٣ ٤٤ ٥٥", PhonePlan())
    '+22222334455'
    """
    plain = _BETWEEN.sub("", typed_digits(text))
    if plain.startswith("00"):
        plain = f"+{plain[2:]}"
    elif not plain.startswith("+"):
        plain = f"+{plan.calling_code}{plain}"
    if _E164.fullmatch(plain) is None:
        raise DomainError("bad_phone", "Write a telephone number such as 22 33 44 55.")
    home = f"+{plan.calling_code}"
    if plain.startswith(home):
        if re.fullmatch(plan.mobile, plain.removeprefix(home)) is None:
            raise DomainError("phone_not_mobile", "Write a mobile number: this one takes no codes.")
    elif not abroad:
        raise DomainError("phone_not_mobile", f"Write a mobile number of this country, {home}.")
    return plain


def parse_email(text: str) -> str:
    """An e-mail address, its domain in small letters. Errors: DomainError `bad_email`.

    >>> parse_email(" Aminata@Example.ORG ")
    'Aminata@example.org'
    """
    plain = text.strip()
    if len(plain) > EMAIL_MAX or _EMAIL.fullmatch(plain) is None:
        raise DomainError("bad_email", "Write an e-mail address such as name@example.org.")
    local, _, domain = plain.rpartition("@")
    return f"{local}@{domain.lower()}"


def parse_address(channel: Channel, text: str, plan: PhonePlan) -> str:
    """What a customer is reached at by a channel. WhatsApp works from any country.

    Errors: as parse_phone, parse_email.
    """
    if channel == "email":
        return parse_email(text)
    return parse_phone(text, plan, abroad=channel == "whatsapp")


def parse_code(text: str) -> str:
    """The digits of a one-time code as typed; other characters stay, and fit no code."""
    return _BETWEEN.sub("", typed_digits(text))


def masked_address(address: str) -> str:
    """What its owner knows again and nobody else learns.

    >>> masked_address("+22222334455"), masked_address("aminata@example.org")
    ('+222••••••55', 'a•••@example.org')
    """
    if "@" in address:
        local, _, domain = address.rpartition("@")
        return f"{local[:1]}•••@{domain}"
    return f"{address[:4]}{'•' * max(len(address) - 6, 2)}{address[-2:]}"
