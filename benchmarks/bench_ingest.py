"""What one reading costs our process alone and in a gateway's batch: decode and ingest.

`python -m benchmarks.bench_ingest [--json]`, on PREPAID_DATABASE__URL, in a database of its own.
The input is fixed: `METERS` meters read every quarter of an hour, in order, once as a message per
reading and once as batches of 100 readings, JSON and CBOR, both `MESSAGES_AT_ONCE` a commit.
Counted is the CPU of this process (`time.process_time`), best of `ROUNDS`; the database's own work
is the same rows either way. Exit status 1 where a reading in a batch is not clearly cheaper
(`RATIO`) to decode than a message of its own.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import cbor2
from psycopg import Connection

from benchmarks.population import TARIFF
from credit_engine.terms import Installation
from schemas.decoding import CBOR, decode_up
from schemas.quantities import format_instant, parse_instant_ms
from schemas.topics import parse
from store import ingest, registry
from store.incoming import Incoming
from store.registry import NewMeter
from store.scratch import scratch_database
from store.session import POINT_LOOKUPS
from store.settlement import TermsCache

METERS = 100
SLOT_MS = 900_000
ROUNDS = 7
MESSAGES_AT_ONCE = 400
OPENED_MS = parse_instant_ms("2026-03-01T00:00:00Z")
GATEWAY = "BENCH-1"
RATIO = 0.33

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
    "single": singles,
    "batch 100 x 1 json": lambda slots: batches(slots, cbor=False, width=1),
    "batch 25 x 4 json": lambda slots: batches(slots, cbor=False, width=4),
    "batch 25 x 4 cbor": lambda slots: batches(slots, cbor=True, width=4),
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


def run(url: str) -> dict[str, dict[str, float]]:
    """Per kind: µs of CPU a reading, best of the rounds; the kinds take turns."""
    best: dict[str, dict[str, float]] = {}
    with scratch_database(url) as scratch, Connection.connect(scratch, autocommit=True) as conn:
        for setting in POINT_LOOKUPS:
            conn.execute(setting)
        populate(conn)
        terms, slot = TermsCache(), 1
        for turn in range(ROUNDS + 1):
            for kind, make in KINDS.items():
                slots = range(slot, slot + 4)
                slot += 4
                now_ms = OPENED_MS + slot * SLOT_MS
                messages = make(slots)
                began = time.process_time()
                incoming = decoded(messages, now_ms)
                between = time.process_time()
                accepted = 0
                for first in range(0, len(incoming), MESSAGES_AT_ONCE):
                    part = incoming[first : first + MESSAGES_AT_ONCE]
                    accepted += ingest.record(conn, terms, part, now_ms).accepted
                ended = time.process_time()
                assert accepted == 4 * METERS, accepted
                if turn == 0:
                    continue  # warm up
                cost = {"decode_us": between - began, "ingest_us": ended - between}
                for name, seconds in cost.items():
                    each = round(seconds * 1e6 / accepted, 2)
                    row = best.setdefault(kind, {})
                    row[name] = min(each, row.get(name, each))
    return best


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
        print("kind                 decode µs  ingest µs   (per reading)")
        for kind, row in found.items():
            print(f"{kind:20} {row['decode_us']:9.2f} {row['ingest_us']:10.2f}")
    floor = found["single"]
    dear = [kind for kind, row in found.items() if row["decode_us"] > RATIO * floor["decode_us"]]
    sys.exit(1 if [kind for kind in dear if kind != "single"] else 0)


if __name__ == "__main__":
    main()
