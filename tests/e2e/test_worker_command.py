"""`prepaid worker NAME` as a process does its duty without a gateway, and ends when told."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiomqtt
import psycopg

from schemas.topics import Topic, build
from store import registry, supply

ROOT = Path(__file__).parents[2]
NUMBER = "88000009001"
WITHIN_S = 30
HOUR_MS = 3_600_000


@contextlib.contextmanager
def worker(duty: str, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment |= {f"PREPAID_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "prepaid", "worker", duty, *arguments]
    process = subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_S
    while not done():
        assert time.monotonic() < end, "it was not done"
        time.sleep(0.05)


def ordered(conn: psycopg.Connection, life_ms: int) -> str:
    """A meter with a command that waits for somebody."""
    now_ms = time.time_ns() // 1_000_000
    centre = registry.add_centre(conn, "W", "Workers")
    meter = registry.add_meter(conn, centre, registry.NewMeter(NUMBER))
    return supply.queue(conn, meter, "read", {}, now_ms, now_ms + life_ms)


def state(conn: psycopg.Connection, cmd: str) -> str:
    row = conn.execute("SELECT state FROM command WHERE id = %s", (cmd,)).fetchone()
    assert row is not None
    return str(row[0])


async def test_dispatch_sends_what_waits(database_url: str, broker_url: str) -> None:
    parts = urlsplit(broker_url)
    with psycopg.connect(database_url, autocommit=True) as conn:
        cmd = ordered(conn, HOUR_MS)
        async with aiomqtt.Client(parts.hostname or "", parts.port or 1883) as meter:
            await meter.subscribe(build(Topic("m", NUMBER, "dn", "cmd")), qos=1)
            with worker("dispatch", DATABASE__URL=database_url, BROKER__URL=broker_url):
                async with asyncio.timeout(WITHIN_S):
                    message = await anext(aiter(meter.messages))
                assert isinstance(message.payload, bytes)
                assert json.loads(message.payload)["cmd"] == cmd
                await asyncio.to_thread(until, lambda: state(conn, cmd) == "sent")


def test_clockwork_ends_what_is_over(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        cmd = ordered(conn, 1)
        with worker("clockwork", DATABASE__URL=database_url):
            until(lambda: state(conn, cmd) == "expired")
