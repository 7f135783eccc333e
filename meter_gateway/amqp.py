"""A second source of messages: a replicated queue of RabbitMQ, for a broker of several nodes.

Devices speak MQTT to any node; the broker routes what they say to one quorum queue, whose messages
are on most nodes' disks before a device has its PUBACK. Workers take from that queue by AMQP.

- Source: one quorum queue for all workers of a group, declared and bound here.
- Bound: the prefetch, at most `RECEIVE_MAX` unacknowledged messages; the queue keeps the rest.
- When full: the broker sends nothing.
- Delivery: at least once; acknowledged after the commit, a whole batch in one frame.
- Order: none is relied on. A worker that dies leaves nothing: its share goes back to the queue.
- Lost on the way (docs/broker.md): a message's retain flag, and old time requests on purpose.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import cycle, groupby
from typing import Any
from urllib.parse import unquote, urlsplit

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError
from aiormq.abc import DeliveredMessage

from meter_gateway.inbox import RECEIVE_MAX, Delivery, Inbox
from meter_gateway.receiver import parse_hosts
from meter_gateway.tls import TlsFiles
from schemas.errors import DomainError
from schemas.topics import QOS_0, UP_FILTER

log = structlog.get_logger()

# Where RabbitMQ's MQTT plugin publishes to, unless its configuration says otherwise.
EXCHANGE = "amq.topic"
CONNECT_TIMEOUT_S = 10
# A node that is silent for two of these is given up, and the next one is asked.
HEARTBEAT_S = 10
RETRY_FIRST_S = 0.2
RETRY_LAST_S = 5.0
CLOSE_TIMEOUT_S = 5.0
# RabbitMQ 4 throws a message away that came back 20 times. Ours come back with every worker that
# dies, and are never to be thrown away.
QUEUE_ARGUMENTS: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": -1}


def to_routing_key(topic: str) -> str:
    """As RabbitMQ's MQTT plugin writes a topic, or a filter of one."""
    return topic.replace("/", ".").replace("+", "*")


def to_topic(routing_key: str) -> str:
    """The topic of the contract that a routing key stands for.

    Exact for every topic of the contract, since no level of those holds a dot. Another topic that
    holds one is read as if the dot were a slash; the broker judges rights in the same way.
    """
    return routing_key.replace(".", "/")


@dataclass(frozen=True, slots=True)
class AmqpAddress:
    """`amqp://user:password@host:port,host:port/vhost`, or `amqps://` for TLS; every node."""

    hosts: tuple[tuple[str, int], ...]
    tls: TlsFiles | None
    username: str
    password: str = field(repr=False)
    virtual_host: str = "/"

    @classmethod
    def parse(cls, url: str, files: TlsFiles | None = None) -> "AmqpAddress":
        """Raises ValueError, which does not repeat the URL: it holds a password."""
        parts = urlsplit(url)
        who, _, where = parts.netloc.rpartition("@")
        if parts.scheme not in {"amqp", "amqps"} or not where:
            raise ValueError("the broker's URL is amqp://user:password@host:port,host:port")
        tls = parts.scheme == "amqps"
        username, _, password = who.partition(":")
        return cls(
            hosts=tuple(parse_hosts(where, 5671 if tls else 5672)),
            tls=(files or TlsFiles()) if tls else None,
            username=unquote(username) or "guest",
            password=unquote(password) or "guest",
            virtual_host=unquote(parts.path.removeprefix("/")) or "/",
        )


