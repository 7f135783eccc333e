"""The laws of section 11 of the rating contract, on invented scenarios."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credit_engine.engine import advance, rate_in_general
from credit_engine.errors import CreditError
from credit_engine.facts import Exchange, Fact, Reading, RecordedTopUp, Reversal, TopUp
from credit_engine.outcome import Outcome, Posting
from credit_engine.position import GENESIS_MS, Position, genesis
from credit_engine.quote import _cell, _cost_micro, energy_cost
from credit_engine.scenario import Scenario, parse_scenario
from credit_engine.scenario_report import report
from credit_engine.settlement import Correction, New, Posted, settle

Invent = Callable[[Random], dict[str, Any]]
MINUTE = 60_000

law = settings(max_examples=120, deadline=None)
randoms = given(random=st.integers(0, 2**32).map(Random))


def rated(scenario: Scenario) -> Outcome:
    start = genesis(scenario.terms, scenario.installation)
    return advance(scenario.terms, start, scenario.facts, scenario.until_ms)


def shown(scenario: Scenario, *, with_duplicates: bool) -> dict[str, Any]:
    result = report(scenario.terms, rated(scenario), ())
    if not with_duplicates:
        del result["readings"]["duplicate"]
    return result


def without_conflicts(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    taken: set[int] = set()
    kept = []
    for fact in facts:
        if isinstance(fact, Reading | Exchange):
            if fact.at_ms in taken:
                continue
            taken.add(fact.at_ms)
        kept.append(fact)
    return tuple(kept)


def is_since(position: Position, fact: Fact) -> bool:
    if isinstance(fact, Reading):
        return fact.at_ms > position.at_ms
    if isinstance(fact, Exchange) and fact.meter.opened_at_ms == position.at_ms:
        return fact.meter == position.installation
    return fact.at_ms >= position.at_ms


def belongs(position: Position, posting: Posting) -> bool:
    later = posting.at_ms > position.at_ms
    return later or (posting.at_ms == position.at_ms and posting.kind != "energy")


class Book:
    """A ledger that is never edited: entries by key, each with legs, and the facts behind them."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}
        self.entries: list[tuple[str, tuple[tuple[str, int], ...], int]] = []
        self.latest: dict[str, Posting] = {}

    def net(self) -> dict[str, tuple[dict[str, int], int]]:
        legs: dict[str, dict[str, int]] = {key: defaultdict(int) for key in self.ids}
        energy = dict.fromkeys(self.ids, 0)
        for key, entry, energy_wh in self.entries:
            energy[key] += energy_wh
            for account, micro in entry:
                legs[key][account] += micro
        return {
            key: ({name: micro for name, micro in legs[key].items() if micro}, energy[key])
            for key in self.ids
        }

    def posted(self, position: Position) -> list[Posted]:
        return [
            Posted(self.ids[key], key, tuple(legs.items()), energy_wh)
            for key, (legs, energy_wh) in self.net().items()
            if belongs(position, self.latest[key])
        ]

    def write(self, position: Position, ideal: Iterable[Posting]) -> None:
        ideal = list(ideal)
        for entry in settle(self.posted(position), ideal):
            if isinstance(entry, New):
                posting = entry.posting
                assert posting.key not in self.ids
                self.ids[posting.key] = len(self.ids)
                self.latest[posting.key] = posting
                self.entries.append((posting.key, posting.legs, posting.energy_wh))
                assert sum(micro for _, micro in posting.legs) == 0
            else:
                assert isinstance(entry, Correction)
                assert self.ids[entry.key] == entry.corrects
                self.entries.append((entry.key, entry.legs, entry.energy_wh))
                assert sum(micro for _, micro in entry.legs) == 0
        assert settle(self.posted(position), ideal) == ()

    def agrees_with(self, ideal: Iterable[Posting]) -> bool:
        wanted = {each.key: (dict(each.legs), each.energy_wh) for each in ideal}
        present = {key: net for key, net in self.net().items() if net != ({}, 0)}
        return present == {key: net for key, net in wanted.items() if net != ({}, 0)}


def recorded(facts: Iterable[Fact], postings: Iterable[Posting]) -> list[Fact]:
    """Reversals as a store passes them on: with the split that the ledger has for the top-up."""
    splits = {}
    for posting in postings:
        if posting.kind == "top_up":
            legs = dict(posting.legs)
            split = RecordedTopUp(
                posting.at_ms, "payment", legs.get("customer", 0), legs.get("debt", 0)
            )
            splits[posting.key.removeprefix("top_up:")] = split
    return [
        replace(fact, recorded=splits.get(fact.top_up_id)) if isinstance(fact, Reversal) else fact
        for fact in facts
    ]


@law
@randoms
def test_order_and_duplication_change_only_the_count_of_duplicates(
    invent: Invent, random: Random
) -> None:
    scenario = parse_scenario(invent(random))
    scenario = replace(scenario, facts=without_conflicts(scenario.facts))
    mixed = [*scenario.facts, *random.choices(scenario.facts, k=5)]
    random.shuffle(mixed)
    again = replace(scenario, facts=tuple(mixed))
    assert shown(again, with_duplicates=False) == shown(scenario, with_duplicates=False)
    assert rated(again).postings == rated(scenario).postings


