"""One gateway process: receiver, ingest, dispatch and clockwork, started and ended together."""

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from prometheus_client import start_http_server

from meter_gateway.amqp import AmqpAddress, AmqpReceiver
from meter_gateway.clockwork import run_clockwork
from meter_gateway.dispatch import Dispatcher
from meter_gateway.ingest import BATCH_MAX, SESSIONS, IngestLoop, Source
from meter_gateway.metrics import GatewayMetrics
from meter_gateway.overtaking import OvertakingReceiver
from meter_gateway.receiver import SESSION_EXPIRY_S, BrokerAddress
from meter_gateway.tls import TlsFiles
from meter_gateway.token_alarm import TokenAlarm
from schemas.errors import DomainError
from schemas.signing import SigningKey
from schemas.topics import shared_up_filter
from store.outbox import USUAL_PACING, Pacing
from store.session import POINT_LOOKUPS, Session

log = structlog.get_logger()

# The batch at hand has this long to commit; then the process ends and the broker sends it again.
STOP_DEADLINE_S = 10.0
# A worker that leaves for good has this long to empty its session.
LEAVE_DEADLINE_S = 120.0
# New objects before the youngest are looked through, and how often that before the older ones.
COLLECT = (100_000, 50, 100)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Plain values; `name` makes the client ids and must be stable and unique per worker."""

    # Both addresses may hold a password.
    database_url: str = field(repr=False)
    broker_url: str = field(repr=False)
    name: str
    now_ms: Callable[[], int]
    speed: int = 1
    batch_max: int = BATCH_MAX
    # Workers of one group share the messages; each group gets all of them.
    group: str = "ingest"
    session_expiry_s: int = SESSION_EXPIRY_S
    keep_days: int | None = None
    metrics_port: int | None = None
    tls: TlsFiles | None = None
    # The sending side's own user and certificate, so that each side has only the rights it needs;
    # None: those of the receiving side.
    dispatch_url: str | None = field(default=None, repr=False)
    dispatch_tls: TlsFiles | None = None
    # Commands are signed with it; None: meters without verification keys.
    signing_key: SigningKey | None = None
    pacing: Pacing = USUAL_PACING
    # Where messages are taken from, if not at `broker_url`: amqp:// is a queue of RabbitMQ.
    ingest_url: str | None = field(default=None, repr=False)
    # When stopped: give the share up for good instead of keeping it for the next start.
    ephemeral: bool = False
    # Take nothing new from the first moment on: for a worker that is away and will not come back.
    leaving: bool = False

    def source(self) -> Source:
        """The receiving side of this worker. Errors: ValueError for an address of neither kind."""
        url = self.ingest_url or self.broker_url
        if url.startswith("amqp"):
            queue = AmqpAddress.parse(url, self.tls)
            _require_readable(queue.tls)
            return AmqpReceiver(queue, f"prepaid-ingest-{self.name}", f"prepaid.{self.group}")
        broker = BrokerAddress.parse(url, self.tls)
        _require_readable(broker.tls)
        return OvertakingReceiver(
            broker,
            self.name,
            shared_up_filter(self.group),
            self.session_expiry_s,
            leaving=self.leaving,
        )


class Gateway:
    """One worker. `run` until told to stop; a loop that dies ends it, so that somebody restarts."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self.metrics = GatewayMetrics(settings.speed)
        # True: an ephemeral worker could not empty its session in time.
        self.left_behind = False

    async def run(
        self, stopping: asyncio.Event, on_ready: Callable[[], None] = lambda: None
    ) -> None:
        """Errors: what ended a loop that should not end, as an exception group."""
        settings = self._settings
        receiver = settings.source()
        sending = BrokerAddress.parse(
            settings.dispatch_url or settings.broker_url, settings.dispatch_tls or settings.tls
        )
        _require_readable(sending.tls)
        if settings.metrics_port is not None:
            start_http_server(
                settings.metrics_port, addr="127.0.0.1", registry=self.metrics.registry
            )
        sessions = [
            Session(settings.database_url, "dispatch"),
            Session(settings.database_url, "clockwork", POINT_LOOKUPS),
            *(Session(settings.database_url, "ingest", POINT_LOOKUPS) for _ in range(SESSIONS)),
        ]
        dispatcher = Dispatcher(
            sending,
            f"prepaid-dispatch-{settings.name}",
            sessions[0],
            settings.now_ms,
            settings.speed,
            settings.signing_key,
            settings.pacing,
        )
        ingest = IngestLoop(
            receiver,
            sessions[2:],
            dispatcher,
            settings.now_ms,
            self.metrics,
            settings.batch_max,
            speed=settings.speed,
            behind=receiver.behind,
        )
        alarm = TokenAlarm(self.metrics.registry)
        clockwork = run_clockwork(
            sessions[1], settings.now_ms, stopping, settings.keep_days, alarm, self.metrics
        )
        receiving = asyncio.create_task(receiver.run(), name="receiver")
        ended = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._end(receiver, stopping, ended), name="end")
                loops.create_task(ingest.run(ended), name="ingest")
                loops.create_task(dispatcher.run(ended), name="dispatch")
                loops.create_task(clockwork, name="clockwork")
                loops.create_task(announce(receiver.connected, stopping, on_ready), name="announce")
        finally:
            await receiver.close()
            receiving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await receiving
            for session in sessions:
                await session.close()
        log.info("gateway_stopped", worker=settings.name)
        if self.left_behind:
            raise DomainError(
                "share_left_behind",
                f"The session of worker {settings.name} is not empty yet: run "
                f"`prepaid gateway --name {settings.name} --leave` until it says that it left.",
            )

    async def _end(self, receiver: Source, stopping: asyncio.Event, ended: asyncio.Event) -> None:
        """Stopped: the loops end at once, or after the share was given up."""
        await stopping.wait()
        if self._settings.ephemeral:
            try:
                await asyncio.wait_for(receiver.leave(), LEAVE_DEADLINE_S)
            except TimeoutError:
                self.left_behind = True
        ended.set()


def _require_readable(tls: TlsFiles | None) -> None:
    """Files that cannot be read end the start, not a loop. Errors: DomainError `tls_files`."""
    if tls is not None:
        tls.context()


async def announce(
    subscribed: asyncio.Event, stopping: asyncio.Event, on_ready: Callable[[], None]
) -> None:
    """Say once that the broker gave us our topics, unless we are stopped before."""
    connected = asyncio.create_task(subscribed.wait())
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait({connected, stop}, return_when=asyncio.FIRST_COMPLETED)
    if connected.done():
        on_ready()
    connected.cancel()
    stop.cancel()


def collect_seldom() -> None:
    """Set this process's garbage collector for batches.

    A batch makes some hundred thousand objects that all go with it, beside many that stay: looked
    through every 700 objects, as is the default, they cost as much as the work itself.
    """
    gc.freeze()
    gc.set_threshold(*COLLECT)


def stop_on_signals(stopping: asyncio.Event, deadline_s: float = STOP_DEADLINE_S) -> None:
    """The first SIGINT or SIGTERM ends in order; the handler goes, so that a second one kills."""
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        log.info("stopping", signal=signal.Signals(number).name)
        stopping.set()
        loop.remove_signal_handler(number)
        loop.call_later(deadline_s, _give_up, deadline_s)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)


def _give_up(after_s: float) -> None:
    log.error("stop_deadline_passed", after_s=after_s)
    raise SystemExit(1)
