"""What fleets of different sizes need, reckoned from the kept measurements: docs/capacity.md.

Nothing here is measured: CPU and bytes for a reading come from `docs/measurements`, and what is
assumed beside them is a constant below, printed on the page.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

FLEETS = (15_000, 300_000, 1_000_000, 10_000_000, 250_000_000)
INTERVALS_MIN = (15, 30)
BEGIN = "<!-- reckoned: scripts/generate_capacity.py -->\n"
END = "<!-- end -->\n"
DAY_S = 86_400

# Of each core: the other half is for bursts, backlogs, vacuum and whoever else is there.
USED = 0.5
# From this fleet on a reading costs more, as much more as was measured with it.
LARGE_FLEET = 1_000_000
LARGE_RUN = f"end-to-end-at-{LARGE_FLEET}.json"
# Below this rate batches are small, and a reading costs what was measured at 1,000/s.
LOW_RATE_S = 2_000
# One database server, as can be bought without asking anybody.
SERVER_CORES = 64
SERVER_TB = 30
# How long readings themselves are kept (PREPAID_KEEP_READINGS_DAYS); entries are kept for ever,
# and room for so many years of them is made at once.
READING_DAYS = 90
ENTRY_YEARS = 2
# How many connections a node of the broker holds was not measured here.
BROKER_CONNECTIONS = 100_000
ALONE, LOW, BEHIND = "gateway", "gateway at 1,000/s", "gateway, 100 a message"
# Meters behind one connection.
CONCENTRATED = 100


@dataclass(frozen=True, slots=True)
class Costs:
    """For one reading: CPU in µs, and bytes on disk; for one account: bytes. `..._growth`: how many
    times as much CPU it is in a large fleet.
    """

    worker_us: float
    database_us: float
    broker_us: float
    reading_bytes: float
    entry_bytes: float
    account_bytes: float
    worker_growth: float
    database_growth: float


@dataclass(frozen=True, slots=True)
class Need:
    """Of one fleet at one interval; `workers` and `cores` before they are rounded up. `databases`
    is how many servers the work must be split over, and `limit` why.
    """

    readings_s: float
    workers: float
    database_cores: float
    broker_nodes: int
    tb: float
    tb_a_year: float
    databases: int
    limit: str


def costs(folder: Path, subject: str = ALONE) -> Costs:
    """Of a gateway's subject in the kept reports. Errors: KeyError where a figure is missing."""
    speed = _figures(folder / "end-to-end.json")
    large = _figures(folder / LARGE_RUN)
    size = _figures(folder / "storage.json")
    reading = size["reading", "all"]
    return Costs(
        worker_us=speed[subject, "cpu worker"],
        database_us=speed[subject, "cpu database, all"],
        broker_us=speed[subject, "cpu broker"],
        reading_bytes=reading,
        entry_bytes=size["reading with its entry", "all"] - reading,
        account_bytes=size["account state", "all"],
        worker_growth=_growth(large, speed, "cpu worker"),
        database_growth=_growth(large, speed, "cpu database, all"),
    )


def _growth(
    large: Mapping[tuple[str, str], float], usual: Mapping[tuple[str, str], float], figure: str
) -> float:
    """Flat out, of single messages; to two digits, as it is printed."""
    return round(max(1.0, large[ALONE, figure] / usual[ALONE, figure]), 1)


def need(meters: int, interval_min: int, cost: Costs, meters_a_connection: int = 1) -> Need:
    """The whole arithmetic."""
    readings_s = meters / (interval_min * 60)
    large = meters >= LARGE_FLEET
    database_us = cost.database_us * (cost.database_growth if large else 1)
    worker_us = cost.worker_us * (cost.worker_growth if large else 1)
    database_cores = readings_s * database_us / 1e6 / USED
    a_day = readings_s * DAY_S
    entries_tb_a_year = a_day * 365 * cost.entry_bytes / 1e12
    tb = (
        a_day * READING_DAYS * cost.reading_bytes / 1e12
        + entries_tb_a_year * ENTRY_YEARS
        + meters * cost.account_bytes / 1e12
    )
    broker_cores = readings_s * cost.broker_us / 1e6 / USED
    connections = meters / meters_a_connection
    by_cpu, by_disk = ceil(database_cores / SERVER_CORES), ceil(tb / SERVER_TB)
    return Need(
        readings_s=readings_s,
        workers=readings_s * worker_us / 1e6 / USED,
        database_cores=database_cores,
        broker_nodes=max(ceil(broker_cores), ceil(connections / BROKER_CONNECTIONS)),
        tb=tb,
        tb_a_year=entries_tb_a_year,
        databases=max(by_cpu, by_disk),
        limit="–" if max(by_cpu, by_disk) == 1 else "disk" if by_disk >= by_cpu else "CPU",
    )


