"""A meter that takes tokens is registered under one identity, and one that can buy."""

import pytest

from store.registry import NewMeter
from tokens.errors import TokenError
from tokens.keys import KeyAttributes

HELD = KeyAttributes("123456", 1, 2, 255, "01", 2014, 11, 4)
NUMBER, PAN = "07123456787", "600727071234567873"


@pytest.mark.parametrize(
    ("number", "meter_pan", "fits"),
    [
        (NUMBER, PAN, True),
        (PAN, PAN, True),
        ("0100000000008", "000001000000000082", True),
        # another meter's
        (NUMBER, "600727000000000009", False),
        ("600727000000000009", PAN, False),
        ("0100000000008", PAN, False),
        # a check digit: published refusals among them
        ("12345678904", PAN, False),
        ("11111111113", PAN, False),
        ("07123456788", PAN, False),
        ("600727071234567874", PAN, False),
        (NUMBER, "600727071234567874", False),
        (NUMBER, "600727071234567881", False),
        (NUMBER, "600727071234567", False),
        # no number of the standard
        ("370000000171", PAN, False),
    ],
)
def test_a_meter_that_takes_tokens_has_one_identity(
    number: str, meter_pan: str, fits: bool
) -> None:
    assert NewMeter(number).number == number, "a device without tokens may have any number"
    if fits:
        assert NewMeter(number, meter_pan, HELD).meter_pan == meter_pan
        return
    with pytest.raises(TokenError) as refusal:
        NewMeter(number, meter_pan, HELD)
    assert refusal.value.code == "number_invalid"


@pytest.mark.parametrize("dkga", [2, 4])
@pytest.mark.parametrize("kt", [0, 1, 2, 3])
def test_a_meter_that_could_not_buy_is_refused(kt: int, dkga: int) -> None:
    attributes = KeyAttributes("123456", 1, kt, 255, "01", 2014, 7, dkga)
    if kt in {1, 2} or (kt, dkga) == (3, 2):
        assert NewMeter(NUMBER, PAN, attributes).attributes == attributes
        return
    with pytest.raises(TokenError) as refusal:
        NewMeter(NUMBER, PAN, attributes)
    assert refusal.value.code == "key_type_refused"
