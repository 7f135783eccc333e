"""A threshold is crossed once each way, whatever the walk of the balance."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from credit_engine.outcome import Posting, Status, Supply
from credit_engine.tariff import parse_terms
from credit_engine.thresholds import Levels, Step, crossings, levels, rearm_micro, steps

LOW = 20
TERMS = parse_terms(
    {
        "timezone": "Africa/Nouakchott",
        "currency": "MRU",
        "tariff": {
            "versions": [
                {
                    "valid_from": "2026-01-01",
                    "period": "month",
                    "bands": [{"name": "all", "method": "graduated", "blocks": [{"price": "1"}]}],
                }
            ]
        },
        "account": {"activated_at": "2026-03-01T00:00:00Z"},
    }
)
SUPPLIES: Sequence[Supply] = ("connected", "protected", "disconnected")
statuses = st.builds(
    Status,
    at_ms=st.just(1),
    balance_micro=st.integers(-40, 60),
    debt_outstanding_micro=st.just(0),
    supply=st.sampled_from(SUPPLIES),
    emergency_in_use=st.booleans(),
    emergency_available=st.just(False),
    next_change_ms=st.none(),
)
walks = st.lists(st.tuples(statuses, st.booleans(), st.booleans()), max_size=30)
START = Levels(low_credit=True, zero=True, emergency=False, supply="connected")


@given(walks)
def test_every_crossing_is_told_once_and_every_threshold_turns_back_and_forth(
    walk: list[tuple[Status, bool, bool]],
) -> None:
    before, told, balance = START, [], 0
    for place, (drawn, held, may_worsen) in enumerate(walk):
        status = replace(drawn, at_ms=place)
        after = levels(before, status, LOW, held=held, may_worsen=may_worsen)
        # The same facts again decide nothing: redelivery, re-rating, a second worker.
        assert levels(after, status, LOW, held=held, may_worsen=may_worsen) == after
        path = [Step(place, balance, status.balance_micro, f"k{place}", True)]
        found = crossings(TERMS, before, after, LOW, path, status, place - 1, None)
        changed = [
            name
            for name in ("low_credit", "zero", "emergency", "supply")
            if getattr(before, name) != getattr(after, name)
        ]
        assert [one.threshold for one in found] == changed
        told += found
        before, balance = after, status.balance_micro
    for name in ("low_credit", "zero", "emergency", "supply"):
        kinds = [one.kind for one in told if one.threshold == name]
        assert all(one != other for one, other in pairwise(kinds))


@given(st.lists(st.integers(LOW + 1, rearm_micro(LOW)), min_size=1), st.booleans())
def test_a_balance_between_the_two_edges_crosses_neither(walk: list[int], low: bool) -> None:
    before = replace(START, low_credit=low, zero=False)
    for balance in walk:
        status = Status(1, balance, 0, "connected", False, False, None)
        assert levels(before, status, LOW, held=False, may_worsen=True).low_credit is low


@given(statuses, st.sampled_from(SUPPLIES))
def test_a_hold_and_a_replay_never_cut_and_never_restore(status: Status, supply: Supply) -> None:
    before = replace(START, supply=supply)
    for held, may_worsen in ((True, True), (False, False), (True, False)):
        after = levels(before, status, LOW, held=held, may_worsen=may_worsen).supply
        if supply != "disconnected":
            assert after != "disconnected"
        if status.supply != "connected" and supply == "disconnected":
            assert after == "disconnected"


@given(
    statuses,
    st.builds(Levels, st.booleans(), st.booleans(), st.booleans(), st.sampled_from(SUPPLIES)),
    st.booleans(),
)
def test_a_replay_worsens_nothing_and_the_next_settlement_tells_all_of_it(
    status: Status, before: Levels, held: bool
) -> None:
    after = levels(before, status, LOW, held=held, may_worsen=False)
    live = levels(before, status, LOW, held=held, may_worsen=True)
    for name in ("low_credit", "zero", "emergency"):
        was, told = getattr(before, name), getattr(live, name)
        assert getattr(after, name) == (was and told)
    worse = SUPPLIES.index(live.supply) > SUPPLIES.index(before.supply)
    assert after.supply == (before.supply if worse else live.supply)
    assert levels(after, status, LOW, held=held, may_worsen=True) == live


def test_the_steps_of_postings_are_the_walk_of_the_balance() -> None:
    day = TERMS.tariff.versions[0].valid_from

    def posting(key: str, at_ms: int, amount: int) -> Posting:
        legs = (("customer", amount), ("x", -amount)) if amount else ()
        return Posting(key, "energy", at_ms, day, "all", 1, 0, legs, {})

    found = steps(10, [posting("a", 1, -4), posting("b", 2, 0), posting("c", 3, 9)], {"c"})
    assert found == [Step(1, 10, 6, "a", False), Step(3, 6, 15, "c", True)]
