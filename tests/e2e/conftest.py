"""A town of simple meters on one flat price, the load that they make, and gateway processes.

Whoever publishes keeps at it until the broker has acknowledged, as a meter does; so what was
acknowledged must be stored, whatever is killed meanwhile.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiomqtt
import psycopg
import pytest

from credit_engine.terms import Installation
from meter_gateway.receiver import BrokerAddress
from schemas.quantities import format_instant
from schemas.topics import Topic, build
from store import registry

ROOT = Path(__file__).parents[2]
STEP_MS = 60_000
STEP_WH = 10
PRICE_MICRO = 5  # per Wh: "0.005" per kWh
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
# A publication that has no answer by then goes out again, on another connection.
PATIENCE_S = 8.0
STORED_WITHIN_S = 90.0


@dataclass
class Town:
    """`meters` meters that each say `readings` registers, one for each minute until now."""

    meters: int = 20
    readings: int = 60
    start_ms: int = field(init=False)
    numbers: list[str] = field(init=False)
    # (meter, place) of every reading that the broker acknowledged.
    acknowledged: set[tuple[str, int]] = field(init=False, default_factory=set)
    sent_again: int = 0

    def __post_init__(self) -> None:
        now_ms = time.time_ns() // 1_000_000
        self.start_ms = now_ms // STEP_MS * STEP_MS - (self.readings + 5) * STEP_MS
        self.numbers = [f"8800000{place:04d}" for place in range(self.meters)]

    @property
    def all(self) -> int:
        return self.meters * self.readings

    def found(self, database_url: str) -> None:
        """Register all meters and open their accounts."""
        with psycopg.connect(database_url, autocommit=True) as conn:
            centre = registry.add_centre(conn, "T", "Town")
            tariff = registry.add_tariff(conn, "flat", "Flat", TARIFF)
            for number in self.numbers:
                registry.add_meter(conn, centre, registry.NewMeter(number))
                registry.open_account(
                    conn,
                    number=f"T-{number}",
                    customer=registry.add_customer(conn, number, self.start_ms),
                    centre=centre,
                    tariff=tariff,
                    terms={"activated_at": format_instant(self.start_ms)},
                    installation=Installation(number, 10**9, self.start_ms, 0),
                    now_ms=self.start_ms,
                )

    def message(self, number: str, place: int) -> tuple[str, bytes]:
        said = {
            "v": 1,
            "boot": 1,
            "seq": place,
            "ts": format_instant(self.start_ms + place * STEP_MS),
            "reg": {"1.8.0": place * STEP_WH},
        }
        return build(Topic("m", number, "up", "reading")), json.dumps(said).encode()

    async def speak(
        self, urls: Sequence[str], turns: asyncio.Semaphore | None = None, pause_s: float = 0.0
    ) -> None:
        """Every meter says all of its readings; each place of them when `turns` lets it."""
        gates = [asyncio.Semaphore(0) for _ in self.numbers]
        async with asyncio.TaskGroup() as speaking:
            for number, gate in zip(self.numbers, gates, strict=True):
                speaking.create_task(self._say_all(number, urls, gate))
            for _ in range(self.readings):
                if turns is not None:
                    await turns.acquire()
                for gate in gates:
                    gate.release()
                await asyncio.sleep(pause_s)

    async def _say_all(self, number: str, urls: Sequence[str], gate: asyncio.Semaphore) -> None:
        place, attempt = 1, int(number)
        await gate.acquire()
        while place <= self.readings:
            address = BrokerAddress.parse(urls[attempt % len(urls)])
            attempt += 1
            with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
                async with aiomqtt.Client(
                    address.host,
                    address.port,
                    username=address.username,
                    password=address.password,
                    identifier=number,
                    protocol=aiomqtt.ProtocolVersion.V5,
                    timeout=PATIENCE_S,
                ) as client:
                    while place <= self.readings:
                        await client.publish(*self.message(number, place), qos=1)
                        self.acknowledged.add((number, place))
                        place += 1
                        if place <= self.readings:
                            await gate.acquire()
            if place <= self.readings:
                self.sent_again += 1
                await asyncio.sleep(0.2)

    async def until_stored(self, database_url: str, count: int) -> None:
        deadline_s = time.monotonic() + STORED_WITHIN_S
        while time.monotonic() < deadline_s:
            # It may be what was killed.
            with contextlib.suppress(psycopg.OperationalError):
                if stored(database_url) >= count:
                    return
            await asyncio.sleep(0.1)

    def check(self, database_url: str) -> None:
        """Everything that was acknowledged is stored, nothing twice, and every Wh is paid once."""
        assert len(self.acknowledged) == self.all
        assert counted(database_url) == (
            self.all,
            self.all * STEP_WH,
            -self.all * STEP_WH * PRICE_MICRO,
        )


def stored(url: str) -> int:
    with psycopg.connect(url) as conn:
        row = conn.execute("SELECT count(*) FROM reading WHERE verdict = 'accepted'").fetchone()
    assert row is not None
    return int(row[0])


def counted(url: str) -> tuple[int, int, int]:
    """Stored readings, the energy in the ledger (Wh), and the sum of all balances (µ)."""
    with psycopg.connect(url) as conn:
        row = conn.execute(
            "SELECT (SELECT count(*) FROM reading WHERE verdict = 'accepted'),"
            " (SELECT coalesce(sum(energy_wh), 0) FROM ledger_transaction),"
            " (SELECT sum(balance_micro) FROM account_state)"
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1]), int(row[2])


class GatewayProcess:
    """`prepaid gateway`, as users run it."""

    def __init__(self, name: str, group: str, variables: dict[str, str], *options: str) -> None:
        self.name = name
        command = [sys.executable, "-m", "prepaid", "gateway", "--name", name, "--group", group]
        self.process = subprocess.Popen(
            [*command, "--batch", "64", *options],
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    async def line(self) -> str:
        """The next line that it prints; empty when it ended."""
        assert self.process.stdout is not None
        return (await asyncio.to_thread(self.process.stdout.readline)).decode().strip()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def gateways() -> Iterator[contextlib.ExitStack]:
    """Where a test's gateway processes are ended: `gateways.enter_context(closing(...))`."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def make_town() -> type[Town]:
    return Town


@pytest.fixture
def make_gateway(gateways: contextlib.ExitStack):
    def make(*arguments, **options) -> GatewayProcess:
        return gateways.enter_context(contextlib.closing(GatewayProcess(*arguments, **options)))

    return make
