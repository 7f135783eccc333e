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
from credit_engine.facts import Adjustment, Exchange, Fact, Reading, Reversal, TopUp
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
    # What was taken back after it was consumed moves to the debt.
    extra += [
        Adjustment(f"d{place}", random.choice(instants), 10**6 * random.randint(1, 9), "r", True)
        for place in range(random.choice([0, 1, 2]))
    ]
    # Cash in coins: half a coin of 0.20 at most, either way.
    facts = [
        replace(fact, rounding_micro=random.choice([0, 70_000, -100_000]))
        if isinstance(fact, TopUp) and sum(same(fact, each) for each in facts) == 1
        else fact
        for fact in facts
    ]
    return replace(scenario, facts=(*facts, *extra)), extra


def same(top_up: TopUp, fact: Fact) -> bool:
    return isinstance(fact, TopUp) and fact.id == top_up.id


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
    # Debt that grew takes its share of later top-ups: here only what has no debt beside it.
    extra = [each for each in extra if not each.to_debt]
    kept = tuple(each for each in scenario.facts if not getattr(each, "to_debt", False))
    scenario = replace(scenario, facts=kept)
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


@law
@randoms
def test_what_moves_to_the_debt_is_owed_to_the_micro_unit(random: Random, invent: Invent) -> None:
    scenario, _ = adjusted(random, invent)
    whole = rated(scenario, scenario.facts)
    net: dict[str, int] = {}
    for posting in whole.postings:
        for account, amount in posting.legs:
            net[account] = net.get(account, 0) + amount
    assert net.get("customer", 0) == whole.status.balance_micro
    assert -net.get("debt", 0) == whole.status.debt_outstanding_micro
    # Rounding of cash that was taken back is taken back with it.
    reversed_ids = {
        fact.top_up_id
        for fact in scenario.facts
        if isinstance(fact, Reversal) and fact.at_ms <= scenario.until_ms
    }
    rounded = {
        fact.id: fact.rounding_micro
        for fact in scenario.facts
        if isinstance(fact, TopUp) and fact.at_ms <= scenario.until_ms
    }
    assert net.get("cash_rounding", 0) == sum(
        micro for number, micro in rounded.items() if number not in reversed_ids
    )
