"""One adapter process: receiver, ingest and rebirth requests, started and ended together."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from prometheus_client import start_http_server

from meter_gateway.foreign.adapter import Adapter, AnyProfile, RebirthRequests
from meter_gateway.foreign.keys import SealingKey
from meter_gateway.gateway import announce
from meter_gateway.ingest import IngestLoop
from meter_gateway.metrics import GatewayMetrics
from meter_gateway.receiver import SESSION_EXPIRY_S, BrokerAddress, Receiver
from store.answers import BatchAnswer, Receipt
from store.session import POINT_LOOKUPS, Session

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """Plain values; `name` makes the client ids, and must be stable and this adapter's own."""

    database_url: str
    broker_url: str
    name: str
    profiles: Sequence[AnyProfile]
    now_ms: Callable[[], int]
    sealing_key: SealingKey | None = None
    session_expiry_s: int = SESSION_EXPIRY_S
    metrics_port: int | None = None


class _NoDownlink:
    """Foreign devices are told nothing: they free no buffer on our word and ask for no time."""

    def receipts(self, receipts: Sequence[Receipt], answers: Sequence[BatchAnswer]) -> None:
        pass

    def answer(self, topic: str, payload: bytes) -> None:
        pass


async def run_adapter(
    settings: AdapterSettings,
    stopping: asyncio.Event,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Until `stopping`. Errors: what ended a loop that should not end, as an exception group."""
    address = BrokerAddress.parse(settings.broker_url)
    metrics = GatewayMetrics(1)
    if settings.metrics_port is not None:
        start_http_server(settings.metrics_port, addr="127.0.0.1", registry=metrics.registry)
    devices = Session(settings.database_url, "devices")
    session = Session(settings.database_url, "adapter", POINT_LOOKUPS)
    requests = RebirthRequests(address, f"prepaid-adapter-{settings.name}-requests")
    adapter = Adapter(
        settings.profiles, devices, settings.now_ms, settings.sealing_key, requests.ask
    )
    receiver = Receiver(
        address, f"prepaid-adapter-{settings.name}", adapter.filters, settings.session_expiry_s
    )
    ingest = IngestLoop(
        receiver, [session], _NoDownlink(), settings.now_ms, metrics, decoder=adapter
    )
    running = [
        asyncio.create_task(receiver.run(), name="receiver"),
        asyncio.create_task(requests.run(), name="requests"),
    ]
    try:
        async with asyncio.TaskGroup() as loops:
            loops.create_task(ingest.run(stopping), name="ingest")
            loops.create_task(announce(receiver.connected, stopping, on_ready), name="announce")
    finally:
        await receiver.close()
        for task in running:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await devices.close()
        await session.close()
    log.info("adapter_stopped", adapter=settings.name)
