"""A commit that fails of a defect ends the loop at once, though nothing more arrives."""

import asyncio
from typing import Any

import pytest

from meter_gateway.inbox import Delivery
from meter_gateway.ingest import IngestLoop
from meter_gateway.metrics import GatewayMetrics


class OnceOnly:
    """A receiver that has one message and then waits for ever."""

    def __init__(self) -> None:
        self.deliveries = [Delivery("pm/v1/m/1/up/reading", b"{}", None, 1, 0, None)]  # type: ignore[arg-type] # nobody acknowledges

    async def take(self, limit: int, linger_s: float) -> list[Delivery]:
        if not self.deliveries:
            await asyncio.Event().wait()
        return [self.deliveries.pop()]


async def test_a_failed_commit_is_noticed_while_nothing_arrives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("a defect of ours")

    monkeypatch.setattr(IngestLoop, "_commit", broken)
    receiver: Any = OnceOnly()
    nothing: Any = None
    loop = IngestLoop(receiver, [nothing], nothing, lambda: 0, GatewayMetrics(1))
    with pytest.RaisesGroup(ZeroDivisionError):
        async with asyncio.timeout(30):
            await loop.run(asyncio.Event())
