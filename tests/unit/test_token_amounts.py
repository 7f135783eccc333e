"""`prepaid token issue --amount`: what is typed becomes whole smallest units, or is refused."""

import pytest

from prepaid.commands.sts import _smallest_units
from schemas.errors import DomainError
from tokens.amount import CURRENCY_AMOUNT_LAST

KWH, MONEY = 0, 4


@pytest.mark.parametrize(
    ("typed", "subclass", "units"),
    [
        ("25.6", KWH, 256),
        ("25.61", KWH, 257),
        ("25.6000000000000000000000000001", KWH, 257),
        ("-25.6000000000000000000000000001", MONEY, -2_560_000),
        ("9" * 36, MONEY, CURRENCY_AMOUNT_LAST + 1),
        (" 25.6\n", KWH, 256),
        ("+25.6", KWH, 256),
        ("٢٥.٦", KWH, 256),
        ("007", KWH, 70),
        ("5", MONEY, 500_000),
        ("-5", MONEY, -500_000),
        (" -5", MONEY, -500_000),
        ("-٥", MONEY, -500_000),
        ("-0.000019", MONEY, -1),
    ],
)
def test_an_amount_keeps_its_sign_and_every_digit(typed: str, subclass: int, units: int) -> None:
    assert _smallest_units(typed, subclass) == units


@pytest.mark.parametrize(
    "typed",
    [
        *("", " ", "-", "5-", "- 5", "--5", "1-5", "1 5", "1_0", "1,5", ".5", "5.", "1.2.3"),
        *("1e3", "NaN", "inf", "1/3", "0x10", "²", "5 kWh", "-5\u00a0-"),
    ],
)
def test_what_is_not_wholly_an_amount_is_refused(typed: str) -> None:
    with pytest.raises(DomainError) as refusal:
        _smallest_units(typed, MONEY)
    assert refusal.value.code == "bad_option"
