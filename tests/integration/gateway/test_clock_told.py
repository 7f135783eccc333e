"""A worker on a real broker judges a meter's clock, and only where the broker held nothing back."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiomqtt
import psycopg

from meter_gateway.gateway import Gateway, GatewaySettings
from schemas.quantities import format_instant
from schemas.topics import Topic, build
from store import registry

HOUR_MS = 3_600_000
METERS = ["37000008001", "37000008002"]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def working(database_url: str, broker_url: str) -> AsyncIterator[None]:
    settings = GatewaySettings(database_url, broker_url, "CLOCK-1", now_ms, group="clock-told")
    stopping, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(Gateway(settings).run(stopping, ready.set))
    await asyncio.wait_for(ready.wait(), 10)
    try:
        yield
    finally:
        stopping.set()
        await asyncio.wait_for(running, 20)


async def test_a_wrong_clock_is_told_the_time_and_a_message_that_waited_judges_nobody(
    database_url: str, broker_url: str
) -> None:
    parts = urlsplit(broker_url)
    prompt, waited = METERS
    with psycopg.connect(database_url, autocommit=True) as conn:
        centre = registry.add_centre(conn, "C", "Clocks")
        for number in METERS:
            registry.add_meter(conn, centre, registry.NewMeter(number))

        async def judged(number: str) -> str:
            """The judgement of a meter's clock, once a hello of it was taken."""
            async with asyncio.timeout(30):
                while True:
                    row = conn.execute(
                        "SELECT clock FROM meter_state s JOIN meter m ON m.id = meter_id"
                        " WHERE m.number = %s AND seen_at IS NOT NULL",
                        (number,),
                    ).fetchone()
                    if row is not None:
                        return str(row[0])
                    await asyncio.sleep(0.05)

        async with aiomqtt.Client(parts.hostname or "", parts.port or 1883) as client:

            async def hello(number: str, boot: int) -> None:
                said_ms = now_ms() - 3 * HOUR_MS
                form = {"v": 1, "boot": boot, "ts": format_instant(said_ms)}
                topic = build(Topic("m", number, "up", "hello"))
                await client.publish(topic, json.dumps(form), qos=1)

            await client.subscribe(build(Topic("m", prompt, "dn", "time")))
            async with working(database_url, broker_url):
                # Until the worker has seen the broker with nothing to hand out, it judges nobody.
                for boot in range(1, 100):
                    await hello(prompt, boot)
                    if await judged(prompt) == "lost":
                        break
                    await asyncio.sleep(0.2)
                assert await judged(prompt) == "lost"
                # A worker of another clock may share the broker, and answers as well.
                async with asyncio.timeout(10):
                    async for answer in client.messages:
                        assert isinstance(answer.payload, bytes)
                        times = json.loads(answer.payload)
                        if abs(times["t2"] - times["t1"] - 3 * HOUR_MS) < HOUR_MS:
                            break
            # Said while the worker is away: its session keeps it, nobody knows for how long.
            await hello(waited, 1)
            async with working(database_url, broker_url):
                assert await judged(waited) == "sync"
