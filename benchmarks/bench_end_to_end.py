"""From a meter's message at the broker to its committed debit, with gateways as users run them.

- flat out: everything at once, beside the floors (`floors.py`), in rotated order; and the same
  readings as batches of a hundred from gateways.
- paced: latency from sending to the receipt at the meter, at offered rates.

After each part every reading must be stored and every balance must be what it must be.
"""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

from benchmarks import population
from benchmarks.floors import FLOORS, Floor, topic
from benchmarks.latencies import Receipts, quantile
from benchmarks.ledger_checks import check_fleet
from benchmarks.load import LoadError
from benchmarks.measure import Cost, Meter, rate_ratios, rotated
from benchmarks.processes import tree_cpu_s
from benchmarks.report import Asked, Report, Servers
from benchmarks.stage import METERS_A_GATEWAY, Stage, opened, with_generator

# Readings of a flat-out repetition, in whole slots: with less, the first and the last batch, beside
# which nothing else is at work, would be much of it.
READINGS = 160_000
# Of the day that a run has, the paced stretches need the rest.
FLAT_OUT_SLOTS = 40
# What a floor is given at most: it looks at no account, so that more would only take longer. The
# slowest is given less, so that it takes as long as we do, and each meter once: of two readings of
# one it would need the order.
FLOOR_MESSAGES_MAX = {"shell": 400_000, "literal stack": 80_000, "npm batch": 400_000}
ONE_SLOT = frozenset({"literal stack"})
OFFERED = (1_000, 5_000)
# At most so many slots a paced stretch: small fleets have few messages in a day.
PACED_SLOTS = 3
RECEIPTS_A_S = 100
GATEWAY, BATCHES = "gateway", f"gateway, {METERS_A_GATEWAY} a message"


def run(servers: Servers, asked: Asked) -> Report:
    parameters: dict[str, Any] = {"meters": asked.meters, "workers": asked.workers}
    report = Report("end-to-end", parameters)
    with opened(servers, asked.meters, asked.workers) as stage:
        parameters["generator"] = stage.load.kind
        _flat_out(report, stage, servers, asked)
        _paced(report, stage, servers, asked)
    return report


# --- flat out -----------------------------------------------------------------------------------


def _flat_out(report: Report, stage: Stage, servers: Servers, asked: Asked) -> None:
    slots = _slots(asked)
    count = slots * asked.meters

    def singles() -> Cost:
        return stage.publish(stage.fleet.singles(count)[0], count)[0]

    def batches() -> Cost:
        return stage.publish(stage.fleet.batches(slots), count)[0]

    subjects: dict[str, Callable[[], Cost]] = {GATEWAY: singles, BATCHES: batches}
    for kind in FLOORS:
        floor = kind(servers, stage.database_url)
        reason = floor.skipped()
        if reason is not None:
            report.skip(floor.name, reason)
            continue
        floor.make(stage.conn)
        said = 1 if floor.name in ONE_SLOT else slots
        subjects[floor.name] = partial(_floor, stage, floor, said)
    costs: dict[str, list[Cost]] = {name: [] for name in subjects}
    for repetition in range(asked.repetitions):
        for name, subject in rotated(list(subjects.items()), repetition):
            costs[name].append(subject())
            asked.progress(f"{name}: {costs[name][-1].rate:,.0f}/s ({repetition + 1})")
    for name, found in costs.items():
        report.add_costs(name, found)
    for name in (BATCHES, *(kind.name for kind in FLOORS)):
        if name in costs:
            report.add_ratio(GATEWAY, name, rate_ratios(costs[GATEWAY], costs[name]))
    check_fleet(report, stage.conn, asked.meters, stage.fleet.slot, "flat out")


def _slots(asked: Asked) -> int:
    """Of a repetition: single messages and batches say so many each."""
    fitting = FLAT_OUT_SLOTS // (2 * asked.repetitions)
    return max(1, min(fitting, READINGS // asked.meters))


def _floor(stage: Stage, floor: Floor, slots: int) -> Cost:
    """The same messages on the floor's own topics."""
    meters = stage.fleet.meters
    first = population.FIRST_SLOT + 1
    bodies = [population.payload(slot) for slot in range(first, first + slots)]
    said = ((topic(number), body) for body in bodies for number in stage.fleet.numbers)
    messages = list(islice(said, FLOOR_MESSAGES_MAX[floor.name]))
    file = stage.load.prepare(messages)
    floor.fill(stage.conn, meters, population.register_wh(population.FIRST_SLOT))
    meter = Meter(
        {
            "database, all": lambda: tree_cpu_s(stage.postmaster_pid),
            "broker": lambda: tree_cpu_s(stage.broker_pid),
        }
    )
    process = floor.start(len(messages))
    with meter.running():
        publishing = stage.load.publish(file, len(messages))
        worker_s = process.finish()
    floor.forget()
    cost = with_generator(meter.cost(len(messages)), publishing.finish())
    file.unlink()
    stored = floor.stored(stage.conn)
    floor.empty(stage.conn)
    if stored != len(messages):
        raise LoadError("floor_wrong", f"{floor.name}: {stored} of {len(messages)} are stored.")
    return Cost(cost.readings, cost.elapsed_s, {"worker": worker_s} | cost.cpu_s)


# --- paced --------------------------------------------------------------------------------------


def _paced(report: Report, stage: Stage, servers: Servers, asked: Asked) -> None:
    latencies: dict[int, list[list[float]]] = {rate: [] for rate in OFFERED}
    costs: dict[int, list[Cost]] = {rate: [] for rate in OFFERED}
    missing: list[str] = []
    for repetition in range(asked.repetitions):
        for rate in rotated(OFFERED, repetition):
            count = min(int(rate * asked.paced_s), PACED_SLOTS * asked.meters)
            with Receipts(servers.broker_url) as receipts:
                cost, found, wanted = _paced_once(stage, receipts, count, rate)
            costs[rate].append(cost)
            latencies[rate].append(found)
            if len(found) < wanted:
                missing.append(f"{wanted - len(found)} of {wanted} at {rate}/s")
            asked.progress(f"{rate:,}/s: p99 {quantile(found, 0.99):.0f} ms ({repetition + 1})")
    for rate in OFFERED:
        name = f"gateway at {rate:,}/s"
        report.add_costs(name, costs[rate])
        for share, word in ((0.5, "p50"), (0.99, "p99")):
            each = [quantile(found, share) for found in latencies[rate]]
            report.add(name, f"latency {word}", "ms", each)
    stage.finish_slot()
    report.check("paced: every receipt that was asked for came", missing)
    check_fleet(report, stage.conn, asked.meters, stage.fleet.slot, "paced")


def _paced_once(
    stage: Stage, receipts: Receipts, count: int, rate: int
) -> tuple[Cost, list[float], int]:
    """Cost, latencies in ms, and how many receipts were asked for."""
    first = stage.fleet.sent
    messages, asking = stage.fleet.singles(count, max(1, rate // RECEIPTS_A_S))
    cost, sent = stage.publish(messages, count, rate)
    keys = {_key(stage, first + place): sent.stamps_ns[place] for place in asking}
    return cost, receipts.latencies_ms(keys), len(keys)


def _key(stage: Stage, place: int) -> tuple[str, int]:
    """Meter and seq of a message of the whole run."""
    slot, meter = divmod(place, stage.fleet.meters)
    return stage.fleet.numbers[meter], population.FIRST_SLOT + 1 + slot
