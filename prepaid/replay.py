"""A rating scenario through the real path: published to a broker, taken by workers, kept in a
database, on the scenario's own clock. The result is read back from the database.

Each scenario gets meters and an account of its own, so that a whole folder runs in one database.
"""

import asyncio
import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import aiomqtt
import orjson

from credit_engine.facts import EmergencyRequest, Exchange, Fact, Reading, Reversal, TopUp
from credit_engine.form import instant_text
from credit_engine.scenario import Scenario
from credit_engine.scenario_report import months, quote_report
from credit_engine.terms import Installation
from meter_gateway.gateway import Gateway
from schemas.quantities import format_instant, format_micro, parse_instant_ms
from schemas.topics import Topic, build
from store import books, registry, vending
from store.ingest import BEFORE_INSTALLATION
from store.session import Session
from store.settlement import read_account
from store.terms import TermsCache

# Meters of replays: 11 digits that no maker's DRN begins with.
FIRST_NUMBER = 99_000_000_000
BOOT = 1
WAIT_S = 0.005


class ScenarioClock:
    """The one clock of a replay; it stands at each scenario's `until`."""

    def __init__(self) -> None:
        self.at_ms = 0

    def now_ms(self) -> int:
        return self.at_ms


@dataclass(slots=True)
class Stage:
    """One scenario in the database: its account, and its meters under numbers of their own."""

    scenario: Scenario
    account: int
    numbers: dict[str, str]
    tag: str
    published: int = 0
    sequence: dict[tuple[str, int], int] = field(default_factory=dict)

    def number(self, reading: Reading) -> str:
        return self.numbers[reading.meter_id or self.installed_at(reading.at_ms)]

    def installed_at(self, at_ms: int) -> str:
        """The meter of the account at an instant; at or before the first opening, the first."""
        meter = self.scenario.installation.meter_id
        exchanges = [fact for fact in self.scenario.facts if isinstance(fact, Exchange)]
        for exchange in sorted(exchanges, key=lambda each: each.at_ms):
            if exchange.at_ms < at_ms and exchange.at_ms <= self.scenario.until_ms:
                meter = exchange.meter.meter_id
        return meter


