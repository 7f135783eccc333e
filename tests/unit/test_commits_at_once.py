"""Batches that commit at once: never two about one device, acknowledged in the order received."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from meter_gateway.inbox import Delivery
from meter_gateway.ingest import COMMITS, IngestLoop
from meter_gateway.metrics import GatewayMetrics
from store.incoming import Incoming, Recorded

# After the instants that are said below.
NOW_MS = 1_772_409_600_000


class Source:
    """Hands out batches of messages, then stops the loop."""

    def __init__(self, batches: Sequence[Sequence[str]], body: bytes = b"{}") -> None:
        self.stopping = asyncio.Event()
        self.acknowledged: list[list[str]] = []
        self._batches = [
            [Delivery(topic, body, None, 1, 0, None) for topic in batch]  # type: ignore[arg-type] # nobody acknowledges
            for batch in batches
        ]

    async def take(self, most: int, linger_s: float) -> list[Delivery]:
        if self._batches:
            return self._batches.pop(0)
        self.stopping.set()
        await asyncio.Event().wait()
        return []

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


def start(source: Source) -> "asyncio.Task[None]":
    nothing: Any = None
    downlink: Any = Silent()
    metrics = GatewayMetrics(1)
    loop = IngestLoop(source, [nothing] * COMMITS, downlink, lambda: NOW_MS, metrics)  # type: ignore[arg-type] # as far as asked
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
