"""Bytes on disk for a reading and for what it causes: rows, indexes, and compressed.

The fleet's readings go in through the real ingest; then the server is asked. The floor is the same
number of rows (meter, instant, register) in a table without keys.
"""

from typing import Any

import psycopg
from psycopg import Connection

from benchmarks.bench_transaction import Bench
from benchmarks.ledger_checks import check_fleet, count
from benchmarks.report import Asked, Report, Servers
from benchmarks.sql import statement
from store.scratch import scratch_database
from store.session import POINT_LOOKUPS

SLOTS = 4
UNIT = "bytes/row"


def run(servers: Servers, asked: Asked) -> Report:
    """Sizes by row of readings, ledger entries and states."""
    with (
        scratch_database(servers.database_url) as scratch,
        psycopg.connect(scratch, autocommit=True) as conn,
    ):
        for setting in POINT_LOOKUPS:
            conn.execute(setting)
        bench = Bench(conn, asked.meters)
        for _ in range(SLOTS):
            bench.transaction()
            bench.floor()
        asked.progress(f"{SLOTS} readings of every meter are stored")
        conn.execute("VACUUM ANALYZE")
        report = Report("storage", {"meters": asked.meters, "readings each": SLOTS})
        check_fleet(report, conn, asked.meters, bench.slot, "after all readings")
        _plain(report, conn, asked.meters)
        _compressed(report, conn)
    return report


def _plain(report: Report, conn: Connection[Any], meters: int) -> None:
    row = conn.execute(statement("reading_sizes")).fetchone()
    assert row is not None
    readings = row[0]
    _add(report, "reading", readings, row[1:])
    tables = {
        "energy_debit": ("debit of a steady reading", count(conn, "count_debits")),
        "ledger_posting": ("other ledger entry", count(conn, "count_entries")),
        "account_state": ("account state", meters),
        "bare_reading": ("bare table", SLOTS * meters),
    }
    total = int(row[3])
    for table, (subject, rows) in tables.items():
        sizes = conn.execute(statement("relation_sizes"), {"name": table}).fetchone()
        assert sizes is not None
        _add(report, subject, rows, sizes)
        total += int(sizes[2]) if table == "energy_debit" else 0
    report.add("reading with its entry", "all", "bytes/reading", [total / readings])


def _add(report: Report, subject: str, rows: int, sizes: tuple[Any, ...]) -> None:
    for figure, size in zip(("rows", "indexes", "all"), sizes, strict=True):
        report.add(subject, figure, UNIT, [int(size) / rows])


def _compressed(report: Report, conn: Connection[Any]) -> None:
    """As the policy of migration 0005 leaves old readings."""
    readings = count(conn, "count_readings")
    try:
        conn.execute(statement("compress"))
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFunction):
        report.skip("compressed reading", "this server runs the Apache edition of TimescaleDB")
        return
    size = count(conn, "compressed_size")
    report.add("compressed reading", "all", UNIT, [size / readings])
    left = count(conn, "count_readings")
    wrong = [] if left == readings else [f"{left} of {readings}"]
    report.check("compression keeps every reading", wrong)