class AmqpReceiver:
    """One worker's consumer: `run` keeps it, `take` and `acknowledge` serve a loop."""

    def __init__(self, address: AmqpAddress, worker: str, queue: str) -> None:
        """`worker` names the connection for whoever looks at the broker."""
        self._address = address
        self._worker = worker
        self._queue = queue
        self._inbox = Inbox()
        self._connection: _Connection | None = None
        self.connected = asyncio.Event()
        self.behind = None

    async def run(self) -> None:
        """Stay connected until cancelled, to whichever node answers; with back-off."""
        retry_s = RETRY_FIRST_S
        for host, port in cycle(self._address.hosts):
            try:
                async with self._consuming(host, port) as connection:
                    retry_s = RETRY_FIRST_S
                    await connection.lost.wait()
                log.warning("broker_lost", worker=self._worker, node=f"{host}:{port}")
            # RuntimeError is what the client raises for a channel that closed under it.
            except (OSError, TimeoutError, AMQPError, DomainError, RuntimeError) as error:
                reason = str(error) or type(error).__name__
                log.warning("broker_unreachable", node=f"{host}:{port}", reason=reason)
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
            connection.acknowledge(
                [each.packet_id for each in of_one if each.packet_id is not None]
            )

    async def leave(self) -> None:
        """A worker has no share of its own: what it does not take is everybody's."""

    async def close(self) -> None:
        """Send what was acknowledged; the queue keeps the rest for others."""
        if self._connection is not None:
            await self._connection.close()
        self._forget()

    @contextlib.asynccontextmanager
    async def _consuming(self, host: str, port: int) -> AsyncIterator["_Connection"]:
        tls = self._address.tls
        opened: AbstractConnection = await aio_pika.connect(
            host=host,
            port=port,
            login=self._address.username,
            password=self._address.password,
            virtualhost=self._address.virtual_host,
            ssl=tls is not None,
            ssl_context=tls.context() if tls else None,
            timeout=CONNECT_TIMEOUT_S,
            client_properties={"connection_name": self._worker},
            heartbeat=HEARTBEAT_S,
        )
        try:
            connection = await self._consume(opened)
            self._connection = connection
            self._inbox.open(connection)
            self.connected.set()
            log.info("broker_connected", worker=self._worker, queue=self._queue, node=host)
            yield connection
        finally:
            with contextlib.suppress(TimeoutError, OSError, AMQPError, RuntimeError):
                await asyncio.wait_for(opened.close(), CLOSE_TIMEOUT_S)

    async def _consume(self, opened: AbstractConnection) -> "_Connection":
        channel = await opened.channel(publisher_confirms=False)
        connection = _Connection(opened, channel)
        await channel.set_qos(prefetch_count=RECEIVE_MAX)
        # Asked again on every connection: harmless, and a broker that forgot us learns it.
        queue = await channel.declare_queue(self._queue, durable=True, arguments=QUEUE_ARGUMENTS)
        await queue.bind(EXCHANGE, to_routing_key(UP_FILTER))
        opened.close_callbacks.add(connection.ended)
        channel.close_callbacks.add(connection.ended)
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(connection.cancelled)

        async def arrived(message: DeliveredMessage) -> None:
            self._arrived(message, connection)

        # Not by the queue's own `consume`, which makes an object with thirty attributes of each.
        await underlay.basic_consume(self._queue, arrived)
        return connection

    def _arrived(self, message: DeliveredMessage, connection: "_Connection") -> None:
        inbox = self._inbox
        assert message.delivery_tag is not None, "only what is consumed without acknowledgement"
        prompt = inbox.prompt and not message.redelivered
        topic = to_topic(message.routing_key or "")
        if topic.rpartition("/")[2] in QOS_0 and not prompt:
            # A time request, which a broker of MQTT would have dropped: an old answer is worse
            # than none.
            connection.acknowledge([message.delivery_tag])
            return
        inbox.add(
            Delivery(
                topic,
                message.body,
                message.header.properties.content_type,
                message.delivery_tag,
                time.monotonic_ns(),
                connection,
                prompt,
            )
        )

    def _forget(self) -> None:
        self._connection = None
        self._inbox.forget()
        self.connected.clear()


class _Connection:
    """One connection with its one channel, whose delivery tags count from 1 without a gap."""

    def __init__(self, opened: AbstractConnection, channel: AbstractChannel) -> None:
        self._opened = opened
        self._channel = channel
        # Every tag up to here is acknowledged, and of later ones these.
        self._up_to = 0
        self._beyond: set[int] = set()
        self._sending: set[asyncio.Task[None]] = set()
        self.lost = asyncio.Event()

    def acknowledge(self, ids: Sequence[int]) -> None:
        """One frame for all of them where they are the next ones, which a batch nearly always is.

        "This one and all before it" is said only when all before it are acknowledged too: what was
        not committed is never among them.
        """
        if self.lost.is_set() or not ids:
            return
        self._beyond.update(ids)
        reached = self._up_to
        while reached + 1 in self._beyond:
            reached += 1
            self._beyond.discard(reached)
        self._up_to = reached
        # Named must be one that the broker still waits for: not one that was acknowledged before.
        last = max((tag for tag in ids if tag <= reached), default=None)
        if last is not None:
            self._send(self._ack(last, multiple=True))
        for tag in ids:
            if tag > reached:
                self._send(self._ack(tag, multiple=False))

    def ended(self, *_: Any) -> None:
        self.lost.set()

    async def cancelled(self, *_: Any) -> None:
        """The broker took the queue away."""
        self.lost.set()

    async def close(self) -> None:
        if self._sending:
            await asyncio.wait(self._sending, timeout=CLOSE_TIMEOUT_S)
        self.lost.set()

    def _send(self, frame: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(frame)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _ack(self, tag: int, *, multiple: bool) -> None:
        try:
            channel = await self._channel.get_underlay_channel()
            await channel.basic_ack(tag, multiple=multiple)
        except (OSError, AMQPError, RuntimeError):
            # The connection is gone, and with it what it was about: it comes again.
            self.lost.set()
