"""The ingest loop: broker -> batch -> one commit -> acknowledge.

- Source: an `Inlet`, at most `RECEIVE_MAX` unacknowledged messages; and another one beside it where
  messages of before are worked off (`behind`), which never takes the last session.
- Bound: `COMMITS` batches of an inlet commit while one more is decoded; nothing else is held. Two
  that are about the same device commit one after the other; of the backlog so many are a batch that
  who waits for them does not wait long.
- When the database is away: the same batch is tried again until it is back; the window fills,
  and the broker keeps the rest.
- Delivery: at least once from the broker, exactly once in effect by the database's keys.
- Order: none is relied on.
- Acknowledged in the order received of each inlet, each batch after its commit.
- On stop: the batches at hand are committed and acknowledged; the rest stays with the broker.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from opentelemetry import trace
from opentelemetry.trace import Tracer

from meter_gateway.inbox import RECEIVE_MAX, Delivery
from meter_gateway.metrics import GatewayMetrics
from meter_gateway.spans import counting, gateway_tracer
from meter_gateway.waiting import unless
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

# Batches of an inlet that a worker commits at a time.
COMMITS = 3
# With a backlog beside it: one more, so that what comes now always finds a session.
SESSIONS = COMMITS + 1
# So that these commit while the next fills. Acknowledging one must always make room for the next,
# or a full window and a waiting batch would stop each other.
BATCH_MAX = RECEIVE_MAX // (COMMITS + 1)
# Of gateways' batches: more would make a commit longer, not cheaper.
READINGS_MAX = BATCH_MAX
# A batch of the backlog is what takes so long: whoever's live reading is of a device in it waits.
BEHIND_S = 0.5
BEHIND_MIN, BEHIND_FIRST = 100, 1_000
# Long enough to gather some messages at low rates, too short to be noticed.
LINGER_S = 0.02
RETRY_FIRST_S = 0.1
RETRY_LAST_S = 2.0


class Inlet(Protocol):
    """Where ingest takes messages from."""

    async def take(self, most: int, linger_s: float) -> list[Delivery]: ...

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None: ...


class Source(Inlet, Protocol):
    """The receiving side of a worker; `run` keeps the connection until cancelled."""

    connected: asyncio.Event

    @property
    def behind(self) -> Inlet | None:
        """Hands out what waited while nobody was there; None: it stands in the same queue."""

    async def run(self) -> None: ...

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


@dataclass(slots=True, eq=False)
class _Side:
    """One inlet, how many messages are a batch of it, and its batches at work in their order."""

    inlet: Inlet
    most: int
    behind: bool = False
    committing: list["asyncio.Task[None]"] = field(default_factory=list)

    @property
    def readings_max(self) -> int:
        return self.most if self.behind else READINGS_MAX

    def ended(self) -> None:
        """Forget the batches that are done. Errors: that of the first that failed."""
        while self.committing and self.committing[0].done():
            self.committing.pop(0).result()

    def took(self, readings: int, seconds: float, most: int) -> None:
        """How long a batch took says how large the next ones of a backlog are."""
        if self.behind and readings:
            fitting = int(readings * BEHIND_S / seconds)
            self.most = max(BEHIND_MIN, min(most, (self.most + fitting) // 2))


class _Hands:
    """Who commits, and the devices that are being committed, of all sides together."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._free = [_Hand(session) for session in sessions]
        self._devices: dict[asyncio.Task[None], set[str]] = {}
        # What comes now and waits for some of these devices is not made to wait for more of them.
        self._wanted: set[str] = set()

    async def free(self, side: _Side, devices: set[str]) -> _Hand:
        """Wait for a hand, and until nobody commits anything about these devices."""
        if not side.behind:
            self._wanted = devices
        try:
            while not self._may_begin(side, devices):
                # Where nobody is at work, who is wanted by another side begins in a moment.
                if self._devices:
                    await asyncio.wait(self._devices, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(0)
                side.ended()
        finally:
            if not side.behind:
                self._wanted = set()
        return self._free.pop()

    def at_work(self, hand: _Hand, task: "asyncio.Task[None]", devices: set[str]) -> None:
        """Until the task is done."""
        self._devices[task] = devices

        def done(_: object) -> None:
            del self._devices[task]
            self._free.append(hand)

        task.add_done_callback(done)

    def _may_begin(self, side: _Side, devices: set[str]) -> bool:
        busy = [*self._devices.values(), *([self._wanted] if side.behind else [])]
        return (
            bool(self._free)
            and len(side.committing) < COMMITS
            and all(devices.isdisjoint(each) for each in busy)
        )


@dataclass(frozen=True, slots=True)
class IngestLoop:
    """One worker's loop; `now_ms` is the system's clock, which a demonstration may speed up.

    `sessions`: a batch commits on each, so that the database works on one while we rate another.
    `behind`: what waited while nobody was there; see `Source`.
    """

    receiver: Inlet
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
    behind: Inlet | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`; then the batches at hand are finished.

        Errors: what ended it that should not end, as an exception group.
        """
        hands = _Hands(self.sessions)
        sides = [_Side(self.receiver, self.batch_max)]
        if self.behind is not None:
            sides.append(_Side(self.behind, min(BEHIND_FIRST, self.batch_max), behind=True))
        async with asyncio.TaskGroup() as working:
            for side in sides:
                working.create_task(self._work(side, hands, stopping))

    async def _work(self, side: _Side, hands: _Hands, stopping: asyncio.Event) -> None:
        try:
            while True:
                taking = side.inlet.take(side.most, self.linger_s)
                deliveries = await unless(stopping, taking, side.committing)
                if deliveries is None:
                    break
                if self.decoder is None:
                    portions = self._portions(deliveries, side.readings_max)
                else:
                    portions = iter([(deliveries, await self.decoder(deliveries))])
                for taken, said in portions:
                    devices = _devices(said)
                    side.ended()
                    hand = await hands.free(side, devices)
                    before = side.committing[-1] if side.committing else None
                    work = self._commit(hand, side, taken, said, before)
                    side.committing.append(asyncio.create_task(work))
                    hands.at_work(hand, side.committing[-1], devices)
                    # It begins before the next is decoded, not after.
                    await asyncio.sleep(0)
            for task in side.committing:
                await task
        finally:
            for task in side.committing:
                task.cancel()

    def _portions(
        self, deliveries: Sequence[Delivery], most: int
    ) -> Iterator[tuple[Sequence[Delivery], Sequence[Incoming]]]:
        """A commit's worth at a time, `most` readings, decoded as it is asked for: a gateway says
        many in one message.
        """
        first, readings = 0, 0
        messages: list[Incoming] = []
        now_ms, now_ns = self.now_ms(), time.monotonic_ns()
        for place, delivery in enumerate(deliveries):
            message = self._decode(delivery, now_ms, now_ns)
            said = len(message.decoded.readings)
            if messages and readings + said > most:
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
        side: _Side,
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
        readings = sum(len(message.decoded.readings) for message in messages)
        side.took(readings, (committed_ns - began_ns) / 1e9, self.batch_max)
        if before is not None:
            await before
        side.inlet.acknowledge(deliveries)
        self.downlink.receipts(recorded.receipts, recorded.answers)
        self.metrics.committed(recorded, messages, self.now_ms())
        if side.behind:
            self.metrics.messages_behind.inc(len(messages))
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
