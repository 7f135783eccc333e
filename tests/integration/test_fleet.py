"""A fleet against a real broker, with a small stand-in for the server's side of the contract."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiomqtt
import pytest

from schemas import topics
from schemas.commands import Command, payload, receipt
from schemas.decoding import decode_up
from schemas.telemetry import Ack, Hello
from schemas.topics import Kind, Topic
from simulators.auditor import Journal
from simulators.faults import Faults
from simulators.fleet import Broker, Member, Site, run_fleet
from simulators.load import HouseholdLoad
from simulators.meter import Meter, Nameplate
from simulators.state_file import StateFile
from simulators.wire import Wire

# One real second is a quarter of an hour and a bit.
SPEED = 1_000
INTERVAL_MS = 900_000


class Listener:
    """Takes what meters say, stores readings by key, and gives receipts."""

    def __init__(self, broker: Broker, now_ms: Callable[[], int]) -> None:
        self.stored: dict[tuple[str, str, int], int] = {}
        self.refused: list[object] = []
        self.acks: list[Ack] = []
        self.hellos: list[tuple[str, Hello]] = []
        self.online: dict[str, bool] = {}
        self.commits = True
        self._broker = broker
        self._now_ms = now_ms
        self._client: aiomqtt.Client | None = None

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["Listener"]:
        async with aiomqtt.Client(
            self._broker.host, self._broker.port, protocol=aiomqtt.ProtocolVersion.V5
        ) as client:
            await client.subscribe(topics.UP_FILTER, qos=1)
            self._client = client
            task = asyncio.create_task(self._listen(client))
            try:
                yield self
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            topic = topics.parse(message.topic.value)
            data = message.payload
            assert isinstance(data, bytes)
            decoded = decode_up(topic, data, None, self._now_ms() + 60_000)
            self.refused += decoded.refused
            if decoded.online is not None:
                self.online[topic.device] = decoded.online
            if decoded.hello is not None:
                self.hellos.append((topic.device, decoded.hello))
            if decoded.ack is not None:
                self.acks.append(decoded.ack)
            if not self.commits:
                continue
            for row in decoded.readings:
                known = self.stored.setdefault((row.meter, row.register, row.ts_ms), row.value_wh)
                assert known == row.value_wh
            asked = [row for row in decoded.readings if row.rcpt or row.hist]
            for boot in {row.boot for row in asked}:
                seq = max(row.seq for row in asked if row.boot == boot)
                await self.say(topic.device, "receipt", receipt(boot, seq))

    async def say(self, meter: str, kind: Kind, data: bytes) -> None:
        assert self._client is not None
        await self._client.publish(topics.build(Topic("m", meter, "dn", kind)), data, qos=1)


@pytest.fixture
def broker(broker_url: str) -> Broker:
    parts = urlsplit(broker_url)
    return Broker(parts.hostname or "127.0.0.1", parts.port or 1883)


@pytest.fixture
def now_ms() -> Callable[[], int]:
    origin_ms = time.time_ns() // 1_000_000
    return lambda: origin_ms + (time.time_ns() // 1_000_000 - origin_ms) * SPEED


def numbers(first: int, count: int) -> list[str]:
    # Each test has meters of its own on the shared broker.
    return [f"{37_000_000_000 + first + i:011d}" for i in range(count)]


def members(names: list[str], state_file: StateFile, since_ms: int) -> list[Member]:
    return [
        Member(
            Meter(
                Nameplate(name, 1000, INTERVAL_MS, seed * 60_000 % INTERVAL_MS),
                HouseholdLoad(8_000_000, seed, since_ms),
                state_file.load(name),
            )
        )
        for seed, name in enumerate(names)
    ]


@contextlib.asynccontextmanager
async def living(site: Site, fleet: list[Member]) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    task = asyncio.create_task(run_fleet(site, fleet, stop))
    try:
        yield stop
    finally:
        stop.set()
        await task


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_every_reading_of_a_disturbed_fleet_arrives_once(
    broker: Broker, now_ms: Callable[[], int], tmp_path: Path
) -> None:
    names, journal, since_ms = numbers(100, 16), Journal(), now_ms()
    server = Listener(broker, now_ms)
    faults = Faults(duplicate=300, reorder=300, delay=100, delay_ms=1_800_000, drop=100, reboot=100)
    with StateFile(tmp_path) as state_file:
        fleet = members(names, state_file, since_ms)
        site = Site(broker, state_file, now_ms, SPEED, faults, journal.note)
        async with server.listening():
            async with living(site, fleet):
                await until(lambda: len(server.stored) > 120)
            await until(lambda: journal.expected().items() <= server.stored.items())
            assert server.refused == []
            # Every number at least as often as its boots; at least one rebooted.
            assert max(member.meter.state.boot for member in fleet) > 1
            assert {name for name, _ in server.hellos} == set(names)
            await until(lambda: not any(server.online[name] for name in names))
        for member in fleet:
            curve = journal.curve(member.meter.plate.meter)
            assert [wh for _, wh in curve] == sorted(wh for _, wh in curve)


async def test_what_was_not_committed_is_said_again_after_a_restart(
    broker: Broker, now_ms: Callable[[], int], tmp_path: Path
) -> None:
    (name,), journal, since_ms = numbers(200, 1), Journal(), now_ms()
    server = Listener(broker, now_ms)
    server.commits = False
    async with server.listening():
        with StateFile(tmp_path) as state_file:
            site = Site(broker, state_file, now_ms, SPEED, sent=journal.note)
            async with living(site, members([name], state_file, since_ms)):
                await until(lambda: len(journal.curve(name)) > 5)
        lost = set(journal.expected())
        assert not server.stored
        server.commits = True
        with StateFile(tmp_path) as state_file:
            again = members([name], state_file, since_ms)
            site = Site(broker, state_file, now_ms, SPEED, sent=journal.note)
            async with living(site, again):
                await until(lambda: lost <= set(server.stored))
                await until(lambda: len(again[0].meter.state.pending) < 5)
            assert again[0].meter.state.boot == 2
    assert journal.expected().items() >= server.stored.items()


async def test_a_command_moves_the_relay_and_waits_for_an_absent_meter(
    broker: Broker, now_ms: Callable[[], int], tmp_path: Path
) -> None:
    (name,), since_ms = numbers(300, 1), now_ms()
    server = Listener(broker, now_ms)
    with StateFile(tmp_path) as state_file:
        fleet = members([name], state_file, since_ms)
        site = Site(broker, state_file, now_ms, SPEED)
        async with server.listening():
            async with living(site, fleet):
                await until(lambda: server.online.get(name, False))
            # The meter is away; its session keeps the command.
            at_ms = now_ms()
            order = Command("c-1", "relay", 1, at_ms, at_ms + 10**9, {"to": "open"})
            await server.say(name, "cmd", payload(order))
            async with living(site, fleet):
                await until(lambda: [a.state for a in server.acks] == ["accepted", "done"])
                assert server.acks[-1].relay == "open"
                opened = server.acks[-1].reg
                before = len(server.stored)
                await until(lambda: len(server.stored) > before + 3)
            last = max(server.stored)
            assert server.stored[last] == opened["1.8.0"]


async def test_a_meter_without_a_broker_buffers_until_there_is_one(
    broker: Broker, now_ms: Callable[[], int], tmp_path: Path
) -> None:
    (name,), since_ms, journal = numbers(400, 1), now_ms(), Journal()
    server = Listener(broker, now_ms)
    wire = Wire(broker.host, broker.port)
    await wire.open()
    with StateFile(tmp_path) as state_file:
        fleet = members([name], state_file, since_ms)
        site = Site(Broker("127.0.0.1", wire.port), state_file, now_ms, SPEED, sent=journal.note)
        async with server.listening(), living(site, fleet):
            await until(lambda: len(server.stored) > 2)
            wire.cut()
            # Its last will is published by the broker, not by the meter.
            await until(lambda: server.online[name] is False)
            heard = len(server.stored)
            await until(lambda: len(fleet[0].meter.state.pending) > 5)
            assert len(server.stored) == heard
            waiting = {row.ts_ms for row in fleet[0].meter.state.pending}
            await wire.open()
            await until(lambda: waiting <= {ts for _, _, ts in server.stored})
        await wire.close()
