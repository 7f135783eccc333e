"""The gateway outlives database and broker; what they forget is said again and counts once."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiomqtt
import psycopg
import pytest

from credit_engine.terms import Installation
from meter_gateway.gateway import Gateway, GatewaySettings
from prepaid.runtime import Folders, Instance
from schemas.quantities import format_instant
from schemas.topics import Topic, build
from store import registry
from store.migrate import migrate

METERS = [f"8700000{place:04d}" for place in range(10)]
READINGS = 60
STEP_MS = 60_000
TARIFF = {
    "timezone": "UTC",
    "currency": "MRU",
    "tariff": {
        "versions": [
            {
                "valid_from": "2026-01-01",
                "period": "month",
                "bands": [{"name": "all", "method": "graduated", "blocks": [{"price": "5.000"}]}],
            }
        ]
    },
}


@pytest.fixture(scope="module")
def servers(open_folder: Path) -> Iterator[Instance]:
    """Servers that a test may kill."""
    environ = {name: value for name, value in os.environ.items() if "PREPAID_" not in name}
    folders = Folders(open_folder / "outages", Folders.choose(os.environ).cache)
    with Instance(lambda _: None, environ=environ, folders=folders) as instance:
        migrate(instance.database_url)
        yield instance


@contextlib.asynccontextmanager
async def working(servers: Instance, group: str) -> AsyncIterator[Gateway]:
    settings = GatewaySettings(
        database_url=servers.database_url,
        broker_url=servers.broker_url,
        name=group,
        now_ms=lambda: time.time_ns() // 1_000_000,
        group=group,
        batch_max=7,
    )
    worker, stopping, ready = Gateway(settings), asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(worker.run(stopping, ready.set))
    await asyncio.wait_for(ready.wait(), 10)
    try:
        yield worker
    finally:
        stopping.set()
        await asyncio.wait_for(running, 20)


def opened(servers: Instance, group: str, opened_ms: int) -> list[str]:
    numbers = [f"{group}{number[2:]}" for number in METERS]
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        centre = registry.add_centre(conn, "O", "Outages")
        tariff = registry.add_tariff(conn, group, group, TARIFF)
        for number in numbers:
            registry.add_meter(conn, centre, registry.NewMeter(number))
            registry.open_account(
                conn,
                number=number,
                customer=registry.add_customer(conn, number, opened_ms),
                centre=centre,
                tariff=tariff,
                terms={"activated_at": format_instant(opened_ms)},
                installation=Installation(number, 10**9, opened_ms, 0),
                now_ms=opened_ms,
            )
    return numbers


async def publish(servers: Instance, numbers: list[str], start_ms: int, pause_s: float) -> None:
    parts = urlsplit(servers.broker_url)
    async with aiomqtt.Client(parts.hostname or "", parts.port or 1883) as client:
        for place in range(1, READINGS + 1):
            for number in numbers:
                at = format_instant(start_ms + place * STEP_MS)
                reading = {"v": 1, "boot": 1, "seq": place, "ts": at, "reg": {"1.8.0": place * 10}}
                topic = build(Topic("m", number, "up", "reading"))
                await client.publish(topic, json.dumps(reading), qos=1)
            await asyncio.sleep(pause_s)


def stored(servers: Instance, numbers: list[str]) -> tuple[int, int]:
    """Readings, and the sum of the balances in micro-units."""
    with psycopg.connect(servers.database_url) as conn:
        row = conn.execute(
            "SELECT (SELECT count(*) FROM reading r JOIN meter m ON m.id = r.meter_id"
            "        WHERE m.number = ANY(%(numbers)s) AND verdict = 'accepted'),"
            " (SELECT sum(balance_micro) FROM account_state s JOIN account a ON a.id = account_id"
            "  WHERE a.number = ANY(%(numbers)s))",
            {"numbers": numbers},
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


async def until_stored(servers: Instance, numbers: list[str], wanted: int) -> tuple[int, int]:
    found = (0, 0)
    for _ in range(80):
        with contextlib.suppress(psycopg.OperationalError):
            found = await asyncio.to_thread(stored, servers, numbers)
        if found[0] >= wanted:
            break
        await asyncio.sleep(0.1)
    return found


WANTED = READINGS * len(METERS)
SPENT_MICRO = WANTED * 10 * 5000


async def test_a_killed_database_loses_and_doubles_nothing(servers: Instance) -> None:
    start_ms = time.time_ns() // 1_000_000 - (READINGS + 5) * STEP_MS
    numbers = opened(servers, "71", start_ms)
    assert servers.postgres is not None
    async with working(servers, "71") as worker:
        sending = asyncio.create_task(publish(servers, numbers, start_ms, 0.01))
        for _ in range(2):
            await asyncio.sleep(0.2)
            await asyncio.to_thread(servers.postgres.kill)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(servers.postgres.start)
        await sending
        readings, balance_micro = await until_stored(servers, numbers, WANTED)
    assert worker.metrics.registry.get_sample_value("prepaid_database_away_total")
    assert (readings, balance_micro) == (WANTED, -SPENT_MICRO)


async def test_after_a_killed_broker_what_is_said_again_counts_once(servers: Instance) -> None:
    start_ms = time.time_ns() // 1_000_000 - (READINGS + 5) * STEP_MS
    numbers = opened(servers, "72", start_ms)
    assert servers.mosquitto is not None
    async with working(servers, "72"):
        with contextlib.suppress(aiomqtt.MqttError):
            sending = asyncio.create_task(publish(servers, numbers, start_ms, 0.01))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(servers.mosquitto.kill)
            await asyncio.to_thread(servers.mosquitto.start)
            await sending
        # A meter keeps what no receipt covers and says it again until one does: a broker that was
        # killed may have forgotten even who was subscribed.
        for _ in range(3):
            await publish(servers, numbers, start_ms, 0)
            readings, balance_micro = await until_stored(servers, numbers, WANTED)
            if readings == WANTED:
                break
    assert (readings, balance_micro) == (WANTED, -SPENT_MICRO)
