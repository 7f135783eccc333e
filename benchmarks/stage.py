"""One fleet in a database of its own, its gateways, and load on the broker between them."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection

from benchmarks import population
from benchmarks.load import Load, LoadError, Sent
from benchmarks.measure import Cost, Meter
from benchmarks.population import Population
from benchmarks.processes import (
    listener_pid,
    postmaster_pid,
    process_cpu_s,
    tree_cpu_s,
)
from benchmarks.report import Servers
from benchmarks.sql import statement
from benchmarks.workers import Workers, running
from meter_gateway.receiver import BrokerAddress
from store.scratch import scratch_database

# The gateways' clock begins at this slot of the first day: no midnight falls into a measurement,
# and no message is of the future.
CLOCK_SLOT = 80
METERS_A_GATEWAY = 100
INGEST = "prepaid-ingest"


def reading_topic(number: str) -> str:
    return f"pm/v1/m/{number}/up/reading"


class Fleet:
    """What was said so far: `sent` readings, slot after slot, each meter once in a slot."""

    def __init__(self, fleet: Population) -> None:
        self._population = fleet
        self.sent = 0
        self.numbers = [fleet.number(place) for place in range(fleet.meters)]

    @property
    def meters(self) -> int:
        return self._population.meters

    @property
    def slot(self) -> int:
        """The newest slot that any meter has said."""
        return population.FIRST_SLOT + -(-self.sent // self.meters)

    def unfinished(self) -> int:
        """Readings that are missing to a whole slot."""
        return -self.sent % self.meters

    def singles(
        self, count: int, receipt_every: int = 0
    ) -> tuple[list[tuple[str, bytes]], list[int]]:
        """The next messages, a meter each; and the places of those that ask for a receipt."""
        messages: list[tuple[str, bytes]] = []
        asked: list[int] = []
        bodies: dict[int, tuple[bytes, bytes]] = {}
        for place in range(count):
            slot, meter = divmod(self.sent + place, self.meters)
            slot += population.FIRST_SLOT + 1
            if slot not in bodies:
                both = population.payload(slot), population.payload(slot, receipt=True)
                bodies[slot] = both
            wants = receipt_every > 0 and place % receipt_every == 0
            messages.append((reading_topic(self.numbers[meter]), bodies[slot][wants]))
            if wants:
                asked.append(place)
        self._advance(count)
        return messages, asked

    def batches(self, slots: int) -> list[tuple[str, bytes]]:
        """The next whole slots, a hundred meters a message."""
        assert self.unfinished() == 0, "a slot is said by everybody or not at all"
        first = self.slot + 1
        self._advance(slots * self.meters)
        ordered = sorted(self.numbers)
        return [
            (
                f"pm/v1/g/G{at // METERS_A_GATEWAY}/up/batch",
                population.batch(ordered[at : at + METERS_A_GATEWAY], slot),
            )
            for slot in range(first, first + slots)
            for at in range(0, self.meters, METERS_A_GATEWAY)
        ]

    def _advance(self, count: int) -> None:
        self.sent += count
        if self.slot >= CLOCK_SLOT:
            raise LoadError(
                "day_over",
                f"{self.meters} meters would have to say more than a day holds: "
                "take more meters, fewer repetitions or shorter paced stretches.",
            )


@dataclass(slots=True)
class Stage:
    """Everything of one measurement; open with `opened`."""

    conn: Connection[Any]
    database_url: str
    fleet: Fleet
    workers: Workers
    load: Load
    folder: Path
    broker_pid: int | None
    postmaster_pid: int | None

    def _backends_cpu_s(self) -> float:
        found = self.conn.execute(statement("backend_pids"), {"name": INGEST}).fetchall()
        return sum(process_cpu_s(pid, "postgres") for (pid,) in found)

    def meter(self) -> Meter:
        """Clocks of every part but the generator, which tells its own."""
        return Meter(
            {
                "worker": self.workers.cpu_s,
                "database backends": self._backends_cpu_s,
                "database, all": lambda: tree_cpu_s(self.postmaster_pid),
                "broker": lambda: tree_cpu_s(self.broker_pid),
            }
        )

    def publish(
        self, messages: Sequence[tuple[str, bytes]], readings: int, rate: float = 0
    ) -> tuple[Cost, Sent]:
        """Send them and wait until their readings are committed: cost, and what the load says."""
        file = self.load.prepare(messages)
        before = self.workers.accepted()
        meter = self.meter()
        with meter.running():
            publishing = self.load.publish(file, len(messages), rate=rate)
            self.workers.wait_accepted(before + readings)
        sent = publishing.finish()
        file.unlink()
        return with_generator(meter.cost(readings), sent), sent

    def finish_slot(self) -> None:
        """What is missing to a whole slot, unmeasured, so that all accounts can be compared."""
        missing = self.fleet.unfinished()
        if missing:
            self.publish(self.fleet.singles(missing)[0], missing)


def with_generator(cost: Cost, sent: Sent) -> Cost:
    return Cost(cost.readings, cost.elapsed_s, cost.cpu_s | {"generator": sent.cpu_s})


@contextmanager
def opened(servers: Servers, meters: int, workers: int) -> Iterator[Stage]:
    """A populated database, gateways that are subscribed, and one slot said to warm them up."""
    with ExitStack() as stack:
        url = stack.enter_context(scratch_database(servers.database_url))
        conn = stack.enter_context(psycopg.connect(url, autocommit=True))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prepaid-bench-")))
        fleet = Fleet(population.populate(conn, meters))
        conn.execute(statement("add_gateways"), {"meters": meters, "each": METERS_A_GATEWAY})
        clock = f"{time.time_ns() // 1_000_000}:{population.instant_ms(CLOCK_SLOT)}:1"
        running_workers = stack.enter_context(
            running(Workers(url, servers.broker_url, clock, workers, folder))
        )
        address = BrokerAddress.parse(servers.broker_url)
        local = address.host in {"localhost", "127.0.0.1"}
        stage = Stage(
            conn,
            url,
            fleet,
            running_workers,
            Load(servers.broker_url, folder),
            folder,
            listener_pid(address.port, "mosquitto") if local else None,
            postmaster_pid(conn),
        )
        stage.publish(fleet.singles(meters)[0], meters)
        yield stage
