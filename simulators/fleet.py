"""Many meters and gateways on one broker, in one process: each with its own connection and memory.

Per device: QoS 1, a persistent session, a last will on `up/state`, reconnection with growing
pauses. A step (instant or message in, publications out) is written to the state file before
anything of it is sent. What happens when

- the broker is away: readings go to the meter's buffer, acknowledgements and events wait here;
- it is back: hello, newest reading, what waited, then the buffer, oldest first;
- too much waits: the oldest reading of a full buffer is lost, as in a meter;
- this process stops: each meter says offline and its memory is saved; the next start is a return
  of power, and the household used nothing meanwhile.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import aiomqtt
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from schemas import topics
from schemas.decoding import CBOR
from schemas.topics import QOS_0, RETAINED, Kind, Side, Topic, downlink_filter
from simulators.faults import Disturber, Faults
from simulators.gateway import Gateway
from simulators.meter import Meter, Publish
from simulators.state_file import StateFile

# Real seconds. The broker notices a silent meter after one and a half of these.
KEEPALIVE_S = 60
# A broker that does not answer a publication in this time is treated as gone.
ANSWER_S = 30
CANCEL_AGAIN_S = 0.5
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
# The clock may be moved by whoever owns it, so a sleeping meter looks at it now and then.
LONGEST_SLEEP_S = 5.0
# Each connection blocks a thread until the socket stands; a whole fleet at once starves the rest.
CONNECTING_AT_ONCE = 8
# Acknowledgements and events that wait for a broker; a meter has room for about that many.
WAITING_LIMIT = 256
SESSION_EXPIRY_S = 7 * 24 * 3600

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the meters connect; by TLS to a broker that the authority `ca` (PEM) vouches for."""

    host: str
    port: int = 1883
    ca: Path | None = None

    def tls(self, certificate: Path | None, private_key: Path | None) -> ssl.SSLContext | None:
        """What a meter shows and believes; None for plain text."""
        if self.ca is None:
            return None
        context = ssl.create_default_context(cafile=self.ca)
        if certificate is not None:
            context.load_cert_chain(certificate, private_key)
        return context


@dataclass(frozen=True, slots=True)
class Member:
    """A meter, or a gateway with those behind it, with what its connection needs."""

    meter: Meter | Gateway
    password: str | None = field(default=None, repr=False)
    certificate: Path | None = None
    private_key: Path | None = None


# Called with (meter, kind, payload) for every publication that the broker has acknowledged.
Sent = Callable[[str, Kind, bytes], None]


def _nothing(meter: str, kind: Kind, payload: bytes) -> None:
    """Nobody listens to what was sent."""


@dataclass(frozen=True, slots=True)
class Site:
    """What all meters of a process share. `now_ms` is the simulated clock and `speed` how many
    simulated seconds pass in a real one; `sent` hears of every acknowledged publication. A broker
    that does not answer for `answer_s` real seconds is gone.
    """

    broker: Broker
    state_file: StateFile
    now_ms: Callable[[], int]
    speed: int = 1
    faults: Faults = field(default_factory=Faults)
    sent: Sent = _nothing
    answer_s: float = ANSWER_S
    connecting: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(CONNECTING_AT_ONCE)
    )


async def run_fleet(site: Site, members: Sequence[Member], stop: asyncio.Event) -> None:
    """Let the meters live until `stop` is set.

    Raises DomainError `clock_behind` if a meter has lived later than the clock says.
    """
    links = [_Link(site, member) for member in members]
    for link in links:
        link.power_up()
    log.info("fleet_started", meters=len(links), speed=site.speed)
    try:
        async with asyncio.TaskGroup() as group:
            for link in links:
                group.create_task(link.run(stop), name=link.number)
    finally:
        for link in links:
            link.save()
        log.info("fleet_stopped", meters=len(links))


class _Interrupted(Exception):  # noqa: N818  (a fault that is wanted, caught where it is thrown)
    """The link drops or the meter loses its power, by order of the faults."""


