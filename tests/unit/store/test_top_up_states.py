"""The state of now, from the times at which each state was reached."""

from dataclasses import replace

import pytest

from store.top_ups import IssuedToken, TopUp

PAID = TopUp(
    id="t",
    account="A-1",
    meter="07000000017",
    currency="MRU",
    channel="bank",
    partner_txn_id="1",
    amount_micro=1,
    paid_ms=1,
    credited_ms=2,
    receipt_number=1,
    energy_wh=0,
    lines=(),
    token_issued_ms=None,
    delivered_ms=None,
    accepted_ms=None,
    on_supply_ms=None,
    rejected_ms=None,
    reversed_ms=None,
    tokens=(),
)


@pytest.mark.parametrize(
    ("reached", "state"),
    [
        ("", "credited"),
        ("token_issued", "token_issued"),
        ("token_issued delivered", "delivered"),
        ("token_issued delivered accepted", "accepted"),
        ("token_issued delivered accepted on_supply", "on_supply"),
        # a supply that was never cut: the token is still awaited
        ("token_issued on_supply", "token_issued"),
        ("token_issued delivered on_supply", "delivered"),
        # a meter that takes no tokens
        ("on_supply", "on_supply"),
        ("token_issued delivered on_supply rejected", "rejected"),
        ("token_issued delivered rejected", "rejected"),
        ("reversed", "reversed"),
        ("on_supply reversed", "reversed"),
    ],
)
def test_the_state_of_now_is_the_furthest_that_counts(reached: str, state: str) -> None:
    top_up = replace(
        PAID, **{f"{name}_ms": 3 + place for place, name in enumerate(reached.split())}
    )
    assert top_up.state == state
    assert [name for name, _ in top_up.states()] == ["received", "credited", *reached.split()]


@pytest.mark.parametrize(
    ("command", "result", "state"),
    [
        (None, None, "issued"),
        ("queued", None, "issued"),
        ("sent", None, "delivered"),
        ("unknown", None, "delivered"),
        ("expired", None, "issued"),
        ("done", "Accept", "accepted"),
        ("done", "UsedError", "accepted"),
        ("failed", "OldError", "rejected"),
    ],
)
def test_only_the_meters_word_makes_a_token_accepted(
    command: str | None, result: str | None, state: str
) -> None:
    token = IssuedToken(1, "m", "t", 1, "0" * 20, 0, 0, 5, 1, command, result, None, False)
    assert token.state == state
    # Another took its place; a meter that had taken this one had taken it all the same.
    stands = "accepted" if state == "accepted" else "replaced"
    assert replace(token, replaced=True).state == stands
