"""Phones and addresses as people type them."""

import pytest

from schemas.contacts import (
    PhonePlan,
    masked_address,
    parse_address,
    parse_code,
    parse_email,
    parse_phone,
)
from schemas.errors import DomainError

PLAN = PhonePlan()


@pytest.mark.parametrize(
    "typed",
    [
        "22334455",
        "22 33 44 55",
        "22-33-44-55",
        "(22) 33.44.55",
        "+222 22 33 44 55",
        "00222 22334455",
        "٢٢٣٣٤٤٥٥",
        "۲۲ ۳۳ ۴۴ ۵۵",
        "\u200f+٢٢٢ ٢٢٣٣٤٤٥٥\u200f",
        "\u202a22334455\u202c",
    ],
)
def test_a_number_is_the_same_however_it_is_typed(typed: str) -> None:
    assert parse_phone(typed, PLAN) == "+22222334455"


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("", "bad_phone"),
        ("+", "bad_phone"),
        ("2233", "bad_phone"),
        ("22334455x", "bad_phone"),
        ("+0222334455", "bad_phone"),
        ("+2222233445566778", "bad_phone"),
        ("25012345", "phone_not_mobile"),
        ("45112345", "phone_not_mobile"),
        ("80012345", "phone_not_mobile"),
        ("223344556", "phone_not_mobile"),
        ("+221771234567", "phone_not_mobile"),
    ],
)
def test_what_is_no_mobile_of_the_country_is_refused(typed: str, code: str) -> None:
    with pytest.raises(DomainError) as caught:
        parse_phone(typed, PLAN)
    assert caught.value.code == code


def test_another_country_has_another_plan_and_whatsapp_none() -> None:
    senegal = PhonePlan("221", "7[05678][0-9]{7}")
    assert parse_phone("77 123 45 67", senegal) == "+221771234567"
    assert parse_address("whatsapp", "+221771234567", PLAN) == "+221771234567"
    # At home WhatsApp needs a mobile, too.
    with pytest.raises(DomainError, match="takes no codes"):
        parse_address("whatsapp", "25012345", PLAN)


@pytest.mark.parametrize(("calling_code", "mobile"), [("0", "7"), ("+222", "7"), ("222", "(")])
def test_a_plan_that_is_none_is_refused(calling_code: str, mobile: str) -> None:
    with pytest.raises(DomainError) as caught:
        PhonePlan(calling_code, mobile)
    assert caught.value.code == "bad_phone_plan"


@pytest.mark.parametrize(
    "typed",
    ["a", "a@b", "@example.org", "a@.org", "a b@example.org", "a@example.org\n.x", "a@b@c.org",
     f"{'a' * 65}@example.org", f"a@{'b' * 250}.org", '"a"@example.org'],
)  # fmt: skip
def test_what_is_no_mail_address_is_refused(typed: str) -> None:
    with pytest.raises(DomainError) as caught:
        parse_email(typed)
    assert caught.value.code == "bad_email"


def test_a_mask_shows_two_ends_and_a_code_is_its_digits() -> None:
    assert masked_address("+22222334455") == "+222••••••55"
    assert masked_address("aminata@example.org") == "a•••@example.org"
    assert parse_code(" ١٢٣ ٤٥٦ ") == "123456"
    assert parse_code("12345x") == "12345x"