@law
@randoms
def test_the_ledger_agrees_with_the_facts_wherever_the_run_is_split(
    invent: Invent, random: Random
) -> None:
    scenario = parse_scenario(invent(random))
    whole = rated(scenario)
    position = genesis(scenario.terms, scenario.installation)
    low = scenario.installation.opened_at_ms
    stops = sorted(random.randrange(low, scenario.until_ms + 1) for _ in range(3))
    book = Book()
    for stop in [*stops, scenario.until_ms]:
        facts = [
            fact
            for fact in recorded(scenario.facts, book.latest.values())
            if is_since(position, fact)
        ]
        outcome = advance(scenario.terms, position, facts, stop)
        book.write(position, outcome.postings)
        position = outcome.position
    assert book.agrees_with(whole.postings)
    assert outcome.status == whole.status
    assert outcome.totals == whole.totals
    assert outcome.position == whole.position


@law
@randoms
def test_a_late_fact_is_settled_from_any_older_position(invent: Invent, random: Random) -> None:
    scenario = parse_scenario(invent(random))
    facts = list(without_conflicts(scenario.facts))
    late = random.choice(facts)
    bound = {late.id} if isinstance(late, TopUp) else set()
    early = [
        fact
        for fact in facts
        if fact != late and not (isinstance(fact, Reversal) and fact.top_up_id in bound)
    ]
    start = genesis(scenario.terms, scenario.installation)
    before = advance(scenario.terms, start, early, scenario.until_ms)
    book = Book()
    book.write(start, before.postings)
    whole = advance(scenario.terms, start, facts, scenario.until_ms)
    older = [each for each in (start, *before.checkpoints) if each.at_ms < late.at_ms]
    position = random.choice(older or [start])
    since = [fact for fact in recorded(facts, book.latest.values()) if is_since(position, fact)]
    after = advance(scenario.terms, position, since, scenario.until_ms)
    book.write(position, after.postings)
    assert book.agrees_with(whole.postings)
    assert (after.status, after.totals) == (whole.status, whole.totals)


@law
@randoms
def test_any_checkpoint_gives_the_rest_of_the_same_answer(invent: Invent, random: Random) -> None:
    scenario = parse_scenario(invent(random))
    ends = {
        each.at_ms
        for each in rated(scenario).verdicts
        if each.judgement == "accepted" and isinstance(each.fact, Reading)
    }
    wanted = {at_ms for at_ms in ends if random.random() < 1 / 3}
    start = genesis(scenario.terms, scenario.installation)
    whole = advance(scenario.terms, start, scenario.facts, scenario.until_ms, keep_at=wanted)
    assert replace(whole, checkpoints=()) == replace(rated(scenario), checkpoints=())
    assert wanted <= {each.at_ms for each in whole.checkpoints}
    for checkpoint in whole.checkpoints:
        stored = Position.from_json(checkpoint.to_json())
        assert stored == checkpoint
        facts = recorded(scenario.facts, whole.postings)
        facts = [fact for fact in facts if is_since(stored, fact)]
        rest = advance(scenario.terms, stored, facts, scenario.until_ms)
        assert list(rest.postings) == [each for each in whole.postings if belongs(stored, each)]
        assert (rest.position, rest.status, rest.totals) == (
            whole.position,
            whole.status,
            whole.totals,
        )


@law
@randoms
def test_the_short_path_gives_the_answer_of_the_general_path(
    invent: Invent, random: Random
) -> None:
    scenario = parse_scenario(invent(random))
    readings = sorted(
        {fact for fact in scenario.facts if isinstance(fact, Reading) and not fact.meter_id},
        key=lambda reading: (reading.at_ms, reading.wh),
    )
    position = genesis(scenario.terms, scenario.installation)
    for reading in readings:
        if reading.at_ms <= position.at_ms:
            continue
        until_ms = reading.at_ms + random.choice([0, 0, MINUTE, 7 * 60 * MINUTE])
        outcome = advance(scenario.terms, position, (reading,), until_ms)
        assert outcome == rate_in_general(scenario.terms, position, (reading,), until_ms)
        position = outcome.position


@law
@randoms
def test_a_look_gives_the_answer_of_the_general_path(invent: Invent, random: Random) -> None:
    scenario = parse_scenario(invent(random))
    outcome = rated(scenario)
    for position in (*outcome.checkpoints, outcome.position):
        if position.at_ms == GENESIS_MS:
            continue
        for minutes in (0, 1, 7 * 60, 30 * 60):
            until_ms = position.at_ms + minutes * MINUTE
            seen = advance(scenario.terms, position, (), until_ms)
            assert seen == rate_in_general(scenario.terms, position, (), until_ms)


