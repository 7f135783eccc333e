"""What the lean path takes is what the engine gives; what it refuses it leaves as it was."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credit_engine.engine import advance, rate_in_general
from credit_engine.facts import Reading
from credit_engine.outcome import Outcome
from credit_engine.position import Position, genesis
from credit_engine.scenario import Scenario, parse_scenario
from credit_engine.steady import Steady, begin

MINUTE = 60_000


def positions(scenario: Scenario) -> list[Position]:
    """Where the readings of a scenario leave the account, one after the other."""
    start = genesis(scenario.terms, scenario.installation)
    readings = sorted(
        (fact for fact in scenario.facts if isinstance(fact, Reading)), key=lambda each: each.at_ms
    )
    found: list[Position] = []
    for reading in readings:
        facts = [each for each in scenario.facts if each.at_ms <= reading.at_ms]
        found.append(advance(scenario.terms, start, facts, reading.at_ms).position)
    return found


def drawn(random: Random, steady: Steady) -> Reading:
    """The next reading: mostly plain, sometimes late, lower, far off or much."""
    step = random.choice([0, 1, 15 * MINUTE, 15 * MINUTE, 60 * MINUTE, 9 * 60 * MINUTE])
    wh = random.choice([0, 0, 1, 7, 120, 700, 4_000, -3, 10**6])
    return Reading(steady.at_ms + step, steady.wh + wh)


def rated(scenario: Scenario, position: Position, reading: Reading) -> Outcome:
    """By the engine's own two ways, which agree."""
    outcome = advance(scenario.terms, position, [reading], reading.at_ms)
    general = rate_in_general(scenario.terms, position, [reading], reading.at_ms)
    assert (outcome.postings, outcome.position) == (general.postings, general.position)
    return outcome


def standing(steady: Steady) -> tuple[int, int, int, list[int]]:
    return steady.at_ms, steady.balance_micro, steady.consumed_wh, list(steady.numbers)


def same(steady: Steady, before: Position, moved: tuple[int, ...], outcome: Outcome) -> None:
    """The posting, the position and the status are the engine's."""
    position = before.moved(steady.at_ms, steady.balance_micro, steady.numbers)
    assert position == outcome.position
    assert outcome.status.supply == "connected"
    assert outcome.verdicts[0].judgement == "accepted"
    assert not outcome.checkpoints
    if not moved:
        assert not outcome.postings
        return
    (posting,) = outcome.postings
    accounts = steady.pricing.accounts
    assert posting.legs == tuple(zip(accounts, moved, strict=True))
    explained = posting.explanation
    (block,) = explained["blocks"]
    assert block["price_micro_per_wh"] == steady.pricing.price_micro_per_wh
    assert [line["base_micro"] for line in explained["taxes"]] == steady.bases()
    assert explained["position_wh"] == steady.consumed_wh - posting.energy_wh


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_is_taken_is_what_the_engine_gives(
    seed: int, invent: Callable[[Random], dict[str, Any]], taken_at_all: list[int]
) -> None:
    random = Random(seed)
    scenario = parse_scenario(invent(random))
    found = positions(scenario)
    for start in random.sample(found, min(4, len(found))):
        position, floor = start, random.choice([0, 0, 1_000_000])
        steady = begin(scenario.terms, position, floor)
        for _ in range(10 if steady is not None else 0):
            assert steady is not None
            reading, before = drawn(random, steady), standing(steady)
            moved = steady.take(reading.at_ms, reading.wh)
            if moved is None:
                assert standing(steady) == before
                continue
            taken_at_all.append(len(moved))
            outcome = rated(scenario, position, reading)
            same(steady, start, moved, outcome)
            assert steady.balance_micro > floor
            position = outcome.position


@pytest.fixture(scope="module")
def taken_at_all():
    """A law about nothing would pass: many readings must be taken, with taxes and without."""
    taken: list[int] = []
    yield taken
    assert len(taken) > 100
    assert {0, 2, 3} <= set(taken)