async def _end(tasks: Sequence[asyncio.Task[object]]) -> None:
    """Cancel until they have ended: in Python 3.11 a `wait_for` whose answer comes at the same
    moment keeps the cancellation to itself, and its task goes on.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)


class _Link:
    """One meter and its connection."""

    def __init__(self, site: Site, member: Member) -> None:
        self.number = member.meter.name
        self._side: Side = member.meter.side
        self._meter = member.meter
        self._password = member.password
        self._tls = site.broker.tls(member.certificate, member.private_key)
        self._site = site
        self._disturber = Disturber(site.faults, self.number)
        # Spreads reconnections; each meter its own, so that no two storm together.
        self._random = Random(self.number)  # noqa: S311  (no secret)
        self._pause_s = FIRST_PAUSE_S
        self._waiting: deque[Publish] = deque(maxlen=WAITING_LIMIT)
        # Steps and their publications go out one after the other, so that seq never runs back.
        self._turn = asyncio.Lock()

    def power_up(self) -> None:
        self._waiting.extend(self._meter.power_up(self._site.now_ms()))
        self.save()

    def save(self) -> None:
        for number, state in self._meter.memories():
            self._site.state_file.save(number, state)

    async def run(self, stop: asyncio.Event) -> None:
        # The first connections of a fleet come spread over the first pause, like all later ones.
        while not await _slept(self._pause_s * self._random.random(), stop):
            try:
                await self._live(stop)
            except (aiomqtt.MqttError, _Interrupted) as error:
                log.debug("meter_disconnected", meter=self.number, error=str(error))
                self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
            finally:
                self._meter.disconnected()
            self._waiting.extend(self._step(self._meter.tick))

    async def _live(self, stop: asyncio.Event) -> None:
        """One connection, from hello to its end. Raises MqttError when it breaks."""
        async with AsyncExitStack() as stack:
            async with self._site.connecting:
                client = await stack.enter_async_context(self._client())
                await client.subscribe(downlink_filter(self._side, self.number), qos=1)
            self._pause_s = FIRST_PAUSE_S
            greeted = asyncio.Event()
            # Listening from the first word on: it alone sees at once that the connection ended.
            tasks: list[asyncio.Task[object]] = [
                asyncio.create_task(self._listen(client, greeted)),
                asyncio.create_task(self._speak(client, greeted)),
                asyncio.create_task(stop.wait()),
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _end(tasks)
            # A connection that ends by our own will says so; the last will speaks for the others.
            if any(isinstance(task.exception(), _Interrupted) for task in done) or stop.is_set():
                await self._publish(client, Publish("state", b"offline"))
            for task in done:
                task.result()

    def _client(self) -> aiomqtt.Client:
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho is untyped here
        session.SessionExpiryInterval = SESSION_EXPIRY_S
        state = Topic(self._side, self.number, "up", "state")
        return aiomqtt.Client(
            self._site.broker.host,
            self._site.broker.port,
            identifier=self.number,
            username=self.number,
            password=self._password,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=session,
            will=aiomqtt.Will(topics.build(state), b"offline", qos=1, retain=True),
            keepalive=KEEPALIVE_S,
            timeout=self._site.answer_s,
            tls_context=self._tls,
        )

    def _greet(self, now_ms: int) -> list[Publish]:
        said = self._meter.connected(now_ms)
        waited = list(self._waiting)
        self._waiting.clear()
        return [*said[:2], *waited, *said[2:]]

    async def _speak(self, client: aiomqtt.Client, greeted: asyncio.Event) -> None:
        await self._publish(client, Publish("state", b"online"))
        await self._do(client, self._greet)
        greeted.set()
        await self._keep_time(client)

    async def _listen(self, client: aiomqtt.Client, greeted: asyncio.Event) -> None:
        async for message in client.messages:
            await greeted.wait()
            kind = topics.parse(message.topic.value).kind
            data = message.payload if isinstance(message.payload, bytes) else b""
            await self._do(client, partial(self._meter.receive, kind=kind, payload=data))

    async def _keep_time(self, client: aiomqtt.Client) -> None:
        while True:
            wake_ms = self._meter.next_wake_ms()
            ahead_s = max(wake_ms - self._site.now_ms(), 1) / 1000 / self._site.speed
            await asyncio.sleep(min(ahead_s, LONGEST_SLEEP_S))
            if self._site.now_ms() < wake_ms:
                continue
            await self._do(client, self._meter.tick)
            if self._disturber.reboots():
                self._waiting.extend(self._step(self._meter.power_up))
                raise _Interrupted("rebooted")
            if self._disturber.drops():
                raise _Interrupted("dropped")

    def _step(self, step: Callable[[int], list[Publish]]) -> list[Publish]:
        # A clock that was set back must not make a meter younger than it is.
        now_ms = max(self._site.now_ms(), self._meter.alive_ms)
        said = step(now_ms)
        self.save()
        return self._disturber.outgoing(said, now_ms)

    async def _do(self, client: aiomqtt.Client, step: Callable[[int], list[Publish]]) -> None:
        async with self._turn:
            unsent = deque(self._step(step))
            try:
                while unsent:
                    await self._publish(client, unsent[0])
                    unsent.popleft()
            finally:
                # Readings are in the meter's own buffer; the rest has no other place to wait.
                self._waiting.extend(m for m in unsent if m.kind in {"ack", "event"})

    async def _publish(self, client: aiomqtt.Client, message: Publish) -> None:
        kind = message.kind
        topic = topics.build(Topic(self._side, self.number, "up", kind))
        qos, retain = int(kind not in QOS_0), ("up", kind) in RETAINED
        await client.publish(
            topic, message.payload, qos=qos, retain=retain, properties=self._content(kind)
        )
        self._site.sent(self.number, kind, message.payload)

    def _content(self, kind: Kind) -> Properties | None:
        """How the payload is to be read, where that is not JSON."""
        if kind != "batch" or not isinstance(self._meter, Gateway) or not self._meter.cbor:
            return None
        content = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho is untyped here
        content.ContentType = CBOR
        return content


async def _slept(seconds: float, stop: asyncio.Event) -> bool:
    """Sleep, or less if told to stop; whether that was the end."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    return stop.is_set()
