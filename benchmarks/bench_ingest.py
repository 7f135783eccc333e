"""What one reading costs our process alone and in a gateway's batch: decode and ingest.

The input is fixed: `METERS` meters read every quarter of an hour, in order, once as a message per
reading and once as batches of 100 readings, JSON and CBOR, both `MESSAGES_AT_ONCE` a commit.
Rates are in CPU time of this process; the database's own work is the same rows either way. A
check fails where a reading in a batch is not clearly cheaper (`RATIO`) to decode than a message.
"""

import json
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import cbor2
from psycopg import Connection

from benchmarks.ledger_checks import count
from benchmarks.measure import Cost, rate_ratios, rotated
from benchmarks.population import TARIFF
from benchmarks.report import Asked, Report, Servers
from credit_engine.terms import Installation
from schemas.decoding import CBOR, decode_up
from schemas.quantities import format_instant, parse_instant_ms
from schemas.topics import parse
from store import ingest, registry
from store.incoming import Incoming
from store.registry import NewMeter
from store.scratch import scratch_database
from store.session import POINT_LOOKUPS
from store.terms import TermsCache

METERS = 100
SLOT_MS = 900_000
MESSAGES_AT_ONCE = 400
OPENED_MS = parse_instant_ms("2026-03-01T00:00:00Z")
GATEWAY = "BENCH-1"
RATIO = 0.33
SLOTS = 4
SINGLE = "a message each"

Message = tuple[str, bytes, str | None]


def number(serial: int) -> str:
    return f"{serial:011d}"


def wh(slot: int) -> int:
    return 100_000 + slot * 77


def singles(slots: Sequence[int]) -> list[Message]:
    """A message per meter and slot."""
    said: list[Message] = []
    for slot in slots:
        for serial in range(1, METERS + 1):
            form = {
                "v": 1,
                "boot": 1,
                "seq": slot,
                "ts": format_instant(OPENED_MS + slot * SLOT_MS),
                "tq": "sync",
                "hist": False,
                "reg": {"1.8.0": wh(slot)},
                "relay": "closed",
                "rcpt": False,
            }
            payload = json.dumps(form, separators=(",", ":")).encode()
            said.append((f"pm/v1/m/{number(serial)}/up/reading", payload, None))
    return said


def batches(slots: Sequence[int], *, cbor: bool, width: int) -> list[Message]:
    """Batches of 100 readings: `100 / width` meters, `width` slots each."""
    said: list[Message] = []
    for first in range(0, len(slots), width):
        part = slots[first : first + width]
        for start in range(1, METERS + 1, 100 // width):
            form = {
                "v": 1,
                "t0": format_instant(OPENED_MS + part[0] * SLOT_MS),
                "dt": SLOT_MS // 1000,
                "cols": ["1.8.0"],
                "rows": [
                    [number(serial), 1, part[0], [[wh(slot)] for slot in part]]
                    for serial in range(start, start + 100 // width)
                ],
            }
            payload = (
                cbor2.dumps(form) if cbor else json.dumps(form, separators=(",", ":")).encode()
            )
            said.append((f"pm/v1/g/{GATEWAY}/up/batch", payload, CBOR if cbor else None))
    return said


KINDS: dict[str, Callable[[Sequence[int]], list[Message]]] = {
    SINGLE: singles,
    "batch 100 x 1 JSON": lambda slots: batches(slots, cbor=False, width=1),
    "batch 25 x 4 JSON": lambda slots: batches(slots, cbor=False, width=4),
    "batch 25 x 4 CBOR": lambda slots: batches(slots, cbor=True, width=4),
}


def decoded(messages: Sequence[Message], now_ms: int) -> list[Incoming]:
    out: list[Incoming] = []
    for text, payload, content_type in messages:
        topic = parse(text)
        got = decode_up(topic, payload, content_type, now_ms)
        out.append(Incoming(topic, text, payload, content_type, got))
    return out


def populate(conn: Connection[Any]) -> None:
    centre = registry.add_centre(conn, "bench", "Benchmark")
    tariff = registry.add_tariff(conn, "bench", "Benchmark", TARIFF)
    for serial in range(1, METERS + 1):
        registry.add_meter(conn, centre, NewMeter(number(serial), gateway=GATEWAY))
        registry.open_account(
            conn,
            number=f"B-{serial}",
            customer=registry.add_customer(conn, "Benchmark", OPENED_MS),
            centre=centre,
            tariff=tariff,
            terms={"activated_at": format_instant(OPENED_MS)},
            installation=Installation(number(serial), 10**9, OPENED_MS, 100_000, 6_600),
            now_ms=OPENED_MS,
        )


class Bench:
    """A fleet behind one gateway that says slot after slot."""

    def __init__(self, conn: Connection[Any]) -> None:
        self.conn = conn
        self.terms = TermsCache()
        self.slot = 1
        populate(conn)

    def measure(self, make: Callable[[Sequence[int]], list[Message]]) -> Cost:
        """The next slots of every meter, decoded and recorded."""
        slots = range(self.slot, self.slot + SLOTS)
        self.slot += SLOTS
        now_ms = OPENED_MS + self.slot * SLOT_MS
        messages = make(slots)
        began = time.process_time()
        incoming = decoded(messages, now_ms)
        between = time.process_time()
        accepted = 0
        for first in range(0, len(incoming), MESSAGES_AT_ONCE):
            part = incoming[first : first + MESSAGES_AT_ONCE]
            accepted += ingest.record(self.conn, self.terms, part, now_ms).accepted
        ended = time.process_time()
        assert accepted == SLOTS * METERS, accepted
        spent = {"decode": between - began, "worker": ended - between}
        return Cost(accepted, ended - began, spent)


def run(servers: Servers, asked: Asked) -> Report:
    """CPU a reading of each kind, and what a batch saves."""
    with (
        scratch_database(servers.database_url) as scratch,
        Connection.connect(scratch, autocommit=True) as conn,
    ):
        for setting in POINT_LOOKUPS:
            conn.execute(setting)
        bench = Bench(conn)
        costs: dict[str, list[Cost]] = {kind: [] for kind in KINDS}
        for make in KINDS.values():
            bench.measure(make)  # warm up
        for repetition in range(asked.repetitions):
            for kind, make in rotated(list(KINDS.items()), repetition):
                costs[kind].append(bench.measure(make))
        report = Report("ingest", {"meters": METERS, "slots": SLOTS})
        for kind, found in costs.items():
            report.add_costs(kind, found)
        single = median(cost.cpu_us("decode") for cost in costs[SINGLE])
        for kind in (each for each in KINDS if each != SINGLE):
            report.add_ratio(kind, SINGLE, rate_ratios(costs[kind], costs[SINGLE]))
            times = median(cost.cpu_us("decode") for cost in costs[kind]) / single
            dear = [f"{times:.2f} times"] if times > RATIO else []
            report.check(f"{kind}: decoding takes at most {RATIO} times that of single ones", dear)
        stored, sent = count(conn, "count_readings"), METERS * (bench.slot - 1)
        wrong = [] if stored == sent else [f"{sent} sent, {stored} stored"]
        report.check("stored = sent", wrong)
    return report
