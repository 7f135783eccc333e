"""A late reading costs the same however long the history is: only its own chunks are visited."""

from typing import Any

import pytest

from schemas.quantities import parse_instant_ms
from store.session import POINT_LOOKUPS
from store.sql import query

Desk = Any
WEEKS = 12


@pytest.mark.parametrize(
    ("name", "more"),
    [
        (
            "readings_after",
            {
                "accounts": [1],
                "after": [parse_instant_ms("2026-05-18T00:00:00Z")],
                "first_ms": parse_instant_ms("2026-05-18T00:00:00Z"),
            },
        ),
        (
            "known_readings",
            {
                "meters": [1],
                "registers": ["1.8.0"],
                "ts": [parse_instant_ms("2026-05-18T00:00:00Z")],
                "first_ms": parse_instant_ms("2026-05-18T00:00:00Z"),
                "last_ms": parse_instant_ms("2026-05-18T03:00:00Z"),
            },
        ),
        (
            "update_verdicts",
            {
                "meters": ["1"],
                "ts": [parse_instant_ms("2026-05-18T00:00:00Z")],
                "verdicts": ["accepted"],
                "first_ms": parse_instant_ms("2026-05-18T00:00:00Z"),
                "last_ms": parse_instant_ms("2026-05-18T03:00:00Z"),
            },
        ),
    ],
)
def test_what_a_late_reading_asks_for_is_planned_without_old_chunks(
    desk: Desk, name: str, more: dict[str, Any]
) -> None:
    account = desk.open()
    for week in range(WEEKS):
        month, day = divmod(7 * week, 28)
        desk.read(account, f"2026-{month + 3:02}-{day + 2:02}T01:00:00Z", 1_000 * (week + 1))
    chunks = desk.conn.execute("SELECT count(*) FROM show_chunks('reading')").fetchone()[0]
    assert chunks >= WEEKS - 2
    for setting in POINT_LOOKUPS:
        desk.conn.execute(setting)
    plan = desk.conn.execute("EXPLAIN " + query(name), {"account": account, **more}).fetchall()
    visited = {word for (line,) in plan for word in line.split() if "_hyper_" in word
               and word.endswith("_chunk")}  # fmt: skip
    assert 1 <= len(visited) <= 2, plan
