"""Bytes to readings: what the contract's checks cost, beside parsing alone and a model class.

Rates are per reading, in CPU time of this process; every decoded reading is compared with what was
said.
"""

import json
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice

import cbor2
import orjson

from benchmarks import population
from benchmarks.literal_stack import Said
from benchmarks.measure import Cost, rate_ratios, rotated
from benchmarks.report import Asked, Report, Servers
from schemas.decoding import CBOR, decode_up
from schemas.telemetry import Decoded
from schemas.topics import Topic

SLOTS = range(population.FIRST_SLOT, population.FIRST_SLOT + 50)
BATCH = 100
METER = Topic("m", f"{1:011d}", "up", "reading")
GATEWAY = Topic("g", "G0", "up", "batch")
NOW_MS = population.instant_ms(SLOTS[-1])

Decode = Callable[[bytes], object]


def _decode(topic: Topic, content_type: str | None = None) -> Callable[[bytes], Decoded]:
    return lambda body: decode_up(topic, body, content_type, NOW_MS)


def run(servers: Servers, asked: Asked) -> Report:
    """Readings a second of each, and ours over the others."""
    singles = [population.payload(slot) for slot in SLOTS]
    numbers = [f"{n:011d}" for n in range(1, BATCH + 1)]
    batches = [population.batch(numbers, slot) for slot in SLOTS]
    binary = [cbor2.dumps(orjson.loads(body)) for body in singles]
    subjects: list[tuple[str, Decode, Sequence[bytes], int]] = [
        ("JSON", _decode(METER), singles, 1),
        ("CBOR", _decode(METER, CBOR), binary, 1),
        (f"batch of {BATCH}", _decode(GATEWAY), batches, BATCH),
        ("orjson, parsing alone", orjson.loads, singles, 1),
        ("json, parsing alone", json.loads, singles, 1),
        ("pydantic model", Said.model_validate_json, singles, 1),
    ]
    costs: dict[str, list[Cost]] = {name: [] for name, *_ in subjects}
    for repetition in range(asked.repetitions):
        for name, decode, bodies, each in rotated(subjects, repetition):
            messages = list(islice(cycle(bodies), max(len(bodies), asked.meters // each)))
            began = time.process_time()
            for body in messages:
                decode(body)
            spent = time.process_time() - began
            costs[name].append(Cost(len(messages) * each, spent, {"worker": spent}))
    report = Report("validation", {"readings": asked.meters})
    for name, found in costs.items():
        report.add_costs(name, found)
    for other in ("orjson, parsing alone", "pydantic model"):
        report.add_ratio("JSON", other, rate_ratios(costs["JSON"], costs[other]))
    report.check("every reading is what was said", _wrong(singles, binary, batches))
    return report


def _wrong(
    singles: Sequence[bytes], binary: Sequence[bytes], batches: Sequence[bytes]
) -> list[str]:
    wrong: list[str] = []
    for place, slot in enumerate(SLOTS):
        said = (population.instant_ms(slot), population.register_wh(slot), slot)
        for topic, body, content_type, each in (
            (METER, singles[place], None, 1),
            (METER, binary[place], CBOR, 1),
            (GATEWAY, batches[place], None, BATCH),
        ):
            decoded = decode_up(topic, body, content_type, NOW_MS)
            found = [(one.ts_ms, one.value_wh, one.seq) for one in decoded.readings]
            if found != [said] * each or decoded.refused:
                wrong.append(f"slot {slot} of {topic.kind}")
    return wrong
