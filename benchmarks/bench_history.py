"""What one reading costs after 1, 12 and 24 months of history, in order and a few hours late.

`python -m benchmarks.bench_history [--json]`, on PREPAID_DATABASE__URL, in databases of its own.
The history goes in through the real ingest, an hour a reading. Then each account is given single
readings, one transaction each, the ages in turn so that all share what the machine does meanwhile.
The floor is the account of one month; exit status 1 where a longer history costs more than
`FLAT_RATIO` times as much, or where a balance is not what the engine says of all facts.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection

from benchmarks.measure import server_cpu_s
from benchmarks.population import TARIFF
from credit_engine.terms import Installation
from schemas.decoding import decode_up
from schemas.quantities import format_instant, parse_instant_ms
from schemas.topics import parse
from store import books, ingest, registry
from store.incoming import Incoming
from store.registry import NewMeter
from store.scratch import scratch_database
from store.session import POINT_LOOKUPS
from store.settlement import TermsCache, read_account

HOUR_MS = 3_600_000
DAY_HOURS = 24
MONTH_HOURS = 30 * DAY_HOURS
AGES_MONTHS = (1, 12, 24)
ACCOUNTS_PER_AGE = 3
# Hours of all accounts of one age in one transaction while the history is laid down.
HOURS_AT_ONCE = 120
MEASURED = 60
WARM_UP = 10
# A late reading comes after this many of the hours that follow it.
LATE_HOURS = 3
# Above noise on a shared machine, far below any growth with history (12 and 24 times).
FLAT_RATIO = 1.5
END_MS = parse_instant_ms("2026-06-15T00:00:00Z")


class CountingConnection(Connection[Any]):
    """A connection that counts the statements of its caller."""

    statements = 0

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        self.statements += 1
        return super().execute(*args, **kwargs)


@dataclass
class Cost:
    """Of single readings: our CPU, the database's (0 where it is elsewhere), both with waiting."""

    readings: int = 0
    client_s: float = 0.0
    server_s: float = 0.0
    elapsed_s: float = 0.0
    statements: int = 0

    def form(self) -> dict[str, float]:
        each = 1000 / self.readings
        return {
            "cpu_ms": round((self.client_s + self.server_s) * each, 3),
            "client_cpu_ms": round(self.client_s * each, 3),
            "server_cpu_ms": round(self.server_s * each, 3),
            "elapsed_ms": round(self.elapsed_s * each, 3),
            "statements": round(self.statements / self.readings, 2),
        }


@dataclass
class Meter:
    """An account and the register of its meter, hour by hour since its opening."""

    account: int
    number: str
    opened_ms: int
    hour: int = 0

    def message(self, hour: int, now_ms: int) -> Incoming:
        """What the meter says at an hour; its register never depends on what was sent before."""
        form = {
            "v": 1,
            "boot": 1,
            "seq": hour,
            "ts": format_instant(self.opened_ms + hour * HOUR_MS),
            "reg": {"1.8.0": register_wh(hour)},
        }
        text = f"pm/v1/m/{self.number}/up/reading"
        topic, payload = parse(text), json.dumps(form).encode()
        return Incoming(topic, text, payload, None, decode_up(topic, payload, None, now_ms))


@dataclass
class Age:
    months: int
    meters: list[Meter]
    in_order: Cost = field(default_factory=Cost)
    late: Cost = field(default_factory=Cost)


def register_wh(hour: int) -> int:
    """A load of 100 to 480 Wh an hour that repeats after 20 hours."""
    whole, rest = divmod(hour, 20)
    return whole * 20 * 290 + sum(100 + 20 * each for each in range(rest))


