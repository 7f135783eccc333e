"""The sending side: outbox -> broker, and the answers that ingest asks for.

- Source: queued command rows, oldest first; woken by the database's notification, or every second.
- Bound: `AT_ONCE` commands in the air; `ANSWERS_MAX` receipts and time answers waiting.
- When full: answers are dropped (a meter asks again); commands wait in the database.
- Delivery: a command is marked sent after the broker's PUBACK; a crash in between sends it again
  under the same counter, and the meter answers a repeat with its stored result.
- On stop: what is in the air is finished; the rest stays queued.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial

import aiomqtt
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from meter_gateway.receiver import BrokerAddress
from schemas.commands import Command, gateway_receipt, payload, receipt
from schemas.topics import Side, Topic, build
from store.errors import Unavailable
from store.ingest import Receipt
from store.session import Session, wait_for_command
from store.supply import mark_sent, queued_commands

log = structlog.get_logger()

# The client warns of every publication beyond ten in the air; `AT_ONCE` are meant.
_QUIET = logging.getLogger("prepaid.dispatch.mqtt")
_QUIET.setLevel(logging.ERROR)
AT_ONCE = 200
ANSWERS_MAX = 20_000
POLL_S = 1.0
RETRY_S = 1.0


class Dispatcher:
    """One connection that publishes; several may run, at the price of repeats only."""

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        session: Session,
        now_ms: Callable[[], int],
        speed: int,
    ) -> None:
        self._address = address
        self._client_id = client_id
        self._session = session
        self._now_ms = now_ms
        self._speed = speed
        self._answers: asyncio.Queue[tuple[str, bytes, int]] = asyncio.Queue(ANSWERS_MAX)

    # --- what ingest asks for ---------------------------------------------------------------

    def receipts(self, receipts: Sequence[Receipt]) -> None:
        """Tell devices up to where their rows are committed; one message per device and boot."""
        meters: dict[tuple[str, int], int] = {}
        gateways: dict[str, list[tuple[str, int, int]]] = {}
        for side, device, meter, boot, seq in receipts:
            if side == "g":
                gateways.setdefault(device, []).append((meter, boot, seq))
            else:
                meters[device, boot] = max(seq, meters.get((device, boot), 0))
        for (device, boot), seq in meters.items():
            self._say("m", device, receipt(boot, seq))
        for device, rows in gateways.items():
            self._say("g", device, gateway_receipt(rows))

    def answer(self, topic: str, payload: bytes) -> None:
        """Send one time answer."""
        self._put(topic, payload, 0)

    def _say(self, side: Side, device: str, content: bytes) -> None:
        self._put(build(Topic(side, device, "dn", "receipt")), content, 1)

    def _put(self, topic: str, content: bytes, qos: int) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._answers.put_nowait((topic, content, qos))

    # --- the loop ---------------------------------------------------------------------------

    async def run(self, stopping: asyncio.Event) -> None:
        """Stay connected and send, until `stopping`."""
        while not stopping.is_set():
            try:
                async with (
                    publishing_client(self._address, self._client_id) as client,
                    asyncio.TaskGroup() as tasks,
                ):
                    answering = tasks.create_task(self._send_answers(client))
                    tasks.create_task(self._send_commands(client, stopping, answering))
            except* aiomqtt.MqttError as group:
                log.warning("dispatch_lost_broker", reason=str(group.exceptions[0]))
                await asyncio.sleep(RETRY_S)

    async def _send_answers(self, client: aiomqtt.Client) -> None:
        while True:
            topic, content, qos = await self._answers.get()
            await client.publish(topic, content, qos=qos)

    async def _send_commands(
        self,
        client: aiomqtt.Client,
        stopping: asyncio.Event,
        answering: asyncio.Task[None],
    ) -> None:
        while not stopping.is_set():
            try:
                rows = await self._session.run(partial(queued_commands, limit=AT_ONCE))
                if rows:
                    await asyncio.gather(*(self._publish(client, *row) for row in rows))
                    ids = [command.cmd for _, _, command in rows]
                    now_ms = self._now_ms()
                    await self._session.run(partial(mark_sent, ids=ids, now_ms=now_ms))
                    log.info("commands_sent", count=len(ids))
                else:
                    await self._session.run(partial(wait_for_command, timeout_s=POLL_S))
            except Unavailable as error:
                log.warning("database_away", reason=str(error))
                await asyncio.sleep(RETRY_S)
        answering.cancel()

    async def _publish(
        self, client: aiomqtt.Client, meter: str, gateway: str | None, command: Command
    ) -> None:
        left_s = (command.expires_ms - self._now_ms()) // 1000 // self._speed
        if left_s <= 0:
            return  # the clockwork ends it; the broker would take an expiry of zero for none
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho's
        properties.MessageExpiryInterval = left_s
        topic = Topic("g", gateway, "dn", "cmd") if gateway else Topic("m", meter, "dn", "cmd")
        await client.publish(build(topic), payload(command), qos=1, properties=properties)


def publishing_client(address: BrokerAddress, client_id: str) -> aiomqtt.Client:
    """A connection of ours that only publishes."""
    return aiomqtt.Client(
        address.host,
        address.port,
        username=address.username,
        password=address.password,
        identifier=client_id,
        protocol=aiomqtt.ProtocolVersion.V5,
        tls_params=aiomqtt.TLSParameters() if address.tls else None,
        max_queued_outgoing_messages=0,
        max_inflight_messages=AT_ONCE,
        logger=_QUIET,
    )
