"""Whatever arrives in whatever order, late, twice, in batches of any size, with transactions that
break midway: after every step the ledger is what the pure engine makes of the set of facts, and at
the end also what the naive model makes of it.
"""

import importlib.util
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import orjson
import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from credit_engine.form import Form
from credit_engine.scenario import parse_scenario, run
from credit_engine.scenario_report import differences, months
from credit_engine.tariff import parse_installation
from schemas.decoding import decode_up
from schemas.quantities import format_instant, format_micro, parse_instant_ms, parse_micro
from schemas.topics import parse
from store import books, clockwork, ingest, registry, vending
from store.account_audit import audit_account
from store.incoming import Incoming
from store.lanes import Lanes
from store.settlement import NEVER_MS, read_account
from store.terms import TermsCache

RATING = Path(__file__).parents[2] / "property" / "rating"
HOUR = 3_600_000
NUMBERS = count(99_500_000_001)


def load(name: str) -> ModuleType:
    """A module of the rating's tests: the inventor of scenarios, the naive model."""
    spec = importlib.util.spec_from_file_location(f"rating_{name}", RATING / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


INVENTED = load("conftest").Invented
MODEL = load("test_rating_model").Model


class CrashError(Exception):
    """The process ends here."""


class Arrivals(RuleBasedStateMachine):
    """One account and the facts of one invented scenario, of which some have arrived."""

    url: str
    owner_url: str

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.conn = psycopg.connect(self.url, autocommit=True)
        self.terms, self.lanes = TermsCache(), Lanes()
        self.form = INVENTED(Random(seed)).scenario()
        self.tag = f"machine-{next(NUMBERS)}"
        self.numbers = {name: str(next(NUMBERS)) for name in ("1", "2")}
        self.form["meter"]["id"] = self.numbers["1"]
        self.opened = parse_instant_ms(self.form["meter"]["opened_at"])
        self.now = self.opened
        self.waiting = [self.own(*next(iter(fact.items()))) for fact in self.form["facts"]]
        # Counted in the order of time, as a meter does, so that many readings are steady ones.
        said = {(f["meter"], f["time"]) for kind, f in self.waiting if kind == "reading"}
        self.seqs = {place: seq for seq, place in enumerate(sorted(said), start=1)}
        self.arrived: list[tuple[str, dict[str, Any]]] = []
        self.account = self.open()

    def own(self, kind: str, fact: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The fact under this account's own names; a meter always says its number."""
        mine = dict(fact)
        if kind == "reading":
            mine["meter"] = self.numbers[mine.get("meter") or self.installed(mine["time"])]
        elif kind == "exchange":
            mine["meter"] = {**mine["meter"], "id": self.numbers[mine["meter"]["id"]]}
        for name in ("id", "top_up"):
            if name in mine:
                mine[name] = f"{self.tag}-{mine[name]}"
        return kind, mine

    def installed(self, time: str) -> str:
        exchanged = [each["exchange"]["time"] for each in self.form["facts"] if "exchange" in each]
        return "2" if any(at < time for at in exchanged) else "1"

    def open(self) -> int:
        centre = registry.add_centre(self.conn, "machines", "Machines")
        for number in self.numbers.values():
            registry.add_meter(self.conn, centre, registry.NewMeter(number))
        form = {key: self.form[key] for key in ("timezone", "currency", "tariff", "holidays")}
        return registry.open_account(
            self.conn,
            number=self.tag,
            customer=registry.add_customer(self.conn, self.tag, self.now),
            centre=centre,
            tariff=registry.add_tariff(self.conn, self.tag, self.tag, form),
            terms=self.form["account"],
            installation=parse_installation(Form("meter", self.form["meter"])),
            now_ms=self.now,
        )

    # --- what happens -----------------------------------------------------------------------

    @rule(facts=st.integers(1, 9), batch=st.integers(1, 9), again=st.integers(0, 3))
    def arrive(self, facts: int, batch: int, again: int) -> None:
        taken = self.due()[:facts]
        self.deliver([*taken, *self.arrived[-again:]] if again else taken, batch)
        for fact in taken:
            self.waiting.remove(fact)
        self.arrived += taken

    @rule(facts=st.integers(1, 5), killed=st.booleans())
    def crash_midway(self, facts: int, killed: bool) -> None:
        """What was not committed did not happen; it arrives again some time."""
        with suppress(CrashError, psycopg.OperationalError), self.conn.transaction():
            self.deliver(self.due()[:facts], 9)
            if killed:
                pid = self.conn.info.backend_pid
                with psycopg.connect(self.owner_url, autocommit=True) as other:
                    other.execute("SELECT pg_terminate_backend(%s)", (pid,))
                self.conn.execute("SELECT 1")
            raise CrashError
        if killed:
            self.conn.close()
            self.conn = psycopg.connect(self.url, autocommit=True)
            self.terms, self.lanes = TermsCache(), Lanes()

    @rule(hours=st.sampled_from([1, 7, 24, 50]))
    def time_goes_on(self, hours: int) -> None:
        self.now += hours * HOUR

    @rule()
    def the_clockwork_comes(self) -> None:
        clockwork.settle_due(self.conn, self.terms, self.now, 100)

    # --- how it arrives ---------------------------------------------------------------------

    def due(self) -> list[tuple[str, dict[str, Any]]]:
        """Facts that have happened, in their order of arrival; a reversal after its top-up."""
        credited = {fact["id"] for kind, fact in self.arrived if kind == "top_up"}
        return [
            (kind, fact)
            for kind, fact in self.waiting
            if parse_instant_ms(fact["time"]) <= self.now
            and (kind != "reversal" or fact["top_up"] in credited)
        ]

    def deliver(self, facts: list[tuple[str, dict[str, Any]]], batch: int) -> None:
        readings = [self.message(fact) for kind, fact in facts if kind == "reading"]
        for first in range(0, len(readings), batch):
            now = readings[first : first + batch]
            ingest.record(self.conn, self.terms, now, self.now, self.lanes)
        for kind, fact in facts:
            if kind != "reading":
                getattr(self, f"record_{kind}")(fact, parse_instant_ms(fact["time"]))

    def message(self, fact: Mapping[str, Any]) -> Incoming:
        at_ms = parse_instant_ms(fact["time"])
        form = {
            "v": 1,
            "boot": 1,
            "seq": self.seqs[fact["meter"], fact["time"]],
            "ts": format_instant(at_ms),
            "reg": {"1.8.0": fact["wh"]},
        }
        topic, payload = f"pm/v1/m/{fact['meter']}/up/reading", orjson.dumps(form)
        decoded = decode_up(parse(topic), payload, None, self.now)
        assert decoded.readings
        return Incoming(parse(topic), topic, payload, None, decoded)

    def record_top_up(self, fact: Mapping[str, Any], at_ms: int) -> None:
        meter = books.current_meter(self.conn, self.account)
        assert meter is not None
        payment = vending.Payment(
            "payment", fact["id"], meter, parse_micro(fact["amount"]), at_ms, fact["id"].encode()
        )
        vending.record_top_up(self.conn, self.terms, payment, fact["id"], at_ms, self.now)

    def record_reversal(self, fact: Mapping[str, Any], at_ms: int) -> None:
        vending.record_reversal(
            self.conn, self.terms, fact["top_up"], self.account, at_ms, self.now
        )

    def record_exchange(self, fact: Mapping[str, Any], at_ms: int) -> None:
        new = parse_installation(Form("meter", fact["meter"]), at_ms)
        registry.exchange_meter(self.conn, self.account, fact["closing_wh"], new, self.now)

    def record_emergency_request(self, fact: Mapping[str, Any], at_ms: int) -> None:
        vending.record_emergency_request(self.conn, self.terms, self.account, at_ms, self.now)

    # --- what must hold ---------------------------------------------------------------------

    def scenario(self) -> dict[str, Any]:
        """The facts that have arrived, as a scenario up to where the account is settled."""
        state = read_account(self.conn, self.account)
        assert state is not None
        # A closing value that a reading says, too, is that reading, whichever came first.
        facts = sorted(self.arrived, key=lambda fact: fact[0] != "reading")
        until = format_instant(state.settled_until_ms)
        content = [{kind: fact} for kind, fact in facts]
        return self.form | {"facts": content, "until": until, "quotes": []}

    def held(self) -> dict[str, Any]:
        state = read_account(self.conn, self.account)
        assert state is not None
        return {
            "balance": format_micro(state.balance_micro),
            "debt_outstanding": format_micro(state.debt_micro),
            "supply": state.supply,
            "months": months(books.postings(self.conn, self.account)),
        }

    def agrees(self, expected: dict[str, Any]) -> None:
        wanted = {
            key: value for key, value in expected.items() if key not in {"readings", "quotes"}
        }
        assert differences(wanted, self.held()) == []

    @invariant()
    def the_ledger_is_the_engines_answer(self) -> None:
        self.agrees(run(parse_scenario(self.scenario())))
        assert audit_account(self.conn, self.terms, self.account, None).findings == []

    def teardown(self) -> None:
        if not hasattr(self, "account"):
            return
        try:
            self.the_rest_arrives()
        finally:
            # The next machine's clock must not settle this account, too.
            of = (NEVER_MS, self.account)
            self.conn.execute("UPDATE account_state SET due_ms = %s WHERE account_id = %s", of)
            self.conn.close()

    def the_rest_arrives(self) -> None:
        self.now = max(self.now, parse_instant_ms(self.form["until"]))
        while self.due():
            self.arrive(len(self.waiting), 4, 0)
        self.the_ledger_is_the_engines_answer()
        scenario = self.scenario()
        self.agrees(MODEL(scenario, parse_instant_ms(scenario["until"])).run().result())


def test_the_ledger_is_the_answer_to_the_set_of_facts(
    database_url: str, as_owner: Callable[[str], str]
) -> None:
    urls = {"url": database_url, "owner_url": as_owner(database_url)}
    machine = type("ArrivalsHere", (Arrivals,), urls)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
