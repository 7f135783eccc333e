"""A simulated meter on a real connection that is moved by hand, and what it truly did.

`fleet` lets many meters live on a clock that runs; here somebody else decides when a meter reads,
connects, vanishes or lies. What the meter measured (`truth`) is kept apart from what it managed to
say (`arrived`), so that an auditor can judge what became of both.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import aiomqtt
import orjson
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from schemas import topics
from schemas.decoding import decode_up
from schemas.topics import QOS_0, RETAINED, Kind, Topic, downlink_filter
from schemas.wire import Relay
from simulators.fleet import Broker
from simulators.meter import EnterToken, Meter, Publish, TokenEntry
from simulators.wire import Wire

KEEPALIVE_S = 60
# A broker that does not answer in this time is gone.
ANSWER_S = 10
SESSION_EXPIRY_S = 3600
# The meter's own words cannot lie in the future of any later clock.
LAST_MS = 1 << 52

# What the link makes of a step's publications: less, more, or other ones.
Distort = Callable[[Sequence[Publish]], Sequence[Publish]]


class Heard(NamedTuple):
    """One message of `dn/{kind}`."""

    kind: Kind
    payload: bytes


@dataclass(slots=True)
class TokenMemory:
    """What a meter answered to each token that was entered; hand `entering` to the meter."""

    results: dict[str, list[str]] = field(default_factory=dict)

    def entering(self, enter: EnterToken) -> EnterToken:
        def noted(memory: str | None, digits: str) -> TokenEntry:
            entry = enter(memory, digits)
            self.results.setdefault(digits, []).append(entry.outcome["result"])
            return entry

        return noted


class Device:
    """`connect`, `live`, `vanish`, ...; commands are obeyed as they come while it is connected."""

    def __init__(
        self,
        meter: Meter,
        broker: Broker,
        now_ms: Callable[[], int],
        tokens: TokenMemory | None = None,
        behind_ms: int = 0,
        credentials: Callable[[], ssl.SSLContext | None] = lambda: None,
    ) -> None:
        self.meter = meter
        self.number = meter.plate.meter
        self.tokens = TokenMemory() if tokens is None else tokens
        # Instant -> Wh as measured, whatever was said of it.
        self.truth: dict[int, int] = {}
        # Instant -> Wh as said in a good message that the broker took; the first word counts.
        self.arrived: dict[int, int] = {}
        self.answers: dict[str, str] = {}
        self.said: list[Publish] = []
        self.heard: list[Heard] = []
        self.switched = 0
        # Whether it ever said itself where its relay stands; a gateway's batch does not.
        self.spoke = False
        self.distort: Distort = list
        self.deaf = False
        # Its clock is behind the others by so much.
        self._behind_ms = behind_ms
        self._clock_ms = now_ms
        # Asked for at each connection: a certificate may come after the meter was made.
        self._credentials = credentials
        self._wire = Wire(broker.host, broker.port)
        self._stack: AsyncExitStack | None = None
        self._client: aiomqtt.Client | None = None
        self._listening: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._news = asyncio.Condition()

    # --- its life -----------------------------------------------------------------------------

    def power_up(self) -> list[Publish]:
        """A new boot at the clock's instant; what it has to tell is returned, for `say`."""
        return self._noted(self.meter.power_up(self._now_ms()))

    def _now_ms(self) -> int:
        return self._clock_ms() - self._behind_ms

    def wake_ms(self) -> int:
        """When, by the others' clock, something is due at the meter."""
        return self.meter.next_wake_ms() + self._behind_ms

    async def live(self) -> None:
        """What fell due up to now; said if it is connected."""
        await self._do(self.meter.tick)

    async def move_by_hand(self, to: Relay) -> None:
        """Somebody opens the cover and moves the relay."""
        await self._do(lambda now_ms: self.meter.move_by_hand(now_ms, to))

    async def connect(self) -> None:
        """Online, hello, newest reading, buffer. Errors: aiomqtt.MqttError."""
        await self._wire.open()
        stack = AsyncExitStack()
        client = await stack.enter_async_context(self._make_client())
        self._stack, self._client = stack, client
        await client.subscribe(downlink_filter("m", self.number), qos=1)
        self._listening = asyncio.create_task(self._listen(client), name=f"device-{self.number}")
        await self.say([Publish("state", b"online")])
        await self._do(self.meter.connected)

    async def disconnect(self) -> None:
        """Goes in order, with a word."""
        await self.say([Publish("state", b"offline")])
        await self._leave()

    async def vanish(self) -> None:
        """The connection breaks: its last will speaks."""
        async with self._turn:
            # Not in the middle of a word: that would wait for its acknowledgement in vain.
            self._wire.cut()
        if self._listening is not None:
            # The client must see the end itself before it is put away.
            await asyncio.wait({self._listening}, timeout=ANSWER_S)
        await self._leave()

    async def close(self) -> None:
        """For good, whatever state it is in."""
        await self._leave()
        await self._wire.close()

    async def _leave(self) -> None:
        self.meter.disconnected()
        client, self._client = self._client, None
        if self._listening is not None:
            self._listening.cancel()
            # A broken connection ends the listening with an error: it was meant to break.
            with contextlib.suppress(asyncio.CancelledError, aiomqtt.MqttError):
                await self._listening
            self._listening = None
        if client is not None and self._stack is not None:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._stack.aclose()
        self._stack = None

    # --- what it says -------------------------------------------------------------------------

    async def say(self, said: Sequence[Publish]) -> None:
        """Publish as it stands, without distortion. Errors: aiomqtt.MqttError."""
        for message in said:
            await self._publish(message)

    async def publish_raw(
        self, kind: Kind, payload: bytes, content_type: str | None = None
    ) -> None:
        """Any bytes on its own topic: nothing of them is taken for its word."""
        assert self._client is not None, "connect first"
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's
        if content_type is not None:
            properties.ContentType = content_type
        topic = topics.build(Topic("m", self.number, "up", kind))
        await self._client.publish(topic, payload, qos=1, properties=properties)

    async def _do(self, step: Callable[[int], list[Publish]]) -> None:
        async with self._turn:
            before = self.meter.state.relay
            said = self._noted(step(max(self._now_ms(), self.meter.state.alive_ms)))
            self.switched += self.meter.state.relay != before
            if self._client is not None:
                await self.say(self.distort(said))

    def _noted(self, said: list[Publish]) -> list[Publish]:
        """Keep what the meter measured and answered before anything happens to it."""
        for row in self.meter.state.pending:
            self.truth.setdefault(row.ts_ms, row.wh)
        for message in said:
            if message.kind == "ack":
                form = orjson.loads(message.payload)
                self.answers[form["cmd"]] = form["state"]
        return said

    async def _publish(self, message: Publish) -> None:
        assert self._client is not None, "connect first"
        kind = message.kind
        topic = Topic("m", self.number, "up", kind)
        qos, retain = int(kind not in QOS_0), ("up", kind) in RETAINED
        await self._client.publish(topics.build(topic), message.payload, qos=qos, retain=retain)
        self.spoke = True
        self.said.append(message)
        if kind == "reading":
            for reading in decode_up(topic, message.payload, None, LAST_MS).readings:
                self.arrived.setdefault(reading.ts_ms, reading.value_wh)

    # --- what it hears ------------------------------------------------------------------------

    async def thrown_out(self, seconds: float) -> bool:
        """Whether the connection was ended from the other side within this time."""
        assert self._listening is not None, "connect first"
        ended, _ = await asyncio.wait({self._listening}, timeout=seconds)
        return bool(ended)

    async def publish_as(self, other: str, kind: Kind, payload: bytes) -> None:
        """Any bytes on the topic of another meter; what the broker says to it is not asked."""
        assert self._client is not None, "connect first"
        await self._client.publish(topics.build(Topic("m", other, "up", kind)), payload, qos=1)

    async def until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Wait until it holds after something was heard and done; False when the time is over."""
        async with self._news:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait_for(holds), seconds)
        return holds()

    def commands(self, kind: str) -> list[bytes]:
        """Payloads of the commands of one type, in the order in which they came."""
        said = [each.payload for each in self.heard if each.kind == "cmd"]
        return [payload for payload in said if orjson.loads(payload)["type"] == kind]

    async def obey(self, payload: bytes) -> None:
        """An order as the broker could bring it, whoever gave it."""
        await self._do(partial(self.meter.receive, kind="cmd", payload=payload))

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            kind = topics.parse(message.topic.value).kind
            data = message.payload if isinstance(message.payload, bytes) else b""
            if not self.deaf:
                await self._do(partial(self.meter.receive, kind=kind, payload=data))
            async with self._news:
                self.heard.append(Heard(kind, data))
                self._news.notify_all()

    def _make_client(self) -> aiomqtt.Client:
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
        session.SessionExpiryInterval = SESSION_EXPIRY_S
        state = Topic("m", self.number, "up", "state")
        return aiomqtt.Client(
            "127.0.0.1",
            self._wire.port,
            identifier=self.number,
            username=self.number,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=session,
            will=aiomqtt.Will(topics.build(state), b"offline", qos=1, retain=True),
            keepalive=KEEPALIVE_S,
            timeout=ANSWER_S,
            tls_context=self._credentials(),
        )