class Replay:
    """Workers on one database and one broker, and scenarios sent through them one by one."""

    def __init__(self, workers: Sequence[Gateway], session: Session, clock: ScenarioClock) -> None:
        self._workers = workers
        self._session = session
        self._clock = clock
        self._terms = TermsCache()
        self._meters = 0
        self._scenarios = 0

    async def run(
        self,
        client: aiomqtt.Client,
        mapping: Mapping[str, Any],
        scenario: Scenario,
        seed: int | None,
    ) -> dict[str, Any]:
        """The scenario's result, in the form of rating.md section 10."""
        self._clock.at_ms = scenario.until_ms
        stage = await self._session.run(lambda conn: self._stage(conn, mapping, scenario))
        facts = arranged([fact for fact in scenario.facts if fact.at_ms <= scenario.until_ms])
        if seed is not None:
            facts = shuffled(facts, stage, seed)
        before = self._committed()
        sent: dict[tuple[str, int], int] = {}
        for fact in facts:
            if not isinstance(fact, Reading):
                await self._session.run(partial(self._record, stage, fact))
                continue
            place = (stage.number(fact), fact.at_ms)
            if sent.get(place, fact.wh) != fact.wh:
                # Readings that conflict keep their order: the first is stored before the second.
                await self._drained(before + stage.published)
            sent[place] = fact.wh
            await self._publish(client, stage, fact)
        await self._drained(before + stage.published)
        return await self._session.run(lambda conn: self._report(conn, stage))

    def _committed(self) -> int:
        return sum(worker.metrics.messages_committed for worker in self._workers)

    async def _drained(self, messages: int) -> None:
        while self._committed() < messages:
            await asyncio.sleep(WAIT_S)

    async def _publish(self, client: aiomqtt.Client, stage: Stage, reading: Reading) -> None:
        number = stage.number(reading)
        message = {
            "v": 1,
            "boot": BOOT,
            "seq": stage.sequence[number, reading.at_ms],
            "ts": format_instant(reading.at_ms),
            "reg": {"1.8.0": reading.wh},
        }
        topic = build(Topic("m", number, "up", "reading"))
        await client.publish(topic, orjson.dumps(message), qos=1)
        stage.published += 1

    def _stage(self, conn: Any, mapping: Mapping[str, Any], scenario: Scenario) -> Stage:
        self._scenarios += 1
        tag = f"replay-{self._scenarios}"
        names = {scenario.installation.meter_id}
        for fact in scenario.facts:
            if isinstance(fact, Reading) and fact.meter_id is not None:
                names.add(fact.meter_id)
            elif isinstance(fact, Exchange):
                names.add(fact.meter.meter_id)
        numbers = {}
        centre = registry.add_centre(conn, "replay", "Replays of scenarios")
        for name in sorted(names):
            self._meters += 1
            numbers[name] = str(FIRST_NUMBER + self._meters)
            registry.add_meter(conn, centre, registry.NewMeter(numbers[name]))
        form = {key: mapping[key] for key in ("timezone", "currency", "tariff")}
        form["holidays"] = mapping.get("holidays", [])
        account = registry.open_account(
            conn,
            number=tag,
            customer=registry.add_customer(conn, tag, self._clock.at_ms),
            centre=centre,
            tariff=registry.add_tariff(conn, tag, tag, form),
            terms=mapping["account"],
            installation=_renamed(scenario.installation, numbers),
            now_ms=self._clock.at_ms,
        )
        stage = Stage(scenario, account, numbers, tag)
        places = sorted(
            {
                (stage.number(fact), fact.at_ms)
                for fact in scenario.facts
                if isinstance(fact, Reading)
            }
        )
        stage.sequence = {place: count for count, place in enumerate(places, start=1)}
        return stage

    def _record(self, stage: Stage, fact: Fact, conn: Any) -> None:
        now_ms = self._clock.at_ms
        if isinstance(fact, TopUp):
            content = f"{fact.at_ms} {fact.amount_micro} {fact.channel}"
            payment = vending.Payment(
                channel=fact.channel,
                partner_txn_id=f"{stage.tag}/{fact.id}",
                meter=stage.numbers[self._installed_now(conn, stage)],
                amount_micro=fact.amount_micro,
                paid_ms=fact.at_ms,
                request_sha256=hashlib.sha256(content.encode()).digest(),
            )
            top_up = f"{stage.tag}/{fact.id}"
            vending.record_top_up(conn, self._terms, payment, top_up, fact.at_ms, now_ms)
        elif isinstance(fact, Reversal):
            top_up = f"{stage.tag}/{fact.top_up_id}"
            vending.record_reversal(conn, self._terms, top_up, stage.account, fact.at_ms, now_ms)
        elif isinstance(fact, Exchange):
            meter = _renamed(fact.meter, stage.numbers)
            registry.exchange_meter(conn, stage.account, fact.closing_wh, meter, now_ms)
        elif isinstance(fact, EmergencyRequest):
            vending.record_emergency_request(conn, self._terms, stage.account, fact.at_ms, now_ms)

    def _installed_now(self, conn: Any, stage: Stage) -> str:
        state = read_account(conn, stage.account)
        assert state is not None, "staged above"
        number = books.current_meter(conn, stage.account)
        return next(name for name, other in stage.numbers.items() if other == number)

    # --- reading back -----------------------------------------------------------------------

    def _report(self, conn: Any, stage: Stage) -> dict[str, Any]:
        state = read_account(conn, stage.account)
        assert state is not None, "staged above"
        quotes = [
            books.quote_at(conn, self._terms, stage.account, wanted.at_ms, wanted.amount_micro)
            for wanted in stage.scenario.quotes
        ]
        return {
            "balance": format_micro(state.balance_micro),
            "debt_outstanding": format_micro(state.debt_micro),
            "supply": state.supply,
            "months": months(books.postings(conn, stage.account)),
            "readings": self._readings(conn, stage),
            "quotes": [quote_report(each) for each in quotes],
        }

    def _readings(self, conn: Any, stage: Stage) -> dict[str, Any]:
        numbers = list(stage.numbers.values())
        accepted = 0
        refused: list[tuple[int, int, str]] = []
        stored = books.readings_of_meters(conn, numbers)
        duplicate = stage.published - len(stored)
        for _, at_ms, value_wh, word in stored:
            if word == "accepted":
                accepted += 1
            elif at_ms <= stage.scenario.installation.opened_at_ms:
                # A spare meter serves nobody; the account's own opening decides, as in section 2.
                refused.append((at_ms, value_wh, BEFORE_INSTALLATION))
            else:
                refused.append((at_ms, value_wh, word or "not judged"))
        # The closing value of an exchange is judged as a reading; its row is the installation.
        whole = books.outcome_at(
            conn, self._terms, stage.account, stage.scenario.until_ms, from_genesis=True
        )
        for judged in whole.verdicts:
            if isinstance(judged.fact, Exchange):
                if judged.judgement == "accepted":
                    accepted += 1
                elif judged.judgement == "duplicate":
                    duplicate += 1
                else:
                    refused.append((judged.at_ms, judged.wh, judged.judgement))
        for _, reason, payload in books.refused_messages(conn, numbers):
            message = orjson.loads(payload)
            at_ms, value_wh = parse_instant_ms(message["ts"]), message["reg"]["1.8.0"]
            refused.append((at_ms, value_wh, reason))
            duplicate -= 1
        return {
            "accepted": accepted,
            "duplicate": duplicate,
            "quarantined": [
                {"time": instant_text(at_ms), "wh": value_wh, "reason": reason}
                for at_ms, value_wh, reason in sorted(refused)
            ],
        }


def arranged(facts: Sequence[Fact]) -> list[Fact]:
    """The order of arrival, but each reversal after its top-up: until then it names nothing."""
    first: dict[str, int] = {}
    for place, fact in enumerate(facts):
        if isinstance(fact, TopUp):
            first.setdefault(fact.id, place)

    def place_of(item: tuple[int, Fact]) -> tuple[int, int]:
        place, fact = item
        if isinstance(fact, Reversal):
            return max(place, first.get(fact.top_up_id, place)), 1
        return place, 0

    return [fact for _, fact in sorted(enumerate(facts), key=place_of)]


def shuffled(facts: Sequence[Fact], stage: Stage, seed: int) -> list[Fact]:
    """A random order that keeps conflicting readings, and a top-up and its reversal, in theirs."""
    mixed = list(facts)
    random.Random(seed).shuffle(mixed)  # noqa: S311 - a test's order, not a secret
    groups: dict[object, list[Fact]] = {}
    for fact in facts:
        groups.setdefault(_group(fact, stage), []).append(fact)
    queues = {key: iter(members) for key, members in groups.items()}
    return [next(queues[_group(fact, stage)]) for fact in mixed]


def _group(fact: Fact, stage: Stage) -> object:
    if isinstance(fact, Reading):
        return ("reading", stage.number(fact), fact.at_ms)
    if isinstance(fact, TopUp):
        return ("top_up", fact.id)
    if isinstance(fact, Reversal):
        return ("top_up", fact.top_up_id)
    return id(fact)


def _renamed(installation: Installation, numbers: Mapping[str, str]) -> Installation:
    return replace(installation, meter_id=numbers[installation.meter_id])