@law
@randoms
def test_energy_costs_what_its_lines_sum_to(invent: Invent, random: Random) -> None:
    scenario = parse_scenario(invent(random))
    outcome = rated(scenario)
    at_ms = max(scenario.until_ms, scenario.installation.opened_at_ms)
    cell = _cell(scenario.terms, at_ms)
    for wh in (0, 100, random.randrange(10**4), random.randrange(10**6)):
        lines = energy_cost(scenario.terms, outcome.totals, at_ms, wh)
        assert sum(line.amount_micro for line in lines) == _cost_micro(outcome.totals, cell, wh)


@law
@randoms
def test_postings_sum_to_zero_and_no_instant_is_charged_twice(
    invent: Invent, random: Random
) -> None:
    scenario = parse_scenario(invent(random))
    outcome = rated(scenario)
    sums: dict[str, int] = defaultdict(int)
    for posting in outcome.postings:
        assert sum(micro for _, micro in posting.legs) == 0
        for account, micro in posting.legs:
            sums[account] += micro
    assert sums["customer"] == outcome.status.balance_micro
    assert -sums["debt"] == outcome.status.debt_outstanding_micro
    keys = [posting.key for posting in outcome.postings]
    assert len(keys) == len(set(keys))
    segments = [each.explanation["segment"] for each in outcome.postings if each.kind == "energy"]
    assert all(one["to_ms"] <= other["from_ms"] for one, other in pairwise(segments))


@law
@randoms
def test_a_reading_on_the_straight_line_changes_nothing(invent: Invent, random: Random) -> None:
    scenario = parse_scenario(invent(random))
    opened = scenario.installation
    minutes = (scenario.until_ms - opened.opened_at_ms) // MINUTE
    slope = random.choice([0, 1, 3, 17])
    kept = tuple(each for each in scenario.facts if not isinstance(each, Reading | Exchange))

    def on_the_line(minute: int) -> Reading:
        wh = (opened.opening_wh + slope * minute) % opened.modulus_wh
        return Reading(opened.opened_at_ms + minute * MINUTE, wh)

    end = on_the_line(random.randrange(2, minutes))
    line = replace(scenario, facts=(*kept, end))
    middle = on_the_line(random.randrange(1, (end.at_ms - opened.opened_at_ms) // MINUTE))
    one, two = rated(line), rated(replace(line, facts=(*line.facts, middle)))
    assert (two.status, two.totals, two.position) == (one.status, one.totals, one.position)
    shown_one, shown_two = (report(line.terms, each, ())["months"] for each in (one, two))
    assert shown_one == shown_two


@law
@randoms
def test_a_reading_rounded_down_moves_at_most_a_watt_hour_across_a_boundary(
    invent: Invent, random: Random
) -> None:
    scenario = parse_scenario(invent(random))
    opened = scenario.installation
    energy = random.randrange(20_000)
    kept = tuple(each for each in scenario.facts if not isinstance(each, Reading | Exchange))
    end = Reading(scenario.until_ms, opened.opening_wh + energy)
    at_ms = random.randrange(opened.opened_at_ms + 1, scenario.until_ms)
    up_to = energy * (at_ms - opened.opened_at_ms) // (scenario.until_ms - opened.opened_at_ms)
    middle = Reading(at_ms, opened.opening_wh + up_to)
    whole, halves = (
        rated(replace(scenario, installation=replace(opened, modulus_wh=10**9), facts=facts))
        for facts in ((*kept, end), (*kept, end, middle))
    )

    def energy_until(outcome: Outcome, boundary_ms: int) -> int:
        return sum(each.energy_wh for each in outcome.postings if each.at_ms <= boundary_ms)

    for posting in whole.postings:
        if posting.kind == "energy":
            moved = energy_until(whole, posting.at_ms) - energy_until(halves, posting.at_ms)
            assert abs(moved) <= (0 if posting.at_ms == at_ms else 1)
    assert energy_until(whole, end.at_ms) == energy_until(halves, end.at_ms)


@law
@randoms
def test_facts_before_a_position_are_refused_as_late(invent: Invent, random: Random) -> None:
    scenario = parse_scenario(invent(random))
    position = rated(scenario).position
    for fact in scenario.facts:
        if not is_since(position, fact):
            with pytest.raises(CreditError) as refusal:
                advance(scenario.terms, position, [fact], scenario.until_ms)
            assert refusal.value.code == "late_fact"


@law
@randoms
def test_time_alone_changes_nothing_before_the_next_change(invent: Invent, random: Random) -> None:
    scenario = parse_scenario(invent(random))
    outcome = rated(scenario)
    change_ms = outcome.status.next_change_ms
    later_ms = scenario.until_ms + 20 * 24 * 60 * MINUTE if change_ms is None else change_ms - 1
    start = genesis(scenario.terms, scenario.installation)
    facts = [fact for fact in scenario.facts if fact.at_ms <= scenario.until_ms]
    later = advance(scenario.terms, start, facts, later_ms)
    assert replace(later.status, at_ms=0, next_change_ms=None) == replace(
        outcome.status, at_ms=0, next_change_ms=None
    )
    assert later.postings == outcome.postings
