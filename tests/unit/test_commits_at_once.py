"""Batches that commit at once: never two about one device, acknowledged in the order received."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from meter_gateway.inbox import Delivery
from meter_gateway.ingest import (
    BEHIND_MIN,
    BEHIND_S,
    COMMITS,
    SESSIONS,
    IngestLoop,
    _Side,
)
from meter_gateway.metrics import GatewayMetrics
from store.incoming import Incoming, Recorded

# After the instants that are said below.
NOW_MS = 1_772_409_600_000


class Source:
    """Hands out batches of messages, then stops the loop, or waits for more."""

    def __init__(
        self, batches: Sequence[Sequence[str]], body: bytes = b"{}", *, stops: bool = True
    ) -> None:
        self.stopping = asyncio.Event()
        self.acknowledged: list[list[str]] = []
        self._stops = stops
        self._batches: asyncio.Queue[list[Delivery]] = asyncio.Queue()
        for batch in batches:
            self.say(batch, body)

    def say(self, batch: Sequence[str], body: bytes = b"{}") -> None:
        nobody: Any = None
        self._batches.put_nowait([Delivery(topic, body, None, 1, 0, nobody) for topic in batch])

    async def take(self, most: int, linger_s: float) -> list[Delivery]:
        if self._stops and self._batches.empty():
            self.stopping.set()
        return await self._batches.get()

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        self.acknowledged.append([each.topic for each in deliveries])


class Silent:
    def receipts(self, receipts: object, answers: object) -> None: ...


class Commits:
    """Stands for the database: a commit ends when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[list[str]] = []
        self.may_end: dict[str, asyncio.Event] = {}
        commits = self

        async def record(_: object, __: object, messages: Sequence[Incoming]) -> Recorded:
            topics = [each.topic_text for each in messages]
            commits.begun.append(topics)
            await commits.may_end.setdefault(topics[0], asyncio.Event()).wait()
            return Recorded()

        monkeypatch.setattr(IngestLoop, "_record", record)

    def end(self, topic: str) -> None:
        self.may_end.setdefault(topic, asyncio.Event()).set()


def of_meter(number: int, kind: str = "reading") -> str:
    return f"pm/v1/m/{number:011}/up/{kind}"


async def settled() -> None:
    """Everything that can go on without the test went on."""
    for _ in range(50):
        await asyncio.sleep(0)


def start(source: Source, behind: Source | None = None) -> "asyncio.Task[None]":
    nothing: Any = None
    downlink: Any = Silent()
    metrics = GatewayMetrics(1)
    sessions = [nothing] * SESSIONS
    loop = IngestLoop(source, sessions, downlink, lambda: NOW_MS, metrics, behind=behind)
    return asyncio.create_task(loop.run(source.stopping))


async def test_batches_of_different_devices_commit_at_once_and_are_acknowledged_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commits = Commits(monkeypatch)
    batches = [[of_meter(1), of_meter(2)], *([of_meter(place)] for place in range(3, COMMITS + 3))]
    source = Source(batches)
    running = start(source)
    await settled()
    assert commits.begun == batches[:COMMITS]
    commits.end(of_meter(3))
    await settled()
    assert source.acknowledged == []
    commits.end(of_meter(1))
    await settled()
    assert source.acknowledged == batches[:2]
    assert commits.begun == batches
    for batch in batches[2:]:
        commits.end(batch[0])
    await running
    assert source.acknowledged == batches


GATEWAY = "pm/v1/g/dcu-1/up/batch"
OF_METER_7 = b"""{"v": 1, "id": "b-7", "t0": "2026-03-01T09:00:00Z", "dt": 900, "cols": ["1.8.0"],
    "rows": [["00000000007", 1, 100, [[100]]]]}"""


@pytest.mark.parametrize(
    ("batches", "body"),
    [
        ([[of_meter(1), of_meter(2)], [of_meter(2, "event")]], b"{}"),
        ([[GATEWAY], [of_meter(7)], [of_meter(8)]], OF_METER_7),
    ],
    ids=["the meter itself", "a meter in a gateway's batch"],
)
async def test_batches_about_one_device_commit_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, batches: list[list[str]], body: bytes
) -> None:
    commits = Commits(monkeypatch)
    source = Source(batches, body)
    running = start(source)
    await settled()
    assert commits.begun == batches[:1]
    commits.end(batches[0][0])
    await settled()
    assert commits.begun == batches
    for batch in batches[1:]:
        commits.end(batch[0])
    await running
    assert source.acknowledged == batches


async def test_a_backlog_leaves_a_session_to_what_comes_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commits = Commits(monkeypatch)
    waited = [[of_meter(place)] for place in range(SESSIONS + 1)]
    now = Source([], stops=False)
    running = start(now, Source(waited, stops=False))
    await settled()
    assert commits.begun == waited[:COMMITS]
    now.say([of_meter(100)])
    await settled()
    assert commits.begun[COMMITS:] == [[of_meter(100)]]
    for batch in [*waited, [of_meter(100)]]:
        commits.end(batch[0])
    now.stopping.set()
    await running


async def test_what_comes_now_waits_for_its_devices_and_not_for_more_of_the_backlog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commits = Commits(monkeypatch)
    now = Source([], stops=False)
    behind = Source([[of_meter(1)]], stops=False)
    running = start(now, behind)
    await settled()
    live = [of_meter(2), of_meter(1)]
    now.say(live)
    await settled()
    behind.say([of_meter(2, "event")])
    await settled()
    assert commits.begun == [[of_meter(1)]]
    commits.end(of_meter(1))
    await settled()
    assert commits.begun[1:] == [live]
    commits.end(of_meter(2))
    await settled()
    assert commits.begun[2:] == [[of_meter(2, "event")]]
    commits.end(of_meter(2, "event"))
    now.stopping.set()
    await running


@pytest.mark.parametrize(
    ("behind", "seconds", "most"),
    [
        (True, 10 * BEHIND_S, 550),
        (True, BEHIND_S / 2, 1_500),
        (True, 1_000 * BEHIND_S, 500),
        (True, BEHIND_S / 1_000, 4_000),
        (False, 10 * BEHIND_S, 1_000),
    ],
)
def test_a_batch_of_the_backlog_is_half_a_second_of_work(
    behind: bool, seconds: float, most: int
) -> None:
    nobody: Any = None
    side = _Side(nobody, 1_000, behind)
    side.took(1_000, seconds, 4_000)
    assert side.most == most
    for _ in range(20):
        side.took(1_000, 1_000 * BEHIND_S, 4_000)
    assert side.most == (BEHIND_MIN if behind else 1_000)