class Bench:
    def __init__(self, conn: CountingConnection) -> None:
        self.conn = conn
        self.terms = TermsCache()
        self.centre = registry.add_centre(conn, "bench", "Benchmark")
        self.tariff = registry.add_tariff(conn, "bench", "Benchmark", TARIFF)
        self.serial = 0

    def age(self, months: int) -> Age:
        """Accounts that are so many months old, with a reading for every hour."""
        meters = [self._open(END_MS - months * MONTH_HOURS * HOUR_MS)
                  for _ in range(ACCOUNTS_PER_AGE)]  # fmt: skip
        for first in range(1, months * MONTH_HOURS + 1, HOURS_AT_ONCE):
            hours = range(first, min(first + HOURS_AT_ONCE, months * MONTH_HOURS + 1))
            self._record(meters, hours)
        return Age(months, meters)

    def _open(self, opened_ms: int) -> Meter:
        self.serial += 1
        number = f"{self.serial:011d}"
        registry.add_meter(self.conn, self.centre, NewMeter(number))
        account = registry.open_account(
            self.conn,
            number=f"B-{self.serial}",
            customer=registry.add_customer(self.conn, "Benchmark", opened_ms),
            centre=self.centre,
            tariff=self.tariff,
            terms={"activated_at": format_instant(opened_ms)},
            installation=Installation(number, 10**9, opened_ms, 0, 6_600),
            now_ms=opened_ms,
        )
        return Meter(account, number, opened_ms)

    def _record(self, meters: Sequence[Meter], hours: Sequence[int]) -> None:
        now_ms = meters[0].opened_ms + hours[-1] * HOUR_MS
        messages = [meter.message(hour, now_ms) for meter in meters for hour in hours]
        recorded = ingest.record(self.conn, self.terms, messages, now_ms)
        assert recorded.accepted == len(messages), recorded
        for meter in meters:
            meter.hour = max(meter.hour, hours[-1])

    def in_order(self, meter: Meter, cost: Cost | None) -> None:
        self._measure(meter, meter.hour + 1, cost)

    def late(self, meter: Meter, cost: Cost | None) -> None:
        """The hours after it come first, unmeasured; then the one that was missing."""
        missing = meter.hour + 1
        self._record([meter], range(missing + 1, missing + 1 + LATE_HOURS))
        self._measure(meter, missing, cost)

    def _measure(self, meter: Meter, hour: int, cost: Cost | None) -> None:
        now_ms = meter.opened_ms + max(hour, meter.hour) * HOUR_MS
        message = meter.message(hour, now_ms)
        statements, server = self.conn.statements, server_cpu_s(self.conn)
        began, client = time.perf_counter(), time.process_time()
        recorded = ingest.record(self.conn, self.terms, [message], now_ms)
        client = time.process_time() - client
        elapsed = time.perf_counter() - began
        assert recorded.accepted == 1, recorded
        meter.hour = max(meter.hour, hour)
        if cost is not None:
            cost.readings += 1
            cost.client_s += client
            cost.server_s += server_cpu_s(self.conn) - server
            cost.elapsed_s += elapsed
            cost.statements += self.conn.statements - statements

    def differences(self, age: Age) -> Iterator[str]:
        """Accounts whose balance is not what the engine says of all their facts."""
        for meter in age.meters:
            state = read_account(self.conn, meter.account)
            assert state is not None, "opened above"
            whole = books.outcome_at(
                self.conn, self.terms, meter.account, state.settled_until_ms, from_genesis=True
            )
            accepted = sum(each.judgement == "accepted" for each in whole.verdicts)
            found = (state.balance_micro, meter.hour, register_wh(meter.hour))
            wanted = (whole.status.balance_micro, accepted, whole.position.register_wh)
            if found != wanted:
                yield f"{age.months} months, account {meter.account}: {found} is not {wanted}"


def run(url: str) -> dict[str, Any]:
    """Each age in a database of its own, open side by side: what the server keeps grows, too."""
    with ExitStack() as stack:
        benches: list[tuple[Bench, Age]] = []
        for months in AGES_MONTHS:
            scratch = stack.enter_context(scratch_database(url))
            conn = stack.enter_context(CountingConnection.connect(scratch, autocommit=True))
            for setting in POINT_LOOKUPS:
                conn.execute(setting)
            began = time.perf_counter()
            bench = Bench(conn)
            benches.append((bench, bench.age(months)))
            conn.execute("ANALYZE")
            readings = months * MONTH_HOURS * ACCOUNTS_PER_AGE
            took = time.perf_counter() - began
            sys.stderr.write(f"{months} months: {readings} readings in {took:.1f} s\n")
        for turn in range(WARM_UP + MEASURED):
            for bench, age in benches:
                meter = age.meters[turn % len(age.meters)]
                bench.in_order(meter, age.in_order if turn >= WARM_UP else None)
                bench.late(meter, age.late if turn >= WARM_UP else None)
        sys.stderr.write("checking every account from its first fact on\n")
        wrong = [line for bench, age in benches for line in bench.differences(age)]
        return report([age for _, age in benches], wrong)


def report(ages: Sequence[Age], wrong: Sequence[str]) -> dict[str, Any]:
    """Costs, their ratios to the youngest age, and what was not right."""
    failures = list(wrong)
    floors = {kind: getattr(ages[0], kind).form() for kind in ("in_order", "late")}
    rows = []
    for age in ages:
        for kind, floor in floors.items():
            cost = getattr(age, kind).form()
            ratio = {
                name: round(cost[name] / floor[name], 2)
                for name in ("cpu_ms", "elapsed_ms", "statements")
            }
            rows.append({"months": age.months, "reading": kind, **cost, "ratio": ratio})
            failures += [
                f"{age.months} months, {kind}: {name} is {times} times that of {ages[0].months}"
                for name, times in ratio.items()
                if times > FLAT_RATIO
            ]
    return {
        "accounts": sum(len(age.meters) for age in ages),
        "measured_per_row": MEASURED,
        "late_by_hours": LATE_HOURS,
        "flat_ratio": FLAT_RATIO,
        "rows": rows,
        "failures": failures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    url = os.environ.get("PREPAID_DATABASE__URL")
    if url is None:
        sys.stderr.write("PREPAID_DATABASE__URL is not set: name a server to measure on\n")
        sys.exit(2)
    found = run(url)
    if asked.json:
        print(json.dumps(found, indent=2))
    else:
        print("months reading    cpu ms  elapsed ms  statements  ratio (cpu, elapsed, statements)")
        for row in found["rows"]:
            ratio = row["ratio"]
            print(
                f"{row['months']:6} {row['reading']:9} {row['cpu_ms']:7.2f} "
                f"{row['elapsed_ms']:11.2f} {row['statements']:11.2f}  "
                f"{ratio['cpu_ms']:.2f} {ratio['elapsed_ms']:.2f} {ratio['statements']:.2f}"
            )
        for failure in found["failures"]:
            print(failure)
    sys.exit(1 if found["failures"] else 0)


if __name__ == "__main__":
    main()
