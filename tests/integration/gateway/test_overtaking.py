"""What comes now overtakes what waited at a real broker, and nothing of either is lost."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiomqtt
import pytest

from meter_gateway import inbox, overtaking
from meter_gateway import receiver as receivers
from meter_gateway.inbox import Delivery, Inbox
from meter_gateway.ingest import Inlet
from meter_gateway.overtaking import OvertakingReceiver, session_names
from meter_gateway.receiver import BrokerAddress

WINDOW = 10


class Worker:
    """One name, one share, started and killed as often as a test likes."""

    def __init__(self, broker_url: str, session_is_kept: Callable[[str], Awaitable[bool]]) -> None:
        self.broker_url = broker_url
        self._is_kept = session_is_kept
        self.name = uuid.uuid4().hex
        self.topic = f"overtaking/{self.name}"

    @asynccontextmanager
    async def running(self, *, leaving: bool = False) -> AsyncIterator[OvertakingReceiver]:
        """Subscribed; at the end it is gone as if killed: nothing is said to the broker."""
        receiver = OvertakingReceiver(
            BrokerAddress.parse(self.broker_url),
            self.name,
            f"$share/{self.name}/{self.topic}",
            60,
            leaving=leaving,
        )
        running = asyncio.create_task(receiver.run())
        try:
            await asyncio.wait_for(receiver.connected.wait(), 10)
            yield receiver
        finally:
            for each in receiver._receivers.values():
                cut(each)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def say(self, *words: str) -> None:
        parts = urlsplit(self.broker_url)
        async with aiomqtt.Client(parts.hostname or "", parts.port or 1883) as client:
            for word in words:
                await client.publish(self.topic, word.encode(), qos=1)

    async def kept(self) -> list[str]:
        """The names of its sessions that the broker has."""
        return [name for name in session_names(self.name) if await self._is_kept(name)]


def cut(receiver: receivers.Receiver) -> None:
    connection = receiver._connection
    if connection is not None and connection._transport is not None:
        connection._transport.abort()


async def take(inlet: Inlet, count: int, *, acknowledge: bool = True) -> list[str]:
    taken: list[Delivery] = []
    async with asyncio.timeout(20):
        while len(taken) < count:
            new = await inlet.take(WINDOW // 2, 0)
            if acknowledge:
                inlet.acknowledge(new)
            taken += new
    return [each.payload.decode() for each in taken]


async def until(holds: Callable[[], Awaitable[bool]], timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not await holds():
            await asyncio.sleep(0.02)


@pytest.fixture
def worker(broker_url: str, session_is_kept: Callable[[str], Awaitable[bool]]) -> Worker:
    return Worker(broker_url, session_is_kept)


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "RECEIVE_MAX", WINDOW)
    monkeypatch.setattr(receivers, "Inbox", lambda: Inbox(WINDOW))


def numbered(kind: str, count: int) -> list[str]:
    return [f"{kind} {place}" for place in range(count)]


async def test_what_comes_now_overtakes_what_waited(worker: Worker, small_window: None) -> None:
    waited = numbered("waited", 5 * WINDOW)
    async with worker.running():
        pass
    await worker.say(*waited)
    async with worker.running() as receiver:
        await worker.say("now")
        assert await take(receiver, 1) == ["now"]
        assert await take(receiver.behind, len(waited)) == waited

        async def one_is_left() -> bool:
            return len(receiver._receivers) == 1

        await until(one_is_left)
        await worker.say("later")
        assert await take(receiver, 1) == ["later"]
    assert len(await worker.kept()) == 1


async def test_who_is_killed_while_he_works_off_what_waited_begins_again_with_a_free_name(
    worker: Worker, small_window: None
) -> None:
    async with worker.running():
        pass
    await worker.say(*numbered("first", WINDOW))
    async with worker.running() as receiver:
        await worker.say(*numbered("second", WINDOW))
        # Taken and not acknowledged, as by who is killed before the commit.
        await take(receiver, WINDOW, acknowledge=False)
        await take(receiver.behind, WINDOW, acknowledge=False)
    assert len(await worker.kept()) == 2
    async with worker.running() as receiver:
        await worker.say("now")
        assert await take(receiver, 1) == ["now"]
        found = await take(receiver.behind, 2 * WINDOW)
        assert sorted(found) == sorted(numbered("first", WINDOW) + numbered("second", WINDOW))


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost_however_often_he_is_killed(
    worker: Worker, small_window: None, seed: int
) -> None:
    chance = random.Random(seed)
    said: list[str] = []
    committed: set[str] = set()

    async def work(inlet: Inlet) -> None:
        while True:
            new = await inlet.take(chance.randint(1, WINDOW), 0)
            await asyncio.sleep(chance.random() * 0.01)
            committed.update(each.payload.decode() for each in new)
            inlet.acknowledge(new)

    async def say() -> None:
        words = numbered(f"{len(said)}:", chance.randint(1, 10 * WINDOW))
        await worker.say(*words)
        said.extend(words)

    async with worker.running():
        pass
    for _ in range(6):
        # While he is away, and while he starts.
        saying = asyncio.create_task(say())
        async with worker.running() as receiver:
            working = [asyncio.create_task(work(each)) for each in (receiver, receiver.behind)]
            await saying
            await asyncio.sleep(chance.random() * 0.1)
            for task in working:
                task.cancel()
    async with worker.running(leaving=True) as receiver:
        working = [asyncio.create_task(work(each)) for each in (receiver, receiver.behind)]
        await asyncio.wait_for(receiver.leave(), 20)
        for task in working:
            task.cancel()
    assert committed == set(said)
    assert await worker.kept() == []


async def test_a_connection_that_comes_back_to_a_long_queue_begins_anew(
    worker: Worker, small_window: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = numbered("waited", 3 * WINDOW)
    async with worker.running() as receiver:
        first = receiver._now
        assert first is not None
        monkeypatch.setattr(receivers, "RETRY_FIRST_S", 1.0)
        cut(first)
        await worker.say(*waited)

        async def another() -> bool:
            return receiver._now is not first

        await until(another)
        await worker.say("now")
        assert await take(receiver, 1) == ["now"]
        assert await take(receiver.behind, len(waited)) == waited


async def test_a_session_that_a_crash_of_the_broker_brought_back_is_found(
    worker: Worker, small_window: None
) -> None:
    async with worker.running() as receiver:
        ghost = receivers.Receiver(
            BrokerAddress.parse(worker.broker_url),
            session_names(worker.name)[2],
            f"$share/{worker.name}/{worker.topic}",
            60,
        )
        running = asyncio.create_task(ghost.run())
        await asyncio.wait_for(ghost.connected.wait(), 10)
        await ghost.close()
        running.cancel()
        words = numbered("said", WINDOW)
        await worker.say(*words)
        # Half of them are the other's.
        found = await take(receiver, WINDOW // 2)
        assert receiver._now is not None
        cut(receiver._now)
        found += await take(receiver.behind, WINDOW // 2)
        assert sorted(found) == words

        async def one_is_left() -> bool:
            return len(receiver._receivers) == 1

        await until(one_is_left)
        assert len(await worker.kept()) == 1


async def test_who_leaves_while_he_begins_anew_leaves_nothing(
    worker: Worker, small_window: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def never(self: OvertakingReceiver, *_: object) -> None:
        # It has its share, and nobody was told yet.
        await self._connect(session_names(worker.name)[1], quiet=False)
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(overtaking.OvertakingReceiver, "_begin_anew", never)
    async with worker.running() as receiver:
        assert receiver._now is not None
        receiver._now.backlog.set()
        await asyncio.wait_for(begun.wait(), 10)
        words = numbered("said", 8)
        await worker.say(*words)
        leaving = asyncio.create_task(receiver.leave())
        assert sorted(await take(receiver.behind, len(words))) == words
        await asyncio.wait_for(leaving, 10)
    assert await worker.kept() == []


class Nobody:
    def acknowledge(self, ids: object) -> None: ...


def fill(box: Inbox, *, was_empty: bool) -> list[Delivery]:
    """A window's worth, from a broker that was seen with nothing to hand out, or was not yet."""
    link = Nobody()
    box.open(link)
    if was_empty:
        box.nothing_held()
    new = [Delivery("t", b"", None, place, 0, link) for place in range(WINDOW)]
    for each in new:
        box.add(each)
    return new


def test_a_full_window_at_once_is_a_backlog_and_one_under_load_is_none() -> None:
    box = Inbox(WINDOW)
    fill(box, was_empty=False)
    assert box.backlog.is_set()
    box.forget()
    assert not box.backlog.is_set()
    fill(box, was_empty=True)
    assert not box.prompt
    assert not box.backlog.is_set()


@pytest.mark.parametrize(("held_up_s", "backlog"), [(0.0, True), (1e6, False)])
def test_a_window_that_was_full_for_long_is_a_backlog(
    monkeypatch: pytest.MonkeyPatch, held_up_s: float, *, backlog: bool
) -> None:
    monkeypatch.setattr(inbox, "HELD_UP_S", held_up_s)
    box = Inbox(WINDOW)
    box.acknowledged(fill(box, was_empty=True))
    assert box.backlog.is_set() == backlog
