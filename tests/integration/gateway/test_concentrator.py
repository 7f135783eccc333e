"""A simulated gateway, a real broker, a worker and a database: batches up, orders down."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from credit_engine.terms import Installation
from meter_gateway.gateway import Gateway as Worker
from meter_gateway.gateway import GatewaySettings
from schemas.quantities import format_instant
from simulators.fleet import Broker, Member, Site, run_fleet
from simulators.gateway import Gateway
from simulators.load import HouseholdLoad
from simulators.meter import Meter, Nameplate
from simulators.state_file import StateFile
from store import outages, registry
from store.audit import audit

# A reading every third of a second; an order has seconds to arrive before it expires.
SPEED = 100
INTERVAL_MS = 30_000
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


def opened(conn: psycopg.Connection, name: str, numbers: list[str], opened_ms: int) -> None:
    centre = registry.add_centre(conn, name, name)
    tariff = registry.add_tariff(conn, name, name, TARIFF)
    for number in numbers:
        registry.add_meter(conn, centre, registry.NewMeter(number, gateway=name))
        registry.open_account(
            conn,
            number=number,
            customer=registry.add_customer(conn, number, opened_ms),
            centre=centre,
            tariff=tariff,
            terms={"activated_at": format_instant(opened_ms)},
            installation=Installation(number, 10**9, opened_ms, 1000),
            now_ms=opened_ms,
        )


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


async def test_a_gateways_batches_are_billed_receipted_and_its_meters_obey(
    database_url: str, broker_url: str, tmp_path: Path
) -> None:
    origin_ms = time.time_ns() // 1_000_000

    def now_ms() -> int:
        return origin_ms + (time.time_ns() // 1_000_000 - origin_ms) * SPEED

    name = "CONC-1"
    numbers = [f"{37_000_007_000 + place:011d}" for place in range(4)]
    parts = urlsplit(broker_url)
    settings = GatewaySettings(database_url, broker_url, name, now_ms, SPEED, group=name)
    worker, stopping, ready = Worker(settings), asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(worker.run(stopping, ready.set))
    await asyncio.wait_for(ready.wait(), 10)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.wait_for, running, 20)
        stack.callback(stopping.set)
        state_file = stack.enter_context(StateFile(tmp_path))
        conn = stack.enter_context(psycopg.connect(database_url, autocommit=True))
        since_ms = now_ms()
        opened(conn, name, numbers, since_ms - 1)

        def count(sql: str) -> int:
            row = conn.execute(sql, (numbers,)).fetchone()  # type: ignore[call-overload]
            return int(row[0])

        def accepted() -> int:
            return count(
                "SELECT count(*) FROM reading r JOIN meter m ON m.id = meter_id"
                " WHERE m.number = ANY(%s) AND verdict = 'accepted'"
            )

        def relays_open() -> int:
            return count(
                "SELECT count(*) FROM meter_state JOIN meter m ON m.id = meter_id"
                " WHERE m.number = ANY(%s) AND reported_relay = 'open'"
            )

        meters = [
            Meter(
                Nameplate(number, 1000, INTERVAL_MS, 0),
                HouseholdLoad(80_000_000, place, since_ms),
                state_file.load(number),
            )
            for place, number in enumerate(numbers)
        ]
        gateway = Gateway(name, meters, state_file.load(name), interval_ms=INTERVAL_MS, cbor=True)
        site = Site(Broker(parts.hostname or "", parts.port or 1883), state_file, now_ms, SPEED)
        stop = asyncio.Event()
        living = asyncio.create_task(run_fleet(site, [Member(gateway)], stop))
        try:
            await until(lambda: accepted() >= 4 * 4)
            # Freed by receipts alone, in the archive for who asks again.
            await until(lambda: all(len(meter.state.archive) > 2 for meter in meters))
            await until(lambda: relays_open() == len(numbers))
            for meter in meters:
                assert meter.state.relay == "open"
        finally:
            stop.set()
            await living
        await until(
            lambda: conn.execute("SELECT online FROM gateway").fetchone() == (False,),
        )
        assert conn.execute("SELECT count(*) FROM gap").fetchone() == (0,)
        outages.check(conn, now_ms() + outages.CHECK_EVERY_MS)
        assert [(each.scope, each.name) for each in outages.outages(conn)] == [("gateway", name)]
        assert all(check.passed for check in audit(conn))
