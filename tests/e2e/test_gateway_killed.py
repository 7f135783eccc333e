"""kill -9 of the gateway in mid-flow, again and again: everything once, nothing twice, counted."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiomqtt
import psycopg
import pytest

from credit_engine.terms import Installation
from schemas.quantities import format_instant
from schemas.topics import Topic, build
from store import registry

ROOT = Path(__file__).parents[2]
METERS = [f"8800000{place:04d}" for place in range(20)]
READINGS = 150
PRICE = 5  # µ per Wh, "0.005" per kWh
STEP_MS = 60_000
KILLS = 6
IN_A_TURN = READINGS // (KILLS + 1) + 1
TARIFF = {
    "timezone": "Africa/Nouakchott",
    "currency": "MRU",
    "tariff": {
        "versions": [
            {
                "valid_from": "2026-01-01",
                "period": "month",
                "bands": [{"name": "all", "method": "graduated", "blocks": [{"price": "0.005"}]}],
            }
        ]
    },
}


def opened(url: str, opened_ms: int) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        centre = registry.add_centre(conn, "K", "Killed")
        tariff = registry.add_tariff(conn, "flat", "Flat", TARIFF)
        for number in METERS:
            registry.add_meter(conn, centre, registry.NewMeter(number))
            registry.open_account(
                conn,
                number=f"K-{number}",
                customer=registry.add_customer(conn, number, opened_ms),
                centre=centre,
                tariff=tariff,
                terms={"activated_at": format_instant(opened_ms)},
                installation=Installation(number, 10**9, opened_ms, 0),
                now_ms=opened_ms,
            )


@contextlib.contextmanager
def gateway(database_url: str, broker_url: str, name: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PREPAID_DATABASE__URL": database_url,
        "PREPAID_BROKER__URL": broker_url,
    }
    # Small batches, so that a kill falls between and within commits.
    command = [sys.executable, "-m", "prepaid", "gateway", "--name", name, "--batch", "16"]
    # A group of its own: the broker is shared by the whole test session.
    command += ["--group", name]
    process = subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def counted(url: str) -> tuple[int, int, int]:
    """Stored readings, their energy rows in the ledger, and the sum of all balances."""
    with psycopg.connect(url) as conn:
        row = conn.execute(
            "SELECT (SELECT count(*) FROM reading WHERE verdict = 'accepted'),"
            " (SELECT coalesce(sum(energy_wh), 0) FROM ledger_transaction),"
            " (SELECT sum(balance_micro) FROM account_state)"
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1]), int(row[2])


async def published(broker_url: str, start_ms: int, turns: asyncio.Semaphore) -> None:
    """Every reading, a tenth of them twice: a share of them in each turn, over a second or so."""
    parts = urlsplit(broker_url)
    order = random.Random(7)
    async with aiomqtt.Client(parts.hostname or "", parts.port or 1883) as client:
        for place in range(1, READINGS + 1):
            if (place - 1) % IN_A_TURN == 0:
                await turns.acquire()
            for number in METERS:
                message = {
                    "v": 1,
                    "boot": 1,
                    "seq": place,
                    "ts": format_instant(start_ms + place * STEP_MS),
                    "reg": {"1.8.0": place * 10},
                }
                topic = build(Topic("m", number, "up", "reading"))
                for _ in range(2 if order.random() < 0.1 else 1):
                    await client.publish(topic, json.dumps(message), qos=1)
            await asyncio.sleep(0.02)


@pytest.mark.timeout(180)
async def test_no_reading_is_lost_or_charged_twice_by_kill_9(
    database_url: str, broker_url: str
) -> None:
    start_ms = time.time_ns() // 1_000_000 // STEP_MS * STEP_MS - (READINGS + 5) * STEP_MS
    opened(database_url, start_ms)
    name = f"killed-{os.getpid()}"
    order = random.Random(1)
    turns = asyncio.Semaphore(0)
    sending = asyncio.create_task(published(broker_url, start_ms, turns))
    for _ in range(KILLS):
        with gateway(database_url, broker_url, name) as process:
            assert process.stdout is not None
            await asyncio.to_thread(process.stdout.readline)
            turns.release()
            await asyncio.sleep(order.uniform(0.2, 0.9))
            process.send_signal(signal.SIGKILL)
    turns.release()
    wanted = len(METERS) * READINGS
    before = counted(database_url)
    with gateway(database_url, broker_url, name):
        await sending
        deadline_s = time.monotonic() + 60
        while counted(database_url)[0] < wanted and time.monotonic() < deadline_s:
            await asyncio.sleep(0.2)
        # What the broker sends again now must change nothing.
        await asyncio.sleep(1)
    readings, energy_wh, balance_micro = counted(database_url)
    assert 0 < before[0] < wanted, "the kills fell outside the flow"
    assert readings == wanted
    assert energy_wh == wanted * 10
    assert balance_micro == -wanted * 10 * PRICE
