"""Adjustments are facts like all others: any order, any copies, any split of the run."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credit_engine.engine import advance
from credit_engine.errors import CreditError
from credit_engine.facts import Adjustment, Exchange, Fact, Reading, Reversal
from credit_engine.outcome import Outcome
from credit_engine.position import genesis
from credit_engine.scenario import Scenario, parse_scenario

Invent = Callable[[Random], dict[str, Any]]
law = settings(max_examples=60, deadline=None)
randoms = given(random=st.integers(0, 2**32).map(Random))


def adjusted(random: Random, invent: Invent) -> tuple[Scenario, list[Adjustment]]:
    """An invented scenario with one reading per instant, and adjustments of its account."""
    scenario = parse_scenario(invent(random))
    taken: set[int] = set()
    facts: list[Fact] = []
    for fact in scenario.facts:
        if isinstance(fact, Reading | Exchange):
            if fact.at_ms in taken:
                continue
            taken.add(fact.at_ms)
        facts.append(fact)
    begin_ms, end_ms = scenario.terms.activated_at_ms, scenario.until_ms
    instants = [begin_ms, *(each.at_ms for each in facts if begin_ms <= each.at_ms <= end_ms)]
    extra = [
        Adjustment(f"a{place}", random.choice(instants), random.choice([-7, 1, 3]) * 10**6, "r")
        for place in range(random.choice([1, 3, 6]))
    ]
    return replace(scenario, facts=(*facts, *extra)), extra


def rated(scenario: Scenario, facts: tuple[Fact, ...]) -> Outcome:
    start = genesis(scenario.terms, scenario.installation)
    return advance(scenario.terms, start, facts, scenario.until_ms)


@law
@randoms
def test_order_and_copies_of_adjustments_change_nothing(random: Random, invent: Invent) -> None:
    scenario, extra = adjusted(random, invent)
    once = rated(scenario, scenario.facts)
    mixed = [*scenario.facts, *random.choices(extra, k=3)]
    random.shuffle(mixed)
    again = rated(scenario, tuple(mixed))
    assert (again.postings, again.status, again.position) == (
        once.postings, once.status, once.position,
    )  # fmt: skip
    assert all(sum(amount for _, amount in each.legs) == 0 for each in once.postings)


@law
@randoms
def test_an_adjustment_moves_the_balance_by_itself_and_no_other_charge(
    random: Random, invent: Invent
) -> None:
    scenario, extra = adjusted(random, invent)
    # A daily instalment looks at the balance; nothing else that is posted does.
    debt = replace(scenario.terms.debt, daily_micro=None)
    scenario = replace(scenario, terms=replace(scenario.terms, debt=debt))
    plain = rated(scenario, tuple(each for each in scenario.facts if each not in extra))
    whole = rated(scenario, scenario.facts)
    moved = sum(each.amount_micro for each in extra if each.at_ms <= scenario.until_ms)
    assert whole.status.balance_micro == plain.status.balance_micro + moved
    others = [each for each in whole.postings if each.kind != "adjustment"]
    assert others == list(plain.postings)


@law
@randoms
def test_a_run_may_be_split_around_adjustments(random: Random, invent: Invent) -> None:
    scenario, _ = adjusted(random, invent)
    # A reversal of a top-up from before the position needs the split that the ledger holds.
    facts = tuple(each for each in scenario.facts if not isinstance(each, Reversal))
    whole = rated(scenario, facts)
    for point in whole.checkpoints:
        since = [
            fact
            for fact in facts
            if fact.at_ms > point.at_ms
            or (fact.at_ms == point.at_ms and not isinstance(fact, Reading | Exchange))
        ]
        tail = advance(scenario.terms, point, since, scenario.until_ms)
        assert (tail.status, tail.position) == (whole.status, whole.position)
        if tail.postings:
            assert tail.postings == whole.postings[-len(tail.postings) :]


def test_one_number_with_two_contents_is_refused(invent: Invent) -> None:
    scenario, extra = adjusted(Random(1), invent)
    other = replace(extra[0], amount_micro=extra[0].amount_micro + 1)
    with pytest.raises(CreditError) as caught:
        rated(scenario, (*scenario.facts, other))
    assert caught.value.code == "adjustment_conflict"
