"""What the gateway tells of its own work."""

import asyncio
import time
import uuid

import psycopg

from meter_gateway.clockwork import run_clockwork
from meter_gateway.metrics import GatewayMetrics
from store import registry
from store.outbox import standing
from store.session import Session

NOW_MS = 1_780_000_000_000
WAITING_MS = 90_000


def queue(conn, meter, ctr, issued_ms):
    conn.execute(
        "INSERT INTO command (id, meter_id, ctr, type, args, issued_ms, expires_ms)"
        " VALUES (%s, %s, %s, 'read', '{}', %s, %s)",
        [uuid.uuid4(), meter, ctr, issued_ms, NOW_MS + 3_600_000],
    )


async def test_the_outbox_is_told_with_the_age_of_its_oldest_command(database_url):
    metrics = GatewayMetrics(1)
    value = metrics.registry.get_sample_value
    session, stopping = Session(database_url, "test"), asyncio.Event()
    with psycopg.connect(database_url, autocommit=True) as conn:
        assert (standing(conn).commands, standing(conn).oldest_ms) == (0, None)
        centre = registry.add_centre(conn, "M", "Metrics")
        meter = registry.add_meter(conn, centre, registry.NewMeter("37000000017"))
        queue(conn, meter, 1, NOW_MS - WAITING_MS)
        queue(conn, meter, 2, NOW_MS)
    clockwork = asyncio.create_task(
        run_clockwork(session, lambda: NOW_MS, stopping, metrics=metrics)
    )
    deadline = time.monotonic() + 20
    while not value("prepaid_outbox_commands") and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    stopping.set()
    await clockwork
    await session.close()
    assert value("prepaid_outbox_commands") == 2
    assert value("prepaid_outbox_oldest_seconds") == WAITING_MS / 1000
