"""The track of a payment: one step is awaited at most, and what nobody knows is never failed."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.suspects import Suspect
from store.top_ups import TopUp
from store.tracker import Carried, Step, steps_of, steps_of_held

AT = 1_772_323_200_000
PAID = TopUp(
    id="id", account="A-1", meter="07000000015", currency="MRU", channel="bank",
    partner_txn_id="t1", amount_micro=10**6, paid_ms=AT, credited_ms=AT + 1, receipt_number=1,
    energy_wh=100, lines=(), token_issued_ms=AT + 1, delivered_ms=None, accepted_ms=None,
    on_supply_ms=None, rejected_ms=None, reversed_ms=None, tokens=("1" * 20,),
)  # fmt: skip
CARRIED = Carried(
    reconnects=True,
    takes_tokens=True,
    command_state="queued",
    became_debt_micro=None,
    moved_to=None,
)
HELD = Suspect(
    "s", "bank", "t1", bytes(32), "1", 10**6, AT, None, "unknown_meter", "detail", AT + 1, None,
    None, None, None, None,
)  # fmt: skip


def found(**of: Any) -> dict[str, str]:
    """step: state, of a top-up with these times and this order."""
    carried = replace(
        CARRIED, **{name: of.pop(name) for name in list(of) if hasattr(CARRIED, name)}
    )
    return {each.step: each.state for each in steps_of(replace(PAID, **of), carried)}


CREDITED = {"paid": "done", "received": "done", "credited": "done"}


@pytest.mark.parametrize(
    ("of", "wanted"),
    [
        ({}, "done awaited later later"),
        ({"delivered_ms": AT + 2}, "done done awaited later"),
        ({"delivered_ms": AT + 2, "command_state": "unknown"}, "done done awaited later"),
        ({"command_state": "unknown"}, "done awaited later later"),
        ({"command_state": "expired"}, "done awaited later later"),
        ({"delivered_ms": AT + 2, "accepted_ms": AT + 3}, "done done done awaited"),
        # Typed in at the keypad: nobody delivered it, and nothing is awaited of anybody.
        ({"accepted_ms": AT + 3}, "done not_needed done awaited"),
        ({"accepted_ms": AT + 3, "on_supply_ms": AT + 4}, "done not_needed done done"),
        ({"delivered_ms": AT + 2, "rejected_ms": AT + 3}, "done done refused later"),
        # A supply that was never off reports on at any time.
        ({"reconnects": False}, "done awaited later not_needed"),
        ({"reconnects": False, "on_supply_ms": AT + 2}, "done awaited later not_needed"),
        ({"token_issued_ms": None, "takes_tokens": False},
         "not_needed not_needed not_needed awaited"),
        ({"token_issued_ms": None, "takes_tokens": False, "on_supply_ms": AT + 2},
         "not_needed not_needed not_needed done"),
    ],
)  # fmt: skip
def test_each_progress_has_its_steps(of: dict[str, Any], wanted: str) -> None:
    names = ("token_issued", "delivered", "accepted", "on_supply")
    assert found(**of) == CREDITED | dict(zip(names, wanted.split(), strict=True))


def test_what_was_taken_back_or_moved_waits_for_nobody() -> None:
    assert found(reversed_ms=AT + 5) == CREDITED | {"reversed": "done"}
    assert found(reversed_ms=AT + 5, moved_to="t1~id") == CREDITED | {"moved": "done"}
    note = steps_of(replace(PAID, reversed_ms=AT + 5), replace(CARRIED, became_debt_micro=7))[
        -1
    ].note
    assert note == "a part was consumed already and is debt now"


def test_a_held_payment_waits_for_the_utility() -> None:
    assert [(each.step, each.owner, each.state) for each in steps_of_held(HELD)][2:] == [
        ("checked", "utility", "awaited"), ("credited", "utility", "later"),
    ]  # fmt: skip
    returned = replace(HELD, decision="returned", decided_ms=AT + 9)
    assert [(each.step, each.state) for each in steps_of_held(returned)][2:] == [
        ("checked", "done"), ("returned", "done"),
    ]  # fmt: skip
    credited = replace(HELD, decision="credited", decided_ms=AT + 9, top_up="id")
    (checked,) = [each for each in steps_of(PAID, CARRIED, credited) if each.step == "checked"]
    assert (checked.state, checked.at_ms) == ("done", AT + 9)


TIMES = st.one_of(st.none(), st.integers(AT + 1, AT + 10))
STATES = st.sampled_from(
    [None, "queued", "sent", "accepted", "executing", "done", "failed", "refused", "expired",
     "superseded", "unknown"]
)  # fmt: skip


@given(
    times=st.fixed_dictionaries(
        dict.fromkeys(
            ("token_issued_ms", "delivered_ms", "accepted_ms", "on_supply_ms", "rejected_ms",
             "reversed_ms"),
            TIMES,
        )
    ),
    carried=st.builds(
        Carried, reconnects=st.booleans(), takes_tokens=st.booleans(), command_state=STATES,
        became_debt_micro=st.none(), moved_to=st.none(),
    ),
)  # fmt: skip
def test_one_step_is_awaited_at_most_and_nothing_after_it_has_happened(
    times: dict[str, int | None], carried: Carried
) -> None:
    steps = steps_of(replace(PAID, **times), carried)  # type: ignore[arg-type] # times by name
    over = {"done", "not_needed"}
    open_places = [n for n, each in enumerate(steps) if each.state in {"awaited", "refused"}]
    assert len(open_places) <= 1
    for n, step in enumerate(steps):
        if not open_places or n < open_places[0]:
            assert step.state in over
        elif n > open_places[0]:
            assert step.state in {"later", "not_needed"}
        timed(step)
    # Only the meter's own word is a refusal.
    if times["rejected_ms"] is None:
        assert "refused" not in {each.state for each in steps}


def timed(step: Step) -> None:
    if step.state in {"awaited", "later"}:
        assert step.at_ms is None
    if step.state in {"awaited", "refused"}:
        assert step.note
