"""The enrolment loop: a meter's request under a claim certificate -> the authority -> its answer.

- Source: `pm/v1/e/+/csr`, published by claims, which can do nothing else at the broker.
- Bound: one request at a time, `WAITING_MAX` behind it; what is more, is dropped.
- Delivery: at most once from the broker; a meter that hears nothing asks again, and a repeat gets
  the same certificate.
- Refusals are answered with their code, counted in the database by meter and reason, never signed.
- On stop: the request at hand is answered.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import aiomqtt
import structlog
from pydantic import TypeAdapter, ValidationError

from meter_gateway.checked_client import CheckedClient
from meter_gateway.receiver import BrokerAddress
from schemas import wire
from schemas.commands import encode
from schemas.errors import DomainError
from schemas.topics import ENROLMENT_FILTER, claim_of, enrolment_topics
from store import trust
from store.errors import Unavailable
from store.pool import Connection
from store.session import Session

log = structlog.get_logger()

WAITING_MAX = 1000
RETRY_S = 1.0
# A request with a P-256 key is under 1 KiB.
REQUEST_BYTES = 8 * 1024

_REQUEST: TypeAdapter[wire.EnrolmentRequest] = TypeAdapter(wire.EnrolmentRequest)

# (connection, request as PEM, meter, claim, now_ms) -> certificate and authority, as PEM.
# Raises DomainError where there is to be none.
Enrol = Callable[[Connection, str, str, str, int], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Enrolment:
    """The desk at which meters ask for their certificates. `now_ms` is the wall's clock, as TLS
    knows no other.
    """

    address: BrokerAddress
    client_id: str
    session: Session
    enrol: Enrol
    now_ms: Callable[[], int]

    async def run(
        self, stopping: asyncio.Event, on_ready: Callable[[], None] = lambda: None
    ) -> None:
        """Stay connected and answer, until `stopping`."""
        while not stopping.is_set():
            try:
                await self._serve(stopping, on_ready)
            except aiomqtt.MqttError as error:
                log.warning("enrolment_lost_broker", reason=str(error))
                await asyncio.sleep(RETRY_S)

    async def _serve(self, stopping: asyncio.Event, on_ready: Callable[[], None]) -> None:
        tls = self.address.tls
        async with CheckedClient(
            self.address.host,
            self.address.port,
            username=self.address.username,
            password=self.address.password,
            identifier=self.client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            max_queued_incoming_messages=WAITING_MAX,
            tls_context=tls.context() if tls else None,
        ) as client:
            await client.subscribe(ENROLMENT_FILTER, qos=1)
            on_ready()
            answering = asyncio.create_task(self._answer_all(client))
            stop = asyncio.create_task(stopping.wait())
            try:
                await asyncio.wait({answering, stop}, return_when=asyncio.FIRST_COMPLETED)
                if answering.done():
                    answering.result()
            finally:
                for task in (answering, stop):
                    task.cancel()
                await asyncio.gather(answering, stop, return_exceptions=True)

    async def _answer_all(self, client: CheckedClient) -> None:
        async for message in client.messages:
            data = message.payload if isinstance(message.payload, bytes) else b""
            answered = await self._answer(message.topic.value, data)
            if answered is not None:
                topic, content = answered
                await client.publish(topic, content, qos=1)
                client.raise_refused()

    async def _answer(self, topic: str, data: bytes) -> tuple[str, bytes] | None:
        """Where the answer goes and what it is; None where nobody could be told."""
        claim, meter = "", ""
        try:
            claim = claim_of(topic)
            request = _read(data)
            meter = request["meter"]
            certificate, ca = await self.session.run(
                lambda conn: self.enrol(conn, request["csr"], meter, claim, self.now_ms())
            )
        except Unavailable as error:
            log.warning("database_away", reason=str(error))
            return None  # the meter asks again
        except DomainError as error:
            await self._count(meter, error, claim)
            if not meter:
                return None
            form: dict[str, object] = {"v": 1, "meter": meter, "refused": error.code}
        else:
            log.info("meter_enrolled", meter=meter, claim=claim)
            form = {"v": 1, "meter": meter, "certificate": certificate, "ca": ca}
        return enrolment_topics(claim)[1], encode(form)

    async def _count(self, meter: str, error: DomainError, claim: str) -> None:
        log.warning("enrolment_refused", meter=meter, claim=claim, reason=error.code)
        refused = trust.Refused(meter, f"enrolment:{error.code}", 1, f"under {claim}: {error}")
        try:
            await self.session.run(
                lambda conn: trust.count_refusals(conn, [refused], self.now_ms())
            )
        except Unavailable as away:
            log.warning("database_away", reason=str(away))


def _read(data: bytes) -> wire.EnrolmentRequest:
    """Raises DomainError `bad_request`."""
    try:
        if len(data) <= REQUEST_BYTES:
            return _REQUEST.validate_json(data)
    except ValidationError:
        pass
    raise DomainError("bad_request", 'Send {"v":1,"meter":"...","csr":"PEM"}.')
