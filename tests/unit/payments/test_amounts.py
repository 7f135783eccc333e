"""Amounts as channels write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments.amounts import MICRO_PER_HUNDREDTH, decimal_text, hundredths, of_hundredths
from schemas.errors import DomainError
from schemas.quantities import parse_micro

payable = st.integers(min_value=1, max_value=10**13).map(lambda each: each * MICRO_PER_HUNDREDTH)


@given(payable)
def test_an_amount_comes_back_as_it_went(micro: int) -> None:
    assert of_hundredths(hundredths(micro)) == micro
    assert of_hundredths(str(hundredths(micro))) == micro
    assert parse_micro(decimal_text(micro)) == micro


@pytest.mark.parametrize(
    ("micro", "text"), [(50_000_000, "50"), (50_200_000, "50.20"), (10_000, "0.01")]
)
def test_text_has_two_decimals_or_none(micro: int, text: str) -> None:
    assert decimal_text(micro) == text


@pytest.mark.parametrize(
    "said", [None, "", "0", 0, "-1", -1, "1.5", 1.5, "1e3", True, [1], {"a": 1}, "٥", "9" * 15]
)
def test_what_is_no_amount_is_refused(said: object) -> None:
    with pytest.raises(DomainError) as refusal:
        of_hundredths(said)
    assert refusal.value.code == "notification_malformed"
