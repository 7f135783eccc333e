import doctest

import pytest

from tokens import crc, numbers
from tokens.errors import TokenError


@pytest.mark.parametrize("module", [numbers, crc])
def test_the_manual_in_the_docstring_is_true(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize(
    ("iin", "drn", "pan"),
    [
        ("600727", "00000000000", "600727000000000009"),
        ("0000", "0100000000008", "000001000000000082"),
        ("600727", "11111111115", "600727111111111153"),
    ],
)
def test_published_meter_pans_are_made_and_taken_apart(iin, drn, pan):
    assert numbers.meter_pan(iin, drn) == pan
    assert numbers.validate_meter_pan(pan) == pan
    assert numbers.parts(pan) == (iin, drn)
    assert numbers.to_meter_pan(drn) == pan


@pytest.mark.parametrize(
    "text",
    [
        "12345678904",  # published as failing (CTSA17)
        "11111111113",  # published as failing (CTSA17)
        "1234567890",
        "123456789012",
        "0712345678A",
        "",
        "１２３４５６７８９０３",  # digits, but of another block than keyboards send
    ],
)
def test_a_bad_drn_is_refused_at_entry(text):
    with pytest.raises(TokenError) as refusal:
        numbers.validate_drn(text)
    assert refusal.value.code == "number_invalid"


@pytest.mark.parametrize(
    "text",
    [
        "600727000000000008",  # check digit of the PAN
        "600727123456789048",  # check digit of the DRN inside, the PAN's own is right
        "60072700000000000",
        "400000000000000006",  # an issuer that makes no meters
        "600727 00000000000",
    ],
)
def test_a_bad_meter_pan_is_refused_at_entry(text):
    with pytest.raises(TokenError) as refusal:
        numbers.validate_meter_pan(text)
    assert refusal.value.code == "number_invalid"


def test_the_bad_drn_above_sits_in_a_pan_whose_own_check_digit_is_right():
    assert numbers.has_valid_check_digit("600727123456789048")


def test_a_two_digit_maker_does_not_go_with_the_four_digit_issuer_number():
    with pytest.raises(TokenError, match="IIN"):
        numbers.meter_pan("0000", "07123456787")


@pytest.mark.parametrize("typed", ["٠٧١٢٣٤٥٦٧٨٧", "۰۷۱۲۳۴۵۶۷۸۷", "0712-345 6787", " 07123456787\n"])
def test_numbers_are_taken_as_people_type_them(typed):
    assert numbers.validate_drn(typed) == "07123456787"


@pytest.mark.parametrize(
    ("maker", "serial"), [("7", "1"), ("07x", "1"), ("07", ""), ("07", "9" * 9)]
)
def test_a_drn_is_not_made_of_odd_parts(maker, serial):
    with pytest.raises(TokenError):
        numbers.drn(maker, serial)


def test_a_short_serial_number_is_padded():
    assert numbers.drn("0001", "42") == numbers.drn("0001", "00000042")


def test_a_check_digit_is_not_computed_of_letters():
    with pytest.raises(TokenError):
        numbers.check_digit("12a")
