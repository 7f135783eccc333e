"""Which messages a receiver knows to have been said just now, on a real broker."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiomqtt
import pytest

from meter_gateway import inbox
from meter_gateway import receiver as receivers
from meter_gateway.inbox import Delivery, Inbox
from meter_gateway.receiver import BrokerAddress, Receiver

WINDOW = 10


@asynccontextmanager
async def receiving(broker_url: str, name: str, share: str = "") -> AsyncIterator[Receiver]:
    """A receiver with a small window, connected; its session stays."""
    address = BrokerAddress.parse(broker_url)
    receiver = Receiver(address, f"prompt-{name}", f"{share}prompt/{name}/#", 60)
    receiver._inbox = Inbox(WINDOW)
    running = asyncio.create_task(receiver.run())
    await asyncio.wait_for(receiver.connected.wait(), 10)
    try:
        yield receiver
    finally:
        await receiver.close()
        running.cancel()


@asynccontextmanager
async def speaking(broker_url: str) -> AsyncIterator[aiomqtt.Client]:
    parts = urlsplit(broker_url)
    async with aiomqtt.Client(parts.hostname or "", parts.port or 1883) as client:
        yield client


async def take_all(receiver: Receiver, count: int) -> list[Delivery]:
    """The next ones, each acknowledged before another is asked for."""
    taken: list[Delivery] = []
    async with asyncio.timeout(30):
        while len(taken) < count:
            new = await receiver.take(WINDOW // 3, 0)
            receiver.acknowledge(new)
            taken += new
    return taken


@pytest.fixture(autouse=True)
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "RECEIVE_MAX", WINDOW)


async def test_a_line_that_is_never_quiet_becomes_prompt(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However this machine stutters.
    monkeypatch.setattr(inbox, "QUIET_S", 1e6)
    name = uuid.uuid4().hex
    async with receiving(broker_url, name) as receiver, speaking(broker_url) as client:

        async def speak() -> None:
            while True:
                await client.publish(f"prompt/{name}/1", b"now", qos=1)
                await asyncio.sleep(0.005)

        speaker = asyncio.create_task(speak())
        try:
            async with asyncio.timeout(30):
                while not (await take_all(receiver, 1))[-1].prompt:
                    pass
        finally:
            speaker.cancel()


@pytest.mark.parametrize("waiting", [1, WINDOW, 5 * WINDOW])
async def test_what_a_session_held_back_is_not_prompt_and_what_comes_after_is(
    broker_url: str, waiting: int
) -> None:
    name = uuid.uuid4().hex
    async with receiving(broker_url, name):
        pass
    async with speaking(broker_url) as client:
        for _ in range(waiting):
            await client.publish(f"prompt/{name}/1", b"held", qos=1)
        async with receiving(broker_url, name) as receiver:
            held = await take_all(receiver, waiting)
            assert {(each.payload, each.prompt) for each in held} == {(b"held", False)}
            async with asyncio.timeout(30):
                while not receiver._inbox.prompt:
                    await asyncio.sleep(0.01)
            await client.publish(f"prompt/{name}/1", b"now", qos=1)
            [said] = await take_all(receiver, 1)
            assert (said.payload, said.prompt) == (b"now", True)


@pytest.mark.parametrize("shared", [True, False], ids=["share", "no share"])
async def test_a_retained_word_that_is_said_now_is_prompt_on_a_share(
    broker_url: str, shared: bool
) -> None:
    """There is only what was published since; elsewhere it may have been kept for years."""
    name = uuid.uuid4().hex
    async with speaking(broker_url) as client:
        topic = f"prompt/{name}/1"
        await client.publish(topic, b"kept", qos=1, retain=True)
        async with receiving(broker_url, name, f"$share/{name}/" if shared else "") as receiver:
            async with asyncio.timeout(30):
                if not shared:
                    assert [each.payload for each in await take_all(receiver, 1)] == [b"kept"]
                while not receiver._inbox.prompt:
                    await asyncio.sleep(0.01)
            await client.publish(topic, b"now", qos=1, retain=True)
            [said] = await take_all(receiver, 1)
            assert (said.payload, said.prompt) == (b"now", shared)
        await client.publish(topic, b"", qos=1, retain=True)
