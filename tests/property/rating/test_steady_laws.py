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
from credit_engine.steady import STEADY, Debit, Pricing, begin, reopen, take, taxes_due

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


# --- readings that come after the one that they are older than -----------------------------------


def debited(scenario: Scenario, position: Position, newer: Reading) -> Outcome | None:
    """The account at a reading that nothing but one debit leads to, above zero and on supply."""
    outcome = advance(scenario.terms, position, [newer], newer.at_ms)
    if [(each.kind, each.at_ms) for each in outcome.postings] != [("energy", newer.at_ms)]:
        return None
    after, status = outcome.position, outcome.status
    if after.emergency_in_use or after.reconnect_armed or status.supply != "connected":
        return None
    said = outcome.postings[0].explanation
    whole = said["segment"]["from_ms"] == said["registers"]["from"]["at_ms"]
    return outcome if whole and status.balance_micro > 0 else None


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_debit_is_divided_as_the_engine_divides_it_and_nothing_else_moves(
    seed: int, invent: Callable[[Random], dict[str, Any]], divided: list[int]
) -> None:
    random = Random(seed)
    scenario = parse_scenario(invent(random))
    found = [each for each in positions(scenario) if each.at_ms == each.register_at_ms]
    for position in random.choices(found, k=24 if found else 0):
        step = random.choice([30, 60, 240]) * MINUTE
        newer = Reading(
            position.at_ms + step, position.register_wh + random.choice([2, 700, 4_000])
        )
        before = debited(scenario, position, newer)
        if before is None:
            continue
        late = Reading(
            position.at_ms + random.choice([1, step // 3, step // 2, step - 1]),
            position.register_wh + random.choice([0, 1, 350, 700, 5_000, -1]),
        )
        said = before.postings[0].explanation
        from_, charge = said["registers"]["from"], said["charge_micro"]
        bases = tuple(line["base_micro"] - charge for line in said["taxes"])
        debit = Debit(from_["at_ms"], from_["wh"], said["position_wh"], bases)
        balance = position.totals.balance_micro
        power = position.installation.max_power_w
        steady = reopen(scenario.terms.tariff, debit, balance, power)
        if steady is None:
            continue
        row = np.array([steady.row], STEADY)
        parts = []
        for reading in (late, newer):
            taken = take(row, np.array([reading.at_ms]), np.array([reading.wh]))
            parts.append((reading, taken, taxes_due(row, taken.bases)))
        if not all(taken.taken[0] for _, taken, _ in parts):
            continue
        after = advance(scenario.terms, position, [late, newer], newer.at_ms)
        assert (after.position, after.status) == (before.position, before.status)
        assert [each.judgement for each in after.verdicts] == ["accepted"] * 2
        divided.append(int(row["taxes"][0]))
        explained = [
            explained_by(steady.pricing, position.installation.meter_id, *part)
            for part in parts
            if part[1].energy_wh[0]
        ]
        assert explained == [(each.legs, each.explanation) for each in after.postings]


def explained_by(pricing: Pricing, meter: str, reading: Reading, taken: Any, due: Any) -> Any:
    """The legs of a part, and what explains it."""
    count, energy = len(pricing.cell.energy_taxes), int(taken.energy_wh[0])
    amounts = taken.amounts[0, : 2 + count].tolist()
    lines = list(
        zip(taken.bases[0, :count].tolist(), due[0, :count].tolist(), amounts[2:], strict=True)
    )
    registers = (int(taken.from_ms[0]), reading.wh - energy, reading.at_ms, reading.wh)
    charge = energy * pricing.price_micro_per_wh
    position_wh = int(taken.position_wh[0])
    said = pricing.explain(meter, registers, position_wh, energy, charge, lines)
    return tuple(zip(pricing.accounts, amounts, strict=True)), said


@pytest.fixture(scope="module")
def divided() -> Iterator[list[int]]:
    """How many taxes each had that was divided."""
    found: list[int] = []
    yield found
    assert len(found) > 100
    assert {0, 1} <= set(found)
