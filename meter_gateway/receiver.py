"""The hot path's MQTT 5 client: receives, and acknowledges only when told to.

Why our own: no stable kept client lets its user acknowledge after a commit (ADR 0002). The codec is
the `mqtt5` package; here is only the session: connect, subscribe, hand out, acknowledge.

- Source: one shared subscription in a persistent session under a stable client id.
- Bound: at most `RECEIVE_MAX` unacknowledged messages; the broker keeps the rest.
- When full: the broker stops sending; QoS 0 beyond the bound is dropped (time requests only).
- Delivery: at least once. Connection lost: what was not taken is forgotten here, and the broker
  sends again what was not acknowledged.
- Order: as the broker sends; acknowledgements leave in the same order, one write per batch.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, groupby
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import mqtt5
import structlog

from meter_gateway.inbox import POLL_S, RECEIVE_MAX, Delivery, Inbox
from meter_gateway.tls import TlsFiles
from schemas.errors import DomainError

log = structlog.get_logger()

# A worker that is away for this long keeps its place in the shared subscription and its queue.
SESSION_EXPIRY_S = 7 * 24 * 3600
KEEP_ALIVE_S = 30
CONNECT_TIMEOUT_S = 10
RETRY_FIRST_S = 0.2
RETRY_LAST_S = 5.0
GRANTED = (
    mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE,
    mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE,
)
# Of our own two requests on a connection.
SUBSCRIBE_ID, UNSUBSCRIBE_ID = 1, 2
# A gateway's batch is at most 64 KiB (mqtt.md section 2); what is larger is refused by reading it.
MAX_PACKET_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """`mqtt://user:password@host:port`, or `mqtts://` for TLS; `tls` is None without it.

    A broker of several nodes: `host:port,host:port`; see `nodes`.
    """

    host: str
    port: int
    tls: TlsFiles | None
    username: str | None
    password: str | None = field(repr=False)
    others: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, url: str, files: TlsFiles | None = None) -> "BrokerAddress":
        """Raises ValueError, which does not repeat the URL: it holds a password."""
        parts = urlsplit(url)
        who, _, where = parts.netloc.rpartition("@")
        if parts.scheme not in {"mqtt", "mqtts"} or not where:
            raise ValueError("the broker's URL is mqtt://host:port or mqtts://host:port")
        tls = parts.scheme == "mqtts"
        username, _, password = who.partition(":")
        (host, port), *others = parse_hosts(where, 8883 if tls else 1883)
        return cls(
            host=host,
            port=port,
            tls=(files or TlsFiles()) if tls else None,
            username=unquote(username) or None,
            password=unquote(password) or None,
            others=tuple(others),
        )

    def nodes(self) -> Iterator["BrokerAddress"]:
        """One node after the other, for ever: whom to ask when the last one did not answer."""
        hosts = [(self.host, self.port), *self.others]
        return cycle([replace(self, host=host, port=port, others=()) for host, port in hosts])


def parse_hosts(text: str, usual_port: int) -> list[tuple[str, int]]:
    """`host:port,host` of a URL. Raises ValueError, which does not repeat them."""
    found: list[tuple[str, int]] = []
    for each in text.split(","):
        parts = urlsplit(f"//{each}")
        if not parts.hostname:
            raise ValueError("each node of the broker's URL is host:port")
        try:
            found.append((parts.hostname, parts.port or usual_port))
        except ValueError:
            raise ValueError("each node of the broker's URL is host:port") from None
    return found


class Receiver:
    """One worker's subscription: `run` keeps it, `take` and `acknowledge` serve a loop."""

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        topic_filter: str | Sequence[str],
        session_expiry_s: int = SESSION_EXPIRY_S,
        *,
        quiet: bool = False,
        reconnected: asyncio.Event | None = None,
    ) -> None:
        """`quiet`: leave the subscription as the session has it, until `join` or `leave`.

        `reconnected` is set at every connection but the first.
        """
        self._nodes = address.nodes()
        self.client_id = client_id
        self._filters = [topic_filter] if isinstance(topic_filter, str) else list(topic_filter)
        # A share is handed no retained messages: one that says so was published so just now.
        self._shared = all(each.startswith("$share/") for each in self._filters)
        self._session_expiry_s = session_expiry_s
        self._inbox = Inbox()
        self._connection: _Connection | None = None
        self._asking: asyncio.Task[None] | None = None
        # Whether a share is wanted; None: nobody said yet.
        self._wanted: bool | None = None if quiet else True
        self._left = False
        # What the broker said when we connected first: it had a session of this name.
        self.session_present: bool | None = None
        self._reconnected = reconnected
        self.connected = asyncio.Event()

    @property
    def backlog(self) -> asyncio.Event:
        """Set while more waits at the broker than is worked off in a moment; see `Inbox`."""
        return self._inbox.backlog

    async def run(self) -> None:
        """Stay connected until cancelled or left; every failure is waited out, with back-off."""
        retry_s = RETRY_FIRST_S
        while not self._left:
            try:
                lost = await self._connect()
                retry_s = RETRY_FIRST_S
                await lost.wait()
                if self._left:
                    return
                log.warning("broker_lost", client_id=self.client_id)
            except (OSError, TimeoutError, ConnectionError, DomainError) as error:
                log.warning("broker_unreachable", reason=str(error), retry_s=retry_s)
            finally:
                self._forget()
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, RETRY_LAST_S)

    async def take(self, most: int, linger_s: float) -> list[Delivery]:
        """Wait for at least one message, linger a little, and take up to `most`."""
        return await self._inbox.take(most, linger_s)

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Tell the broker that these are committed; those of a lost connection come again."""
        self._inbox.acknowledged(deliveries)
        for connection, of_one in groupby(deliveries, key=lambda delivery: delivery.connection):
            ids = [each.packet_id for each in of_one if each.packet_id is not None]
            if ids:
                connection.acknowledge(ids)
        self._ask_what_is_held()

    def _ask_what_is_held(self) -> None:
        """Find out, unless we know, whether the broker holds anything back."""
        if self._inbox.prompt or self._connection is None:
            return
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._nothing_held(self._connection))

    async def _nothing_held(self, connection: "_Connection") -> None:
        """A broker that left room in the window, and was given none meanwhile, has nothing more:
        before it answers it has sent what it could. On a line that is never quiet nothing else
        shows it.
        """
        before = None
        while before != self._inbox.acknowledgements:
            before = self._inbox.acknowledgements
            if not await connection.answered() or connection is not self._connection:
                return
        if self._inbox.room:
            self._inbox.nothing_held()

    async def join(self) -> None:
        """Take a share from now on."""
        self._wanted = True
        while True:
            await self.connected.wait()
            if self._connection is not None and await self._connection.subscribe():
                return
            await asyncio.sleep(POLL_S)

    async def leave(self) -> None:
        """Give up the share for good: nothing new, what the session still holds, then its end.

        The loop must go on taking and acknowledging meanwhile. Cancelled on the way, the session
        stays with what it holds, and its subscription is gone: leave again under the same name.
        """
        self._wanted = False
        if self._connection is not None:
            self._connection.unsubscribe()
        while not self._left:
            await self.connected.wait()
            connection = self._connection
            if connection is None or not await connection.unsubscribed():
                await asyncio.sleep(POLL_S)
                continue
            await self._inbox.until_idle()
            received = self._inbox.received
            # The broker answers in order: what it held for us it has sent before this answer.
            if not await connection.answered() or connection is not self._connection:
                continue
            if self._inbox.idle and self._inbox.received == received:
                self.end()
        log.info("session_emptied", client_id=self.client_id)

    def end(self) -> None:
        """End the session, and `run`: what it holds is thrown away."""
        self._left = True
        if self._connection is not None:
            self._connection.write(mqtt5.DisconnectPacket(session_expiry_interval=0).write())
            self._connection.close()

    def brought(self, delivery: Delivery) -> bool:
        """Whether it came over the connection that there is now: else it comes again."""
        return delivery.connection is self._connection

    async def close(self) -> None:
        """Say goodbye so that the session stays and the will (none) is not sent."""
        if self._connection is not None and not self._left:
            self._connection.write(mqtt5.DisconnectPacket().write())
            self._connection.close()
        self._forget()

    async def _connect(self) -> asyncio.Event:
        loop = asyncio.get_running_loop()
        address = next(self._nodes)
        tls = address.tls
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, connection = await loop.create_connection(
                lambda: _Connection(self),
                address.host,
                address.port,
                ssl=tls.context() if tls else None,
            )
            connection.write(self._connect_packet(address).write())
            await connection.admitted
        self._connection = connection
        self._inbox.open(connection)
        self._ask_what_is_held()
        self.connected.set()
        if self._wanted is False:
            connection.unsubscribe()
        log.info("broker_connected", client_id=self.client_id, filter=", ".join(self._filters))
        return connection.lost

    def _connect_packet(self, address: BrokerAddress) -> mqtt5.ConnectPacket:
        password = address.password
        return mqtt5.ConnectPacket(
            self.client_id,
            username=address.username,
            password=password.encode() if password is not None else None,
            clean_start=False,
            keep_alive=KEEP_ALIVE_S,
            session_expiry_interval=self._session_expiry_s,
            receive_max=RECEIVE_MAX,
            max_packet_size=MAX_PACKET_BYTES,
        )

    def admitted(self, *, session_present: bool) -> bool:
        """The broker lets us in. Whether to subscribe: on every connection, which is harmless, and
        a broker that forgot us learns it.
        """
        if self.session_present is None:
            self.session_present = session_present
        elif self._reconnected is not None:
            self._reconnected.set()
        return self._wanted is True

    def subscribe_packet(self) -> bytes:
        wanted = [
            mqtt5.TopicFilter(each, max_qos=mqtt5.QoS.AT_LEAST_ONCE) for each in self._filters
        ]
        return mqtt5.SubscribePacket(SUBSCRIBE_ID, wanted).write()

    def unsubscribe_packet(self) -> bytes:
        return mqtt5.UnsubscribePacket(UNSUBSCRIBE_ID, self._filters).write()

    def arrived(self, packet: mqtt5.PublishPacket, connection: "_Connection") -> None:
        """Called by the connection for each PUBLISH."""
        inbox = self._inbox
        if packet.packet_id is None and inbox.full:
            return
        inbox.add(
            Delivery(
                packet.topic,
                packet.payload,
                packet.content_type,
                packet.packet_id,
                time.monotonic_ns(),
                connection,
                inbox.prompt and (self._shared or not packet.retain),
                packet.retain,
            )
        )

    def _forget(self) -> None:
        self._connection = None
        if self._asking is not None:
            self._asking.cancel()
        self._inbox.forget()
        self.connected.clear()


class _Connection(asyncio.Protocol):
    """One TCP connection: bytes to packets, keep-alive, and the two answers that start it."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._heard = 0.0
        self._pinging: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        # Subscribed, or connected where there is nothing to subscribe to.
        self.admitted: asyncio.Future[None] = loop.create_future()
        self._subscribed: asyncio.Future[None] | None = None
        self._unsubscribed: asyncio.Future[None] | None = None
        self._answers: list[asyncio.Future[None]] = []
        self.lost = asyncio.Event()

    def write(self, data: bytes) -> None:
        if self._transport is not None and data and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def acknowledge(self, ids: Sequence[int]) -> None:
        """One write for all of them, in the order given."""
        self.write(b"".join(mqtt5.PubAckPacket(each).write() for each in ids))

    async def subscribe(self) -> bool:
        """Ask for it, once, and wait for the broker's word; False: the connection was lost."""
        if self._subscribed is None:
            self._subscribed = asyncio.get_running_loop().create_future()
            self.write(self._receiver.subscribe_packet())
        return await self._comes(self._subscribed)

    def unsubscribe(self) -> None:
        if self._unsubscribed is None:
            self._unsubscribed = asyncio.get_running_loop().create_future()
            self.write(self._receiver.unsubscribe_packet())

    async def unsubscribed(self) -> bool:
        """Wait for the broker's word; False: the connection was lost before it."""
        return self._unsubscribed is not None and await self._comes(self._unsubscribed)

    async def answered(self) -> bool:
        """Wait until the broker has read all that we sent so far; False: lost before that."""
        return await self._comes(self._ask())

    def _ask(self) -> asyncio.Future[None]:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self.write(mqtt5.PingReqPacket().write())
        return answer

    async def _comes(self, answer: asyncio.Future[None]) -> bool:
        lost = asyncio.ensure_future(self.lost.wait())
        either: set[asyncio.Future[Any]] = {answer, lost}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        lost.cancel()
        return answer.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._heard = time.monotonic()
        self._pinging = asyncio.create_task(self._ping(), name="mqtt-keep-alive")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pinging is not None:
            self._pinging.cancel()
        if not self.admitted.done():
            self.admitted.set_exception(
                ConnectionError(f"the broker closed the connection: {exc or 'no reason given'}")
            )
        self.lost.set()

    def data_received(self, data: bytes) -> None:
        self._heard = time.monotonic()
        buffer = self._buffer
        buffer += data
        try:
            used = self._read_packets(memoryview(bytes(buffer)))
        except ValueError:
            log.exception("broker_malformed")
            self.close()
            return
        del buffer[:used]

    def _read_packets(self, view: memoryview) -> int:
        used, size = 0, len(view)
        while used < size:
            try:
                packet, length = mqtt5.read(view[used:])
            except IndexError:  # the rest of the packet is still on its way
                break
            used += length
            if type(packet) is mqtt5.PublishPacket:
                self._receiver.arrived(packet, self)
            else:
                self._answer(packet)
        return used

    def _answer(self, packet: mqtt5.Packet) -> None:
        if isinstance(packet, mqtt5.ConnAckPacket):
            if packet.reason_code != mqtt5.ConnAckReasonCode.SUCCESS:
                self._refuse(f"the broker refuses the connection: {packet.reason_code.name}")
                return
            if self._receiver.admitted(session_present=packet.session_present):
                self._subscribed = self.admitted
                self.write(self._receiver.subscribe_packet())
            elif not self.admitted.done():
                self.admitted.set_result(None)
        elif isinstance(packet, mqtt5.SubAckPacket):
            refused = [code for code in packet.reason_codes if code not in GRANTED]
            if refused:
                self._refuse(f"the broker refuses the subscription: {refused[0].name}")
            elif self._subscribed is not None and not self._subscribed.done():
                self._subscribed.set_result(None)
        elif isinstance(packet, mqtt5.UnsubAckPacket):
            if self._unsubscribed is not None and not self._unsubscribed.done():
                self._unsubscribed.set_result(None)
        elif isinstance(packet, mqtt5.PingRespPacket):
            self._answer_of_ping()
        elif isinstance(packet, mqtt5.DisconnectPacket):
            log.warning("broker_disconnects", reason=packet.reason_code.name)
            self.close()

    def _answer_of_ping(self) -> None:
        # In the order in which they were asked.
        if self._answers:
            answer = self._answers.pop(0)
            if not answer.done():
                answer.set_result(None)

    def _refuse(self, reason: str) -> None:
        if not self.admitted.done():
            self.admitted.set_exception(ConnectionError(reason))
        self.close()

    async def _ping(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(KEEP_ALIVE_S / 2)
                if time.monotonic() - self._heard > KEEP_ALIVE_S * 1.5:
                    log.warning("broker_silent", after_s=KEEP_ALIVE_S * 1.5)
                    if self._transport is not None:
                        self._transport.abort()
                    return
                self._ask()