def filled(text: str, folder: Path) -> str:
    """The page with its figures reckoned anew."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + reckoned(folder) + END + rest.partition(END)[2]


def reckoned(folder: Path) -> str:
    """Costs, one worked line, and a table for meters alone and behind concentrators."""
    alone, low, behind = (costs(folder, subject) for subject in (ALONE, LOW, BEHIND))
    machine = json.loads((folder / "end-to-end.json").read_text(encoding="utf-8"))["machine"]
    named = ", ".join(f"{name} {machine[name]}" for name in ("cpus", "cpu"))
    rows = (
        ("worker, CPU µs", "worker_us"),
        ("database, CPU µs", "database_us"),
        ("broker, CPU µs", "broker_us"),
        ("the reading, bytes", "reading_bytes"),
        ("its entry in the ledger and what belongs to it, bytes", "entry_bytes"),
    )
    costed = "".join(
        f"| {name} | {getattr(alone, key):,.0f} | {getattr(low, key):,.0f} "
        f"| {getattr(behind, key):,.0f} |\n"
        for name, key in rows
    )
    return (
        f"Costs measured on: {named}.\n\n"
        "| for one reading | flat out | at 1,000/s | 100 in a concentrator's message |\n"
        f"|---|--:|--:|--:|\n{costed}\n{_assumed(alone)}\n{_worked(low)}\n"
        f"### Each meter with messages of its own\n\n{_table(alone, low)}\n"
        "### Meters behind concentrators\n\n"
        f"{_table(behind, behind, CONCENTRATED)}"
    )


def _assumed(cost: Costs) -> str:
    return (
        f"Assumed: at most {USED:.0%} of a core is used; below {LOW_RATE_S:,} readings/s one costs "
        f"as much as at 1,000/s; from {LARGE_FLEET:,} meters on a reading costs the worker "
        f"{cost.worker_growth} times and the database {cost.database_growth} times as much CPU, as "
        f"measured with so many; a database server has {SERVER_CORES} cores and "
        f"{SERVER_TB} TB; readings are kept for {READING_DAYS} days, and there is room for "
        f"{ENTRY_YEARS} years of entries; a node of the broker holds {BROKER_CONNECTIONS:,} "
        f"connections; a concentrator has {CONCENTRATED} meters.\n"
    )


def _worked(cost: Costs) -> str:
    meters, minutes = 1_000_000, 15
    found = need(meters, minutes, cost)
    used = f"{USED:.0%} of a core"
    return (
        f"For example {meters:,} meters every {minutes} minutes:\n\n"
        f"- {meters:,} ÷ ({minutes} × 60 s) = {found.readings_s:,.0f} readings/s.\n"
        f"- Workers: {found.readings_s:,.0f}/s × {cost.worker_us:.0f} µs × {cost.worker_growth} ÷ "
        f"{used}"
        f" = {found.workers:.1f}, so {ceil(found.workers)}.\n"
        f"- Database: {found.readings_s:,.0f}/s × {cost.database_us:.0f} µs × "
        f"{cost.database_growth} ÷ {used} = {found.database_cores:.1f}, so "
        f"{ceil(found.database_cores)} cores.\n"
        f"- Entries: {found.readings_s:,.0f}/s × {DAY_S:,} s × 365 × {cost.entry_bytes:.0f} bytes"
        f" = {found.tb_a_year:,.1f} TB a year.\n"
        f"- Disk: {ENTRY_YEARS} × {found.tb_a_year:,.1f} TB, and {READING_DAYS} days × "
        f"{found.readings_s * DAY_S / 1e6:,.0f} million readings × {cost.reading_bytes:.0f} bytes"
        f" = {found.tb:,.1f} TB with the accounts.\n"
    )


def _table(cost: Costs, low: Costs, meters_a_connection: int = 1) -> str:
    head = (
        "| meters | every | readings/s | workers | database cores | broker nodes | disk, TB "
        "| more a year, TB | database servers | because of |"
    )
    lines = [
        head,
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for meters in FLEETS:
        for minutes in INTERVALS_MIN:
            rate_s = meters / (minutes * 60)
            chosen = low if rate_s < LOW_RATE_S else cost
            found = need(meters, minutes, chosen, meters_a_connection)
            lines.append(
                f"| {meters:,} | {minutes} min | {found.readings_s:,.0f} "
                f"| {ceil(found.workers):,} | {ceil(found.database_cores):,} "
                f"| {found.broker_nodes:,} | {found.tb:,.1f} | {found.tb_a_year:,.1f} "
                f"| {found.databases:,} | {found.limit} |"
            )
    return "\n".join(lines) + "\n"


def _figures(path: Path) -> Mapping[tuple[str, str], float]:
    form = json.loads(path.read_text(encoding="utf-8"))
    return {(each["subject"], each["figure"]): each["median"] for each in form["figures"]}
