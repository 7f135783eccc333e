"""From a message's sending to its receipt at the meter: what a meter itself can see.

The gateway sends a receipt after the commit, so the debit is committed before; the figure also
holds the way back through dispatcher and broker.
"""

import asyncio
import math
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Self

import aiomqtt

from meter_gateway.receiver import BrokerAddress
from schemas.commands import parse_receipt
from schemas.topics import parse

FILTER = "pm/v1/m/+/dn/receipt"
# Receipts still on their way when everything is committed have so long.
LAST_S = 10.0
POLL_S = 0.01


class Receipts:
    """A subscription to all receipts on a thread of its own; `with` keeps it."""

    def __init__(self, broker_url: str) -> None:
        self._address = BrokerAddress.parse(broker_url)
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        # Meter -> seq and wall clock, as they came: a receipt stands for all up to its seq.
        self._arrived: dict[str, list[tuple[int, int]]] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        address = self._address
        client = aiomqtt.Client(
            address.host,
            address.port,
            username=address.username,
            password=address.password,
            identifier=f"bench-receipts-{secrets.token_hex(4)}",
            tls_context=None if address.tls is None else address.tls.context(),
        )
        try:
            async with client:
                await client.subscribe(FILTER, qos=1)
                self._ready.set()
                receiving = asyncio.create_task(self._receive(client))
                await self._stop.wait()
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)
        finally:
            self._ready.set()

    async def _receive(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            now_ns = time.time_ns()
            assert isinstance(message.payload, bytes)
            _, seq = parse_receipt(message.payload)
            meter = parse(message.topic.value).device
            self._arrived.setdefault(meter, []).append((seq, now_ns))

    def latencies_ms(self, sent_ns: Mapping[tuple[str, int], int]) -> list[float]:
        """Of each message that asked, in ms; waits for the last ones, leaves out the missing."""
        end = time.monotonic() + LAST_S
        waiting = dict(sent_ns)
        found: list[float] = []
        while waiting and time.monotonic() < end:
            for (meter, seq), sent in list(waiting.items()):
                arrived = self._first(meter, seq)
                if arrived is not None:
                    found.append((arrived - sent) / 1e6)
                    del waiting[meter, seq]
            time.sleep(POLL_S)
        return found

    def _first(self, meter: str, seq: int) -> int | None:
        came = self._arrived.get(meter, [])
        return next((at_ns for up_to, at_ns in came if up_to >= seq), None)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
