"""The ingest loop: broker -> batch -> one commit -> acknowledge.

- Source: a `Source` (`Receiver`, `AmqpReceiver`), at most `RECEIVE_MAX` unacknowledged messages.
- Bound: as many batches commit as there are sessions while one more is decoded; nothing else is
  held. Two that are about the same device commit one after the other.
- When the database is away: the same batch is tried again until it is back; the window fills,
  and the broker keeps the rest.
- Delivery: at least once from the broker, exactly once in effect by the database's keys.
- Order: none is relied on.
- Acknowledged in the order received, each batch after its commit.
- On stop: the batches at hand are committed and acknowledged; the rest stays with the broker.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, NamedTuple, Protocol

import structlog
from opentelemetry import trace
from opentelemetry.trace import Tracer

from meter_gateway.inbox import RECEIVE_MAX, Delivery
from meter_gateway.metrics import GatewayMetrics
from meter_gateway.spans import counting, gateway_tracer
from schemas.commands import time_answer
from schemas.decoding import decode_up
from schemas.errors import DomainError
from schemas.telemetry import Decoded, Refused
from schemas.topics import Topic, build, parse
from store.answers import BatchAnswer, Receipt
from store.clocks import judge
from store.errors import Unavailable
from store.incoming import Incoming, Recorded
from store.ingest import record, set_aside
from store.lanes import Lanes
from store.pool import Connection
from store.session import Session
from store.terms import TermsCache

log = structlog.get_logger()

# Batches that a worker commits at a time.
COMMITS = 3
# So that these commit while the next fills. Acknowledging one must always make room for the next,
# or a full window and a waiting batch would stop each other.
BATCH_MAX = RECEIVE_MAX // (COMMITS + 1)
# Of gateways' batches: more would make a commit longer, not cheaper.
READINGS_MAX = BATCH_MAX
# Long enough to gather some messages at low rates, too short to be noticed.
LINGER_S = 0.02
RETRY_FIRST_S = 0.1
RETRY_LAST_S = 2.0


class Source(Protocol):
    """What ingest needs of the receiving side; `run` keeps the connection until cancelled."""

    connected: asyncio.Event

    async def run(self) -> None: ...

    async def take(self, most: int, linger_s: float) -> list[Delivery]: ...

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None: ...

    async def leave(self) -> None: ...

    async def close(self) -> None: ...


class Downlink(Protocol):
    """What ingest needs of the sending side: answers that may be lost without harm."""

    def receipts(self, receipts: Sequence[Receipt], answers: Sequence[BatchAnswer]) -> None: ...

    def answer(self, topic: str, payload: bytes) -> None: ...


class Decoder(Protocol):
    """Deliveries of another protocol -> messages; all of them are acknowledged after one commit."""

    async def __call__(self, deliveries: Sequence[Delivery]) -> list[Incoming]: ...


@dataclass(frozen=True, slots=True)
class _Hand:
    """Commits one batch at a time."""

    session: Session
    terms: TermsCache = field(default_factory=TermsCache)


class _Committing(NamedTuple):
    """A batch that is being committed, and the devices that it is about."""

    task: asyncio.Task[None]
    devices: set[str]


@dataclass(frozen=True, slots=True)
class IngestLoop:
    """One worker's loop; `now_ms` is the system's clock, which a demonstration may speed up.

    `sessions`: a batch commits on each, so that the database works on one while we rate another.
    """

    receiver: Source
    sessions: Sequence[Session]
    downlink: Downlink
    now_ms: Callable[[], int]
    metrics: GatewayMetrics
    batch_max: int = BATCH_MAX
    linger_s: float = LINGER_S
    # Simulated seconds in a second, as `now_ms` runs.
    speed: int = 1
    # Where the topics are not the contract's.
    decoder: Decoder | None = None
    lanes: Lanes = field(default_factory=Lanes)
    tracer: Tracer = field(default_factory=gateway_tracer)

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`; then the batches at hand are finished."""
        hands = cycle([_Hand(session) for session in self.sessions])
        committing: deque[_Committing] = deque()
        try:
            while True:
                tasks = [each.task for each in committing]
                deliveries = await _unless(stopping, self._take(), tasks)
                if deliveries is None:
                    break
                if self.decoder is None:
                    portions = self._portions(deliveries)
                else:
                    portions = iter([(deliveries, await self.decoder(deliveries))])
                for taken, said in portions:
                    devices = _devices(said)
                    while len(committing) == len(self.sessions) or not all(
                        devices.isdisjoint(each.devices) for each in committing
                    ):
                        await committing.popleft().task
                    before = committing[-1].task if committing else None
                    work = self._commit(next(hands), taken, said, before)
                    committing.append(_Committing(asyncio.create_task(work), devices))
                    # It begins before the next is decoded, not after.
                    await asyncio.sleep(0)
            while committing:
                await committing.popleft().task
        finally:
            for each in committing:
                each.task.cancel()

    async def _take(self) -> list[Delivery]:
        return await self.receiver.take(self.batch_max, self.linger_s)

    def _portions(
        self, deliveries: Sequence[Delivery]
    ) -> Iterator[tuple[Sequence[Delivery], Sequence[Incoming]]]:
        """A commit's worth at a time, decoded as it is asked for: a gateway says many readings in
        one message.
        """
        first, readings = 0, 0
        messages: list[Incoming] = []
        now_ms, now_ns = self.now_ms(), time.monotonic_ns()
        for place, delivery in enumerate(deliveries):
            message = self._decode(delivery, now_ms, now_ns)
            said = len(message.decoded.readings)
            if messages and readings + said > READINGS_MAX:
                yield deliveries[first:place], messages
                first, readings, messages = place, 0, []
                now_ms, now_ns = self.now_ms(), time.monotonic_ns()
            messages.append(message)
            readings += said
        yield deliveries[first:], messages

    def _decode(self, delivery: Delivery, now_ms: int, now_ns: int) -> Incoming:
        received_ms = now_ms - (now_ns - delivery.received_ns) // 1_000_000 * self.speed
        try:
            topic: Topic | None = parse(delivery.topic)
        except DomainError:
            topic = None
        decoded = Decoded() if topic is None else _decoded(topic, delivery, now_ms)
        # A broker drops a time request that it cannot hand on: it is never an old one.
        fresh = delivery.prompt or decoded.time_request_ms is not None
        if topic is not None and (decoded.time_request_ms is not None or decoded.hello is not None):
            self._tell_time(topic, decoded, received_ms, fresh=fresh)
        return Incoming(
            topic,
            delivery.topic,
            delivery.payload,
            delivery.content_type,
            decoded,
            received_ms=received_ms if fresh else None,
        )

    def _tell_time(self, topic: Topic, decoded: Decoded, received_ms: int, *, fresh: bool) -> None:
        """Answer who asks for the time, and who says hello with a clock that is wrong."""
        asked_ms = decoded.time_request_ms
        hello = decoded.hello
        if hello is not None and fresh and judge(hello.ts_ms - received_ms) != "sync":
            asked_ms = hello.ts_ms
        if asked_ms is not None:
            answer_to = build(Topic(topic.side, topic.device, "dn", "time"))
            self.downlink.answer(answer_to, time_answer(asked_ms, received_ms, self.now_ms()))

    async def _commit(
        self,
        hand: _Hand,
        deliveries: Sequence[Delivery],
        messages: Sequence[Incoming],
        before: "asyncio.Task[None] | None",
    ) -> None:
        """`before`: the batch that is acknowledged before this one."""
        began_ns = time.monotonic_ns()
        with counting(self.tracer, "ingest.commit") as span:
            span.set_attribute("prepaid.messages", len(messages))
            recorded = await self._record(hand, messages)
            span.set_attributes(
                {
                    "prepaid.accepted": recorded.accepted,
                    "prepaid.duplicate": recorded.duplicate,
                    "prepaid.quarantined": recorded.quarantined,
                    "prepaid.commands": recorded.commands,
                }
            )
        committed_ns = time.monotonic_ns()
        if before is not None:
            await before
        self.receiver.acknowledge(deliveries)
        self.downlink.receipts(recorded.receipts, recorded.answers)
        self.metrics.committed(recorded, messages, self.now_ms())
        self.metrics.commit.observe((committed_ns - began_ns) / 1e9)
        oldest_ns = min(delivery.received_ns for delivery in deliveries)
        self.metrics.lag.observe((committed_ns - oldest_ns) / 1e9)

    async def _record(self, hand: _Hand, messages: Sequence[Incoming]) -> Recorded:
        try:
            return await self._try(hand, self._recording(hand, messages))
        except Exception:
            # Not the input's fault, or an input that we did not think of: one message must not
            # hold up the others, and none may be lost.
            log.exception("batch_failed", messages=len(messages))
        total = Recorded()
        for message in messages:
            total.add(await self._record_alone(hand, message))
        return total

    def _recording(
        self, hand: _Hand, messages: Sequence[Incoming]
    ) -> Callable[[Connection], Recorded]:
        return lambda conn: record(conn, hand.terms, messages, self.now_ms(), self.lanes)

    async def _record_alone(self, hand: _Hand, message: Incoming) -> Recorded:
        try:
            return await self._try(hand, self._recording(hand, [message]))
        except Exception as error:
            log.exception("message_set_aside", topic=message.topic_text)
            detail = f"{type(error).__name__}: {error}"
            return await self._try(
                hand, lambda conn: set_aside(conn, message, detail, self.now_ms())
            )

    async def _try(self, hand: _Hand, work: Callable[..., Recorded]) -> Recorded:
        """Do it; while the database is away, wait and do it again."""
        retry_s = RETRY_FIRST_S
        while True:
            try:
                return await hand.session.run(work)
            except Unavailable as error:
                log.warning("database_away", reason=str(error), retry_s=retry_s)
                self.metrics.database_away.inc()
                trace.get_current_span().add_event("database_away")
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, RETRY_LAST_S)


