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
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import cast
from urllib.parse import unquote, urlsplit

import mqtt5
import structlog

from meter_gateway.tls import TlsFiles
from schemas.errors import DomainError

log = structlog.get_logger()

# The window: twice the largest batch, so that the next batch fills while one commits; larger
# windows gained nothing in the trial of docs/adr/0002.
RECEIVE_MAX = 8000
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
# A broker that has nothing to hand out for this long, while nothing is unacknowledged, holds
# nothing back: what it sends from then on was said just now.
QUIET_S = 0.05
# A gateway's batch is at most 64 KiB (mqtt.md section 2); what is larger is refused by reading it.
MAX_PACKET_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """`mqtt://user:password@host:port`, or `mqtts://` for TLS; `tls` is None without it."""

    host: str
    port: int
    tls: TlsFiles | None
    username: str | None
    password: str | None = field(repr=False)

    @classmethod
    def parse(cls, url: str, files: TlsFiles | None = None) -> "BrokerAddress":
        """Raises ValueError, which does not repeat the URL: it holds a password."""
        parts = urlsplit(url)
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname:
            raise ValueError("the broker's URL is mqtt://host:port or mqtts://host:port")
        tls = parts.scheme == "mqtts"
        return cls(
            host=parts.hostname,
            port=parts.port or (8883 if tls else 1883),
            tls=(files or TlsFiles()) if tls else None,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
        )


@dataclass(slots=True, eq=False)
class Delivery:
    """One message as received. Only the connection that brought it can acknowledge it.

    `prompt`: the broker is known not to have held it back.
    """

    topic: str
    payload: bytes
    content_type: str | None
    packet_id: int | None
    received_ns: int
    connection: "_Connection"
    prompt: bool = False
    # The broker kept it: it may be of any age.
    retained: bool = False


