"""The whole transaction of ingest against the database alone, beside COPY into a bare table.

A repetition is one reading of every meter, decoded and then stored, rated, debited and decided in
commits of `BATCH`; the floor writes as many rows (meter, instant, register) to a table without
keys, in as many commits. CPU is counted apart for decoding, for the worker inside the transaction
and for its database backend. `late` is what the meters of a place say after an hour's outage:
behind its newest reading, each brings those that are missing, slot by slot.
"""

import time
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import Connection

from benchmarks import population
from benchmarks.ledger_checks import check_fleet
from benchmarks.measure import Cost, Meter, rate_ratios, rotated
from benchmarks.population import Population
from benchmarks.processes import server_cpu_s
from benchmarks.report import Asked, Report, Servers
from benchmarks.sql import statement
from store import ingest
from store.lanes import Lanes
from store.scratch import scratch_database
from store.session import POINT_LOOKUPS
from store.terms import TermsCache

BATCH = 2_000
# One meter in so many has readings that come late, and so many of them.
LATE_SHARE = 10
MISSING = 4


class Bench:
    def __init__(self, conn: Connection[Any], meters: int) -> None:
        self.conn = conn
        self.terms = TermsCache()
        self.lanes = Lanes()
        self.population: Population = population.populate(conn, meters)
        self.slot = population.FIRST_SLOT
        conn.execute(statement("make_bare"))

    def _stretches(self, places: range) -> Iterator[range]:
        for first in range(places.start, places.stop, BATCH):
            yield range(first, min(first + BATCH, places.stop))

    def transaction(self) -> Cost:
        """One reading of every meter."""
        self.slot += 1
        return self._say(range(self.population.meters), self.slot)

    def late(self) -> Cost:
        """What some meters miss; then the others say as much."""
        late = range(max(1, self.population.meters // LATE_SHARE))
        others = range(late.stop, self.population.meters)
        self._say(late, self.slot + MISSING + 1)
        costs = [self._say(late, self.slot + 1 + nth) for nth in range(MISSING)]
        for _ in range(MISSING + 1):
            self.slot += 1
            self._say(others, self.slot)
        return Cost(
            sum(cost.readings for cost in costs),
            sum(cost.elapsed_s for cost in costs),
            {part: sum(cost.cpu_s[part] for cost in costs) for part in costs[0].cpu_s},
        )

    def _say(self, places: range, slot: int) -> Cost:
        body = population.payload(slot)
        now_ms = population.instant_ms(max(slot, self.slot)) + 1000
        decoding = Meter({"decode": time.process_time})
        recording = Meter(
            {"worker": time.process_time, "database": lambda: server_cpu_s(self.conn)}
        )
        for stretch in self._stretches(places):
            numbers = [self.population.number(place) for place in stretch]
            with decoding.running():
                messages = [population.incoming(number, body, now_ms) for number in numbers]
            with recording.running():
                recorded = ingest.record(self.conn, self.terms, messages, now_ms, self.lanes)
            assert recorded.accepted == len(messages), recorded
        cost = recording.cost(len(places))
        return Cost(cost.readings, cost.elapsed_s + decoding.elapsed_s, decoding.cpu_s | cost.cpu_s)

    def floor(self) -> Cost:
        """As many rows into a table without keys."""
        meter = Meter({"worker": time.process_time, "database": lambda: server_cpu_s(self.conn)})
        at = 800_000_000_000_000
        for stretch in self._stretches(range(self.population.meters)):
            with meter.running(), self.conn.cursor().copy(statement("copy_bare")) as copy:
                copy.set_types(["int8", "int8", "int8"])
                for place in stretch:
                    copy.write_row((place, at, place))
        return meter.cost(self.population.meters)


def run(servers: Servers, asked: Asked) -> Report:
    """Rates, CPU by part, and the transaction's rate over the floor's."""
    with (
        scratch_database(servers.database_url) as scratch,
        psycopg.connect(scratch, autocommit=True) as conn,
    ):
        for setting in POINT_LOOKUPS:
            conn.execute(setting)
        bench = Bench(conn, asked.meters)
        subjects = [
            ("copy", bench.floor),
            ("transaction", bench.transaction),
            ("late", bench.late),
        ]
        costs: dict[str, list[Cost]] = {name: [] for name, _ in subjects}
        bench.transaction()  # what a worker reads once: terms, statements, tables
        for repetition in range(asked.repetitions):
            for name, subject in rotated(subjects, repetition):
                costs[name].append(subject())
            asked.progress(f"repetition {repetition + 1}: {costs['transaction'][-1].rate:,.0f}/s")
        report = Report("transaction", {"meters": asked.meters, "batch": BATCH})
        for name, found in costs.items():
            report.add_costs(name, found)
        report.add_ratio("transaction", "copy", rate_ratios(costs["transaction"], costs["copy"]))
        report.add_ratio("late", "transaction", rate_ratios(costs["late"], costs["transaction"]))
        check_fleet(report, conn, asked.meters, bench.slot, "after all repetitions")
    return report