def _decoded(topic: Topic, delivery: Delivery, now_ms: int) -> Decoded:
    try:
        return decode_up(topic, delivery.payload, delivery.content_type, now_ms)
    except Exception:
        # A defect of ours. The worker would die of the message, and the next one of its repeat.
        log.exception("message_not_decoded", topic=delivery.topic)
        refused = Refused("undecodable", "We failed to read it.", None, delivery.payload)
        return Decoded(refused=(refused,))


def _devices(messages: Sequence[Incoming]) -> set[str]:
    """Whoever spoke, and the meters that they spoke of."""
    devices = {message.topic.device for message in messages if message.topic is not None}
    for message in messages:
        if message.topic is None or message.topic.side == "g":
            devices.update(message.meters())
    return devices


async def _unless(
    stopping: asyncio.Event,
    work: Awaitable[list[Delivery]],
    beside: Sequence["asyncio.Task[None]"],
) -> list[Delivery] | None:
    """The result of `work`, or None when stopping comes first. Errors: those of `beside`, at once:
    with nothing new to take, nobody would look at them again.
    """
    working = asyncio.ensure_future(work)
    stop = asyncio.create_task(stopping.wait())
    waited: set[asyncio.Future[Any]] = {working, stop, *beside}
    try:
        while not (working.done() or stop.done()):
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for each in [task for task in beside if task in waited and task.done()]:
                waited.discard(each)
                each.result()
    finally:
        stop.cancel()
        if not working.done():
            working.cancel()
    return working.result() if working.done() else None
