"""What one reading costs after 1, 12 and 24 months of history, in order and a few hours late.

The history goes in through the real ingest, an hour a reading. Then each account is given single
readings, one transaction each, the ages in turn so that all share what the machine does meanwhile.
The floor is the account of one month; a check fails where a longer history costs more than
`FLAT_RATIO` times as much, or where a balance is not what the engine says of all facts.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection

from benchmarks.population import TARIFF
from benchmarks.processes import server_cpu_s
from benchmarks.report import Asked, Report, Servers
from credit_engine.terms import Installation
from schemas.decoding import decode_up
from schemas.quantities import format_instant, parse_instant_ms
from schemas.topics import parse
from store import books, ingest, registry
from store.incoming import Incoming
from store.registry import NewMeter
from store.scratch import scratch_database
from store.session import POINT_LOOKUPS
from store.settlement import read_account
from store.terms import TermsCache

HOUR_MS = 3_600_000
DAY_HOURS = 24
MONTH_HOURS = 30 * DAY_HOURS
KINDS = {"in_order": "in order", "late": "late"}
UNITS = {"cpu": "ms/reading", "elapsed": "ms/reading", "statements": "a reading"}
# Measured in turn; fewer where there are fewer repetitions.
ACCOUNTS_PER_AGE = 3
# Hours of all accounts of one age in one transaction while the history is laid down.
HOURS_AT_ONCE = 120
# Of each kind, for every repetition that is asked for.
MEASURED = 12
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
            "cpu": (self.client_s + self.server_s) * each,
            "elapsed": self.elapsed_s * each,
            "statements": self.statements / self.readings,
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

    def age(self, months: int, accounts: int) -> Age:
        """Accounts that are so many months old, with a reading for every hour."""
        meters = [self._open(END_MS - months * MONTH_HOURS * HOUR_MS)
                  for _ in range(accounts)]  # fmt: skip
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


def run(servers: Servers, asked: Asked) -> Report:
    """Each age in a database of its own, open side by side: what the server keeps grows, too."""
    accounts = min(ACCOUNTS_PER_AGE, asked.repetitions)
    measured = MEASURED * asked.repetitions
    months = sorted({1, max(1, asked.months // 2), asked.months})
    with ExitStack() as stack:
        benches: list[tuple[Bench, Age]] = []
        for each in months:
            scratch = stack.enter_context(scratch_database(servers.database_url))
            conn = stack.enter_context(CountingConnection.connect(scratch, autocommit=True))
            for setting in POINT_LOOKUPS:
                conn.execute(setting)
            bench = Bench(conn)
            benches.append((bench, bench.age(each, accounts)))
            conn.execute("ANALYZE")
            asked.progress(f"{each} months are laid down")
        for turn in range(WARM_UP + measured):
            for bench, age in benches:
                meter = age.meters[turn % len(age.meters)]
                bench.in_order(meter, age.in_order if turn >= WARM_UP else None)
                bench.late(meter, age.late if turn >= WARM_UP else None)
        asked.progress("checking every account from its first fact on")
        report = Report(
            "history",
            {"accounts": accounts, "measured": measured, "late by hours": LATE_HOURS},
        )
        judge(report, [age for _, age in benches])
        wrong = [line for bench, age in benches for line in bench.differences(age)]
        report.check("every balance is what the engine says of all facts", wrong)
    return report


def judge(report: Report, ages: Sequence[Age]) -> None:
    """Costs of each age, and whether they are those of the youngest."""
    for kind, word in KINDS.items():
        floor = getattr(ages[0], kind).form()
        for age in ages:
            cost = getattr(age, kind).form()
            subject = f"{age.months} months, {word}"
            for name, unit in UNITS.items():
                report.add(subject, name, unit, [cost[name]])
            times = {name: cost[name] / floor[name] for name in floor if floor[name]}
            report.check(
                f"{subject}: at most {FLAT_RATIO} times that of {ages[0].months} months",
                [f"{name} is {each:.2f} times" for name, each in times.items()
                 if each > FLAT_RATIO],
            )  # fmt: skip
