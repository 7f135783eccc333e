"""The whole transaction of ingest against the database alone, beside COPY into a bare table.

`python -m benchmarks.bench_transaction [--meters N] [--batch N] [--repetitions N] [--json]`, on
PREPAID_DATABASE__URL, in a database of its own. A repetition is one reading of every meter, decoded
and then stored, rated, debited and decided in commits of `--batch`; the floor writes as many rows
(meter, instant, register) to a table without keys, in as many commits. CPU is counted apart for
decoding, for the worker inside the transaction and for its database backend. Exit status 1 where
a reading is missing, or a balance is not what the engine says of all facts.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import Connection

from benchmarks import population
from benchmarks.measure import Cost, Meter, form, ratios, rotated, server_cpu_s
from benchmarks.population import Population
from meter_gateway.gateway import collect_seldom
from store import books, ingest
from store.scratch import scratch_database
from store.session import POINT_LOOKUPS
from store.settlement import TermsCache, read_account

# Accounts that are rated again from their first fact on.
CHECKED = 200
BARE = "CREATE TABLE bare_reading (meter_id bigint, ts timestamptz, value_wh bigint)"
COPY_BARE = "COPY bare_reading FROM STDIN (FORMAT BINARY)"


class Bench:
    def __init__(self, conn: Connection[Any], meters: int, batch: int) -> None:
        self.conn = conn
        self.batch = batch
        self.terms = TermsCache()
        self.population: Population = population.populate(conn, meters)
        self.slot = population.FIRST_SLOT
        conn.execute(BARE)

    def _stretches(self) -> Iterator[range]:
        for first in range(0, self.population.meters, self.batch):
            yield range(first, min(first + self.batch, self.population.meters))

    def transaction(self) -> Cost:
        """One reading of every meter."""
        self.slot += 1
        body = population.payload(self.slot)
        now_ms = population.instant_ms(self.slot) + 1000
        decoding = Meter({"decode": time.process_time})
        recording = Meter(
            {"worker": time.process_time, "database": lambda: server_cpu_s(self.conn)}
        )
        for places in self._stretches():
            numbers = [self.population.number(place) for place in places]
            with decoding.running():
                messages = [population.incoming(number, body, now_ms) for number in numbers]
            with recording.running():
                recorded = ingest.record(self.conn, self.terms, messages, now_ms)
            assert recorded.accepted == len(messages), recorded
        cost = recording.cost(self.population.meters)
        return Cost(cost.readings, cost.elapsed_s + decoding.elapsed_s, decoding.cpu_s | cost.cpu_s)

    def floor(self) -> Cost:
        """As many rows into a table without keys."""
        meter = Meter({"worker": time.process_time, "database": lambda: server_cpu_s(self.conn)})
        at = 800_000_000_000_000
        for places in self._stretches():
            with meter.running(), self.conn.cursor().copy(COPY_BARE) as copy:
                copy.set_types(["int8", "int8", "int8"])
                for place in places:
                    copy.write_row((place, at, place))
        return meter.cost(self.population.meters)

    def failures(self) -> Iterator[str]:
        """What is not as it must be at the end."""
        sent = self.population.meters * self.slot
        (stored,) = self.conn.execute("SELECT count(*) FROM reading").fetchone() or (0,)
        if stored != sent:
            yield f"{stored} readings are stored, {sent} were sent"
        (differing,) = self.conn.execute(
            "SELECT count(*) FROM account_state s WHERE s.balance_micro <> (SELECT"
            " sum(t.customer_micro) FROM ledger_transaction t WHERE t.account_id = s.account_id)"
        ).fetchone() or (None,)
        if differing:
            yield f"{differing} balances are not the sum of their entries"
        accounts = self.conn.execute(
            "SELECT account_id FROM account_state ORDER BY md5(account_id::text) LIMIT %s",
            [CHECKED],
        ).fetchall()
        for (account,) in accounts:
            state = read_account(self.conn, account)
            assert state is not None
            whole = books.outcome_at(
                self.conn, self.terms, account, state.settled_until_ms, from_genesis=True
            )
            if whole.status.balance_micro != state.balance_micro:
                yield f"account {account}: {state.balance_micro}, not {whole.status.balance_micro}"


def run(url: str, meters: int, batch: int, repetitions: int) -> dict[str, Any]:
    with (
        scratch_database(url) as scratch,
        psycopg.connect(scratch, autocommit=True) as conn,
    ):
        for setting in POINT_LOOKUPS:
            conn.execute(setting)
        bench = Bench(conn, meters, batch)
        costs: dict[str, list[Cost]] = {"copy": [], "transaction": []}
        subjects = [("copy", bench.floor), ("transaction", bench.transaction)]
        bench.transaction()  # what a worker reads once: terms, statements, tables
        for repetition in range(repetitions):
            for name, subject in rotated(subjects, repetition):
                costs[name].append(subject())
            done = costs["transaction"][-1]
            sys.stderr.write(f"repetition {repetition + 1}: {done.rate:,.0f} readings/s\n")
        failures = list(bench.failures())
    return {
        "meters": meters,
        "batch": batch,
        "repetitions": repetitions,
        "subjects": {name: form(found) for name, found in costs.items()},
        "transaction_over_copy": ratios(costs["transaction"], costs["copy"]),
        "checks": {"accounts_rated_again": min(CHECKED, meters), "failures": failures},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meters", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=2_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    collect_seldom()
    url = os.environ.get("PREPAID_DATABASE__URL")
    if url is None:
        sys.stderr.write("PREPAID_DATABASE__URL is not set: name a server to measure on\n")
        sys.exit(2)
    found = run(url, asked.meters, asked.batch, asked.repetitions)
    if asked.json:
        print(json.dumps(found, indent=2))
    else:
        for name, subject in found["subjects"].items():
            rate = subject["rate"]
            parts = ", ".join(
                f"{part} {each['median']}" for part, each in subject["cpu_us"].items()
            )
            print(
                f"{name:12} {rate['median']:>9,.0f} readings/s"
                f" [{rate['min']:,.0f}-{rate['max']:,.0f}]; CPU microseconds a reading: {parts}"
            )
        ratio = found["transaction_over_copy"]
        print(f"transaction / copy: {ratio['median']} [{ratio['min']}-{ratio['max']}]")
        for failure in found["checks"]["failures"][:10]:
            print(failure)
    sys.exit(1 if found["checks"]["failures"] else 0)


if __name__ == "__main__":
    main()
