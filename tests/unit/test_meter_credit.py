"""A meter's own credit against its tokens, as a table of what may differ."""

import pytest

from credit_engine.meter_credit import CreditFacts, compare

# At the last agreement: register 1 000, credit 5 000, no tokens. Since then 400 Wh were used.
AGREED = {"register_wh": 1_400, "base_wh": 6_000, "accepted_wh": 0, "tolerance_wh": 100}


@pytest.mark.parametrize(
    ("facts", "verdict", "gap_wh"),
    [
        ({"credit_wh": 4_600}, "matched", 0),
        ({"credit_wh": 4_700}, "matched", 100),
        ({"credit_wh": 4_500}, "matched", -100),
        ({"credit_wh": 14_600, "accepted_wh": 10_000}, "matched", 0),
        # A token of this moment may be in the meter's credit or not yet.
        ({"credit_wh": 4_600, "near_wh": [10_000]}, "matched", 0),
        ({"credit_wh": 14_600, "near_wh": [10_000]}, "matched", 0),
        ({"credit_wh": 16_600, "near_wh": [10_000, 2_000]}, "matched", 0),
        # Entered at the keypad, and its answer never came.
        ({"credit_wh": 14_600, "unanswered_wh": [10_000]}, "missed_token", 10_000),
        ({"credit_wh": 17_600, "unanswered_wh": [10_000, 3_000, 7]}, "missed_token", 13_000),
        # Said to be accepted, and the meter does not have it.
        (
            {"credit_wh": 4_600, "accepted_wh": 10_000, "lately_accepted_wh": [10_000]},
            "missed_token",
            -10_000,
        ),
        ({"credit_wh": 4_000, "rows_missing": True}, "missed_reading", -600),
        ({"credit_wh": 4_000}, "tamper_suspect", -600),
        ({"credit_wh": 9_000}, "tamper_suspect", 4_400),
        ({"credit_wh": 9_000, "unanswered_wh": [10_000]}, "tamper_suspect", 4_400),
        # No meter shows credit below zero.
        ({"credit_wh": 0, "register_wh": 7_500}, "matched", 1_500),
        ({"credit_wh": 0}, "tamper_suspect", -4_600),
    ],
)
def test_what_a_difference_is(facts: dict[str, object], verdict: str, gap_wh: int) -> None:
    found = compare(CreditFacts(**{**AGREED, **facts}))  # type: ignore[arg-type]  # the case
    assert (found.verdict, found.gap_wh) == (verdict, gap_wh)


def test_a_meter_with_many_unanswered_tokens_does_not_explain_every_gap() -> None:
    powers = [2**place * 1_000 for place in range(30)]
    facts = CreditFacts(**{**AGREED, "credit_wh": 4_600 + 2**29 * 1_000}, unanswered_wh=powers)  # type: ignore[arg-type]  # the case
    assert compare(facts).verdict == "tamper_suspect"
