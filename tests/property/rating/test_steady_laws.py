"""What the lean path takes is what the engine gives; what it refuses it leaves as it was."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credit_engine.engine import advance, rate_in_general
from credit_engine.facts import Reading
from credit_engine.outcome import Outcome
from credit_engine.position import Position, genesis
from credit_engine.scenario import Scenario, parse_scenario
from credit_engine.steady import STEADY, Pricing, begin, take

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


def drawn(random: Random, row: Any) -> Reading:
    """The next reading: mostly plain, sometimes late, lower, far off, much or absurd."""
    step = random.choice([0, 1, 15 * MINUTE, 15 * MINUTE, 60 * MINUTE, 9 * 60 * MINUTE, 2**45])
    wh = random.choice([0, 0, 1, 7, 120, 700, 4_000, -3, 10**6, 2**53 - 1 - int(row["wh"])])
    return Reading(int(row["at_ms"]) + step, max(0, int(row["wh"]) + wh))


def rated(scenario: Scenario, position: Position, reading: Reading) -> Outcome:
    """By the engine's own two ways, which agree."""
    outcome = advance(scenario.terms, position, [reading], reading.at_ms)
    general = rate_in_general(scenario.terms, position, [reading], reading.at_ms)
    assert (outcome.postings, outcome.position) == (general.postings, general.position)
    return outcome


def same(pricing: Pricing, row: Any, before: Position, said: list[Any], outcome: Outcome) -> None:
    """The posting, the position and the status are the engine's."""
    from_ms, position_wh, energy_wh, amounts, bases = said
    numbers = row["numbers"][: row["count"]].tolist()
    assert before.moved(int(row["at_ms"]), int(row["balance_micro"]), numbers) == outcome.position
    assert outcome.status.supply == "connected"
    assert outcome.verdicts[0].judgement == "accepted"
    assert not outcome.checkpoints
    if not energy_wh:
        assert not outcome.postings
        return
    (posting,) = outcome.postings
    taxes = int(row["taxes"])
    moved = amounts[: 2 + taxes].tolist()
    assert posting.legs == tuple(zip(pricing.accounts, moved, strict=True))
    assert not amounts[2 + taxes :].any()
    assert posting.energy_wh == energy_wh
    explained = posting.explanation
    (block,) = explained["blocks"]
    assert block["price_micro_per_wh"] == pricing.price_micro_per_wh
    assert [line["base_micro"] for line in explained["taxes"]] == bases[:taxes].tolist()
    assert explained["position_wh"] == position_wh
    assert explained["registers"]["from"]["at_ms"] == from_ms


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_is_taken_is_what_the_engine_gives(
    seed: int, invent: Callable[[Random], dict[str, Any]], taken_at_all: list[int]
) -> None:
    random = Random(seed)
    scenario = parse_scenario(invent(random))
    floor = random.choice([0, 0, 1_000_000])
    found = positions(scenario)
    starts = [
        (position, steady)
        for position in random.sample(found, min(4, len(found)))
        if (steady := begin(scenario.terms, position, floor)) is not None
    ]
    # All of them at once: none of them may touch another.
    now = [position for position, _ in starts]
    rows = np.array([steady.row for _, steady in starts], STEADY)
    for _ in range(10 if starts else 0):
        readings = [drawn(random, row) for row in rows]
        before = rows.copy()
        taken = take(
            rows,
            np.array([reading.at_ms for reading in readings]),
            np.array([reading.wh for reading in readings]),
        )
        for place, (start, steady) in enumerate(starts):
            row, (is_taken, *said) = rows[place], [each[place] for each in taken]
            if not is_taken:
                assert row == before[place]
                continue
            taken_at_all.append(2 + int(row["taxes"]) if said[2] else 0)
            outcome = rated(scenario, now[place], readings[place])
            same(steady.pricing, row, start, said, outcome)
            assert row["balance_micro"] > floor
            now[place] = outcome.position


@pytest.fixture(scope="module")
def taken_at_all() -> Iterator[list[int]]:
    """A law about nothing would pass: many readings must be taken, with taxes and without."""
    taken: list[int] = []
    yield taken
    assert len(taken) > 100
    assert {0, 2, 3} <= set(taken)
