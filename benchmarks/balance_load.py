"""Balances at the rate of a fleet's customers: each by a session of its own, due when it is due.

Beside it, in the same run and at the same rate, one row by its key through the same framework. What
is slow there is slow because of the machine.
"""

import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection

from benchmarks.latencies import quantile
from benchmarks.measure import Cost, Meter
from benchmarks.open_loop import Answers, OpenLoop, get, instants
from benchmarks.population import Population
from benchmarks.processes import postmaster_pid, tree_cpu_s
from benchmarks.report import Report
from benchmarks.sql import statement

RATE = 1_000
# Holders with a session; a measurement asks for each of their accounts in turn.
HOLDERS = 20_000
# Before the first measurement, at a gentler rate: what the server reads and prepares once.
WARM_UP, WARM_UP_RATE = 200, 100
BALANCE, ROW = f"balance at {RATE}/s", f"one row at {RATE}/s"
WORKER, DATABASE, GENERATOR = "worker", "database, all", "generator"


@dataclass(slots=True)
class Holders:
    """Customers who signed in an hour ago, each with one account."""

    fleet: Population
    count: int
    _prefix: str = field(default_factory=lambda: f"cs_{secrets.token_urlsafe(12)}_")

    def sign_in(self, conn: Connection[Any]) -> None:
        of = {
            "numbers": [self.fleet.number(place) for place in range(self.count)],
            "prefix": self._prefix,
            "wall_ms": int(time.time() * 1000),
        }
        conn.execute(statement("give_sessions"), of)
        conn.execute("VACUUM ANALYZE")

    def number(self, place: int) -> str:
        return self.fleet.number(place % self.count)

    def balance(self, place: int, host: str) -> bytes:
        number = self.number(place)
        return get(f"/v1/accounts/B-{int(number)}/balance", host, f"{self._prefix}{number}")

    def row(self, place: int, host: str) -> bytes:
        return get(f"/rows/B-{int(self.number(place))}", host)


@dataclass(slots=True)
class Stretch:
    """One measurement of one kind: its latencies and its cost."""

    latency_ms: list[float]
    cost: Cost


@dataclass(slots=True)
class BalanceLoad:
    """Measures both kinds in turn; `wrong` are the answers that were not as they had to be."""

    conn: Connection[Any]
    holders: Holders
    asking: OpenLoop
    # Of a place: what its account must have left, None where a payment may have moved it.
    expected: Callable[[str], str | None]
    stretches: dict[str, list[Stretch]] = field(default_factory=lambda: {BALANCE: [], ROW: []})
    wrong: list[str] = field(default_factory=list)
    _next: int = 0

    def warm_up(self, name: str, address: str) -> None:
        self._offer(name, address, range(WARM_UP), WARM_UP_RATE)

    def measure(self, name: str, address: str, processes: Sequence[int], seconds: float) -> None:
        """Offer one stretch to the processes behind an address."""
        postmaster = postmaster_pid(self.conn)
        meter = Meter(
            {
                WORKER: lambda: sum(map(tree_cpu_s, processes)),
                DATABASE: lambda: tree_cpu_s(postmaster),
            }
        )
        count = max(1, int(RATE * seconds))
        places = range(self._next, self._next + count)
        self._next += count
        with meter.running():
            answers = self._offer(name, address, places, RATE)
        cost = Cost(count, answers.elapsed_s, meter.cpu_s | {GENERATOR: answers.cpu_s})
        self.stretches[name].append(Stretch(answers.latency_ms, cost))
        for place, status, body in zip(places, answers.status, answers.body, strict=True):
            complaint = self._complaint(name, place, status, body)
            if complaint is not None:
                self.wrong.append(f"{name}: {complaint}")

    def _offer(self, name: str, address: str, places: Sequence[int], rate: float) -> Answers:
        host = address.removeprefix("http://")
        make = self.holders.balance if name == BALANCE else self.holders.row
        requests = [make(place, host) for place in places]
        return self.asking.offer(address, requests, instants(len(places), rate, seed=places[0]))

    def _complaint(self, name: str, place: int, status: int, body: bytes) -> str | None:
        if status != 200:
            return f"status {status}: {body!r:.120}"
        number = self.holders.number(place)
        said = json.loads(body)
        if said["account"] != f"B-{int(number)}":
            return f"the account {said['account']} instead of B-{int(number)}"
        expected = self.expected(number)
        if name == ROW or expected is None or said["balance"]["amount"] == expected:
            return None
        return f"{said['balance']['amount']}, not {expected}"

    def tell(self, report: Report) -> None:
        """Costs and latencies of both, and how many times those of one row a balance takes."""
        for name, found in self.stretches.items():
            report.add_costs(name, [each.cost for each in found], "answer")
            for share, word in ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")):
                values = [quantile(each.latency_ms, share) for each in found]
                report.add(name, f"latency {word}", "ms", values)
        pairs = list(zip(self.stretches[BALANCE], self.stretches[ROW], strict=True))
        report.add(
            BALANCE,
            "cpu ÷ that of one row",
            "times",
            [_cpu_s(balance.cost) / _cpu_s(row.cost) for balance, row in pairs],
        )
        report.add(
            BALANCE,
            "p99 ÷ that of one row",
            "times",
            [
                quantile(balance.latency_ms, 0.99) / quantile(row.latency_ms, 0.99)
                for balance, row in pairs
            ],
        )
        report.check(f"every balance at {RATE}/s is right", self.wrong)


def _cpu_s(cost: Cost) -> float:
    """Of the server and its database, without the generator's."""
    return cost.cpu_s[WORKER] + cost.cpu_s[DATABASE]
