"""The sending side: outbox -> broker, and the answers that ingest asks for.

- Source: queued command rows, oldest first, one per meter at a time; woken by the database's
  notification, or every second. Behind a gateway at its pace.
- Bound: `AT_ONCE` commands in the air; `ANSWERS_MAX` receipts and time answers waiting.
- When full: answers are dropped (a meter asks again); commands wait in the database.
- Delivery: a command is claimed, published, and marked sent after the broker's PUBACK; a crash in
  between sends it again under the same counter once the claim lapses, and the meter answers a
  repeat with its stored result.
- On stop: what is in the air is finished; the rest stays queued.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import aiomqtt
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from meter_gateway.checked_client import CheckedClient
from meter_gateway.receiver import BrokerAddress
from meter_gateway.spans import counting, gateway_tracer
from schemas.commands import Command, gateway_receipts, payload, receipt
from schemas.errors import DomainError
from schemas.signing import SigningKey
from schemas.topics import Side, Topic, build
from store.answers import BatchAnswer, Receipt
from store.errors import Unavailable
from store.outbox import CLAIM_MS, USUAL_PACING, Pacing, claim, release_claims
from store.session import Session, wait_for_command
from store.supply import mark_sent

log = structlog.get_logger()

# The client warns of every publication beyond ten in the air; `AT_ONCE` are meant.
_QUIET = logging.getLogger("prepaid.dispatch.mqtt")
_QUIET.setLevel(logging.ERROR)
AT_ONCE = 200
ANSWERS_MAX = 20_000
POLL_S = 1.0
# A pace faster than this is kept by several commands a round.
POLL_LEAST_S = 0.05
RETRY_S = 1.0


class Dispatcher:
    """One connection that publishes; any number of them share the outbox."""

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        session: Session,
        now_ms: Callable[[], int],
        speed: int,
        signing_key: SigningKey | None = None,
        pacing: Pacing = USUAL_PACING,
    ) -> None:
        self._nodes = address.nodes()
        self._client_id = client_id
        self._session = session
        self._now_ms = now_ms
        self._speed = speed
        self._signing_key = signing_key
        self._pacing = pacing
        self._tracer = gateway_tracer()
        self._claimed: list[str] = []
        self._answers: asyncio.Queue[tuple[str, bytes, int]] = asyncio.Queue(ANSWERS_MAX)

    # --- what ingest asks for ---------------------------------------------------------------

    def receipts(self, receipts: Sequence[Receipt], answers: Sequence[BatchAnswer]) -> None:
        """Tell meters up to where their rows are committed, one message per boot; and gateways
        what became of each of their batches.
        """
        meters: dict[tuple[str, int], int] = {}
        for meter, boot, seq in receipts:
            meters[meter, boot] = max(seq, meters.get((meter, boot), 0))
        for (meter, boot), seq in meters.items():
            self._say("m", meter, receipt(boot, seq))
        for each in answers:
            kept = [(meter, boot, seq) for (meter, boot), seq in each.kept.items()]
            for content in gateway_receipts(each.batch_id, kept, each.refused):
                self._say("g", each.gateway, content)

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
                    publishing_client(next(self._nodes), self._client_id) as client,
                    asyncio.TaskGroup() as tasks,
                ):
                    beside = [
                        tasks.create_task(self._send_answers(client)),
                        tasks.create_task(_until_lost(client)),
                    ]
                    tasks.create_task(self._send_commands(client, stopping, beside))
            except* (aiomqtt.MqttError, DomainError) as group:
                log.warning("dispatch_lost_broker", reason=str(group.exceptions[0]))
                await asyncio.sleep(RETRY_S)

    async def _send_answers(self, client: CheckedClient) -> None:
        while True:
            topic, content, qos = await self._answers.get()
            await client.publish(topic, content, qos=qos)

    async def _send_commands(
        self,
        client: CheckedClient,
        stopping: asyncio.Event,
        beside: Iterable[asyncio.Task[None]],
    ) -> None:
        poll_s = min(POLL_S, max(self._pacing.spacing_ms / 1000 / self._speed, POLL_LEAST_S))
        while not stopping.is_set():
            try:
                if self._claimed:
                    # The connection was lost with these in the air.
                    await self._session.run(partial(release_claims, ids=self._claimed))
                    self._claimed = []
                if not await self._send_round(client):
                    await self._session.run(partial(wait_for_command, timeout_s=poll_s))
            except Unavailable as error:
                log.warning("database_away", reason=str(error))
                await asyncio.sleep(RETRY_S)
        for task in beside:
            task.cancel()

    async def _send_round(self, client: CheckedClient) -> int:
        """Claim, publish and mark sent; returns how many commands went."""
        rows = await self._session.run(
            partial(
                claim,
                now_ms=self._now_ms(),
                limit=AT_ONCE,
                pacing=self._pacing,
                # The broker counts an expiry in whole seconds, and would take zero for none.
                least_life_ms=1000 * self._speed,
                claim_ms=CLAIM_MS * self._speed,
            )
        )
        if rows:
            self._claimed = ids = [each.command.cmd for each in rows]
            with counting(self._tracer, "dispatch.send") as span:
                span.set_attribute("prepaid.commands", len(ids))
                await asyncio.gather(*(self._publish(client, *row) for row in rows))
                client.raise_refused()
                await self._session.run(partial(mark_sent, ids=ids, now_ms=self._now_ms()))
                self._claimed = []
                log.info("commands_sent", count=len(ids))
        return len(rows)

    async def _publish(
        self, client: CheckedClient, meter: str, gateway: str | None, command: Command
    ) -> None:
        left_s = max((command.expires_ms - self._now_ms()) // 1000 // self._speed, 1)
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho has no types
        properties.MessageExpiryInterval = left_s
        topic = Topic("g", gateway, "dn", "cmd") if gateway else Topic("m", meter, "dn", "cmd")
        key = self._signing_key
        content = payload(*key.sign_command(command, meter)) if key else payload(command)
        await client.publish(build(topic), content, qos=1, properties=properties)


def publishing_client(address: BrokerAddress, client_id: str) -> CheckedClient:
    """A connection of ours that only publishes."""
    tls = address.tls
    return CheckedClient(
        address.host,
        address.port,
        username=address.username,
        password=address.password,
        identifier=client_id,
        protocol=aiomqtt.ProtocolVersion.V5,
        tls_context=tls.context() if tls else None,
        max_queued_outgoing_messages=0,
        max_inflight_messages=AT_ONCE,
        logger=_QUIET,
    )


async def _until_lost(client: CheckedClient) -> None:
    """Nothing is subscribed to: this ends as the connection does, where a publication in the air
    would notice only at its timeout.
    """
    async for _ in client.messages:
        pass
