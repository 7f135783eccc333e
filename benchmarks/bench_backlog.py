"""A backlog: gateways are away, and readings pile up at the broker; then the gateways are back
while the fleet goes on speaking at its own pace.

What comes now overtakes what waited (ADR 0032). Measured are the time until all of it is debited,
what each reading costs, and what a live reading waits for its debit meanwhile.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks import population
from benchmarks.debits import Debits, Key
from benchmarks.latencies import quantile
from benchmarks.ledger_checks import check_fleet
from benchmarks.measure import Cost
from benchmarks.processes import peak_memory_mib
from benchmarks.report import Asked, Report, Servers
from benchmarks.stage import Stage, opened

# A meter speaks every quarter of an hour; a small fleet a little more often, so that there is
# something to measure.
QUARTER_S = 900
LIVE_RATE_MIN = 100
LOOKED_FOR_A_S = 100
# Of a stretch of live readings: how often is asked whether all is done.
STRETCH_S = 2.0
# Messages that are prepared at a time, so that a backlog of millions takes no memory here.
AT_ONCE = 1_000_000
SUBJECT = "backlog"


@dataclass(slots=True)
class Live:
    """What the fleet says while the backlog is worked off, stretch after stretch."""

    stage: Stage
    rate: int
    sent: int = 0
    # Without the last stretch.
    before_last: int = 0
    cpu_s: float = 0.0
    sent_ns: dict[Key, int] = field(default_factory=dict)

    def speak(self, seconds: float, debits: Debits) -> None:
        count = max(1, int(self.rate * seconds))
        first = self.stage.fleet.sent
        messages, asking = self.stage.fleet.singles(count, max(1, self.rate // LOOKED_FOR_A_S))
        keys = [self._key(first + place) for place in asking]
        debits.look_for(keys)
        file = self.stage.load.prepare(messages)
        sent = self.stage.load.publish(file, count, rate=self.rate).finish()
        file.unlink()
        self.before_last = self.sent
        self.sent += count
        self.cpu_s += sent.cpu_s
        self.sent_ns |= {
            key: sent.stamps_ns[place] for key, place in zip(keys, asking, strict=True)
        }

    def _key(self, place: int) -> Key:
        slot, meter = divmod(place, self.stage.fleet.meters)
        number = self.stage.fleet.numbers[meter]
        return number, population.instant_ms(population.FIRST_SLOT + 1 + slot)


def run(servers: Servers, asked: Asked) -> Report:
    piled = asked.slots * asked.meters
    rate = max(LIVE_RATE_MIN, asked.meters // QUARTER_S)
    parameters: dict[str, Any] = {
        "meters": asked.meters,
        "workers": asked.workers,
        "backlog": piled,
        "live readings/s": rate,
    }
    if servers.autosave_s is not None:
        parameters["snapshot of the broker"] = f"every {servers.autosave_s} s"
    report = Report(SUBJECT, parameters)
    with opened(servers, asked.meters, asked.workers) as stage:
        parameters["generator"] = stage.load.kind
        costs: list[Cost] = []
        latencies: list[list[float]] = []
        missing: list[str] = []
        for repetition in range(asked.repetitions):
            cost, found, wanted = _drain(stage, asked, piled, rate)
            costs.append(cost)
            latencies.append(found)
            if len(found) < wanted:
                missing.append(f"{wanted - len(found)} of {wanted}")
            asked.progress(
                f"{cost.rate:,.0f}/s, live p99 {quantile(found, 0.99):,.0f} ms ({repetition + 1})"
            )
        stage.finish_slot()
        _tell(report, stage, costs, latencies)
        report.check("every live reading that was looked for was seen", missing)
        check_fleet(report, stage.conn, asked.meters, stage.fleet.slot, SUBJECT)
    return report


def _tell(report: Report, stage: Stage, costs: list[Cost], latencies: list[list[float]]) -> None:
    report.add_costs(SUBJECT, costs)
    report.add(SUBJECT, "until all is debited", "s", [cost.elapsed_s for cost in costs])
    quantiles: Mapping[str, float] = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    for word, share in quantiles.items():
        each = [quantile(found, share) for found in latencies]
        report.add(SUBJECT, f"live latency {word}", "ms", each)
    report.add(SUBJECT, "memory of a worker", "MiB", [stage.workers.peak_memory_mib])
    if stage.broker_pid is not None:
        report.add(SUBJECT, "memory of the broker", "MiB", [peak_memory_mib(stage.broker_pid)])


def _drain(stage: Stage, asked: Asked, piled: int, rate: int) -> tuple[Cost, list[float], int]:
    """Pile up and come back: the cost of all, latencies in ms, and of how many there are to be."""
    before = stage.workers.accepted()
    stage.workers.stop()
    _pile_up(stage, asked, piled)
    live, meter = Live(stage, rate), stage.meter()
    with Debits(stage.database_url) as debits:
        stage.workers.start()
        with meter.running():
            done = 0
            # Until nothing is left but, perhaps, what was said last.
            while done < piled + live.before_last:
                live.speak(min(STRETCH_S, asked.paced_s), debits)
                done = stage.workers.accepted() - before
                asked.progress(f"{done:,} of {piled + live.sent:,} are debited")
            stage.workers.wait_accepted(before + piled + live.sent)
        found = debits.latencies_ms(live.sent_ns)
    stage.workers.note_memory()
    cost = meter.cost(piled + live.sent)
    parts = cost.cpu_s | {"generator": live.cpu_s}
    return Cost(cost.readings, cost.elapsed_s, parts), found, len(live.sent_ns)


def _pile_up(stage: Stage, asked: Asked, piled: int) -> None:
    for first in range(0, piled, AT_ONCE):
        count = min(AT_ONCE, piled - first)
        file = stage.load.prepare(stage.fleet.singles(count)[0])
        stage.load.publish(file, count).finish()
        file.unlink()
        asked.progress(f"{first + count:,} of {piled:,} wait at the broker")