class Receiver:
    """One worker's subscription: `run` keeps it, `take` and `acknowledge` serve a loop."""

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        topic_filter: str | Sequence[str],
        session_expiry_s: int = SESSION_EXPIRY_S,
    ) -> None:
        self._address = address
        self._client_id = client_id
        self._filters = [topic_filter] if isinstance(topic_filter, str) else list(topic_filter)
        self._session_expiry_s = session_expiry_s
        self._pending: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._connection: _Connection | None = None
        # Until the broker was seen with nothing to hand out it may be working off a backlog.
        self._prompt = False
        self._unacknowledged = 0
        self.connected = asyncio.Event()

    async def run(self) -> None:
        """Stay connected until cancelled; every failure is waited out, with back-off."""
        retry_s = RETRY_FIRST_S
        while True:
            try:
                lost = await self._connect()
                retry_s = RETRY_FIRST_S
                await lost.wait()
                log.warning("broker_lost", client_id=self._client_id)
            except (OSError, TimeoutError, ConnectionError, DomainError) as error:
                log.warning("broker_unreachable", reason=str(error), retry_s=retry_s)
            finally:
                self._forget()
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, RETRY_LAST_S)

    async def take(self, most: int, linger_s: float) -> list[Delivery]:
        """Wait for at least one message, linger a little, and take up to `most`."""
        while not self._pending:
            self._arrived.clear()
            await self._wait()
        if linger_s and len(self._pending) < most:
            await asyncio.sleep(linger_s)
        taken: list[Delivery] = []
        while self._pending and len(taken) < most:
            taken.append(self._pending.popleft())
        return taken

    async def _wait(self) -> None:
        """Until something arrives; quiet for a while, the broker holds nothing back."""
        while not self._prompt:
            try:
                await asyncio.wait_for(self._arrived.wait(), QUIET_S)
            except TimeoutError:
                self._prompt = self._connection is not None and self._unacknowledged == 0
            else:
                return
        await self._arrived.wait()

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Tell the broker that these are committed; those of a lost connection come again."""
        self._unacknowledged -= sum(
            each.connection is self._connection and each.packet_id is not None
            for each in deliveries
        )
        for connection, of_one in groupby(deliveries, key=lambda delivery: delivery.connection):
            connection.write(
                b"".join(
                    mqtt5.PubAckPacket(delivery.packet_id).write()
                    for delivery in of_one
                    if delivery.packet_id is not None
                )
            )

    async def close(self) -> None:
        """Say goodbye so that the session stays and the will (none) is not sent."""
        if self._connection is not None:
            self._connection.write(mqtt5.DisconnectPacket().write())
            self._connection.close()
        self._forget()

    async def _connect(self) -> asyncio.Event:
        loop = asyncio.get_running_loop()
        tls = self._address.tls
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, connection = await loop.create_connection(
                lambda: _Connection(self),
                self._address.host,
                self._address.port,
                ssl=tls.context() if tls else None,
            )
            connection.write(self._connect_packet().write())
            await connection.subscribed
        self._connection = connection
        self.connected.set()
        log.info("broker_connected", client_id=self._client_id, filter=", ".join(self._filters))
        return connection.lost

    def _connect_packet(self) -> mqtt5.ConnectPacket:
        password = self._address.password
        return mqtt5.ConnectPacket(
            self._client_id,
            username=self._address.username,
            password=password.encode() if password is not None else None,
            clean_start=False,
            keep_alive=KEEP_ALIVE_S,
            session_expiry_interval=self._session_expiry_s,
            receive_max=RECEIVE_MAX,
            max_packet_size=MAX_PACKET_BYTES,
        )

    def subscribe_packet(self) -> bytes:
        """Asked again on every connection: harmless, and a broker that forgot us learns it."""
        wanted = [
            mqtt5.TopicFilter(each, max_qos=mqtt5.QoS.AT_LEAST_ONCE) for each in self._filters
        ]
        return mqtt5.SubscribePacket(1, wanted).write()

    def arrived(self, packet: mqtt5.PublishPacket, connection: "_Connection") -> None:
        """Called by the connection for each PUBLISH."""
        if packet.packet_id is None and len(self._pending) >= RECEIVE_MAX:
            return
        self._pending.append(
            Delivery(
                packet.topic,
                packet.payload,
                packet.content_type,
                packet.packet_id,
                time.monotonic_ns(),
                connection,
                self._prompt and not packet.retain,
                packet.retain,
            )
        )
        if packet.packet_id is not None:
            self._unacknowledged += 1
            if self._unacknowledged >= RECEIVE_MAX:
                self._prompt = False
        if not self._arrived.is_set():
            self._arrived.set()

    def _forget(self) -> None:
        self._connection = None
        self._prompt, self._unacknowledged = False, 0
        self.connected.clear()
        self._pending.clear()


class _Connection(asyncio.Protocol):
    """One TCP connection: bytes to packets, keep-alive, and the two answers that start it."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._heard = 0.0
        self._pinging: asyncio.Task[None] | None = None
        self.subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = asyncio.Event()

    def write(self, data: bytes) -> None:
        if self._transport is not None and data and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._heard = time.monotonic()
        self._pinging = asyncio.create_task(self._ping(), name="mqtt-keep-alive")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pinging is not None:
            self._pinging.cancel()
        if not self.subscribed.done():
            self.subscribed.set_exception(
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
            self.write(self._receiver.subscribe_packet())
        elif isinstance(packet, mqtt5.SubAckPacket):
            refused = [code for code in packet.reason_codes if code not in GRANTED]
            if refused:
                self._refuse(f"the broker refuses the subscription: {refused[0].name}")
            elif not self.subscribed.done():
                self.subscribed.set_result(None)
        elif isinstance(packet, mqtt5.DisconnectPacket):
            log.warning("broker_disconnects", reason=packet.reason_code.name)
            self.close()

    def _refuse(self, reason: str) -> None:
        if not self.subscribed.done():
            self.subscribed.set_exception(ConnectionError(reason))
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
                self.write(mqtt5.PingReqPacket().write())
