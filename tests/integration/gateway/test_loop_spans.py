"""Spans of the gateway's loops: one for a commit or a round, whatever is in it, and only counts."""

import asyncio
import json
import time
from typing import Any

import psycopg
import pytest
import structlog
from opentelemetry.trace import StatusCode

from meter_gateway.dispatch import Dispatcher
from meter_gateway.inbox import Delivery
from meter_gateway.ingest import IngestLoop
from meter_gateway.metrics import GatewayMetrics
from meter_gateway.receiver import BrokerAddress
from prepaid.logs import name_span
from schemas.quantities import format_instant
from store import registry, supply
from store.errors import Unavailable
from store.session import Session

METER = "37000000017"
HOUR_MS = 3_600_000
PATIENCE_S = 20


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Once:
    """A source whose messages are all there; acknowledging the last one ends the loop."""

    def __init__(self, payloads: list[bytes], stopping: asyncio.Event) -> None:
        topic = f"pm/v1/m/{METER}/up/reading"
        received_ns = time.monotonic_ns()
        self._waiting = [
            Delivery(topic, each, None, place, received_ns, None)  # type: ignore[arg-type]
            for place, each in enumerate(payloads)
        ]
        self._stopping = stopping

    async def take(self, most: int, linger_s: float) -> list[Delivery]:
        if not self._waiting:
            await asyncio.Event().wait()
        taken, self._waiting = self._waiting[:most], self._waiting[most:]
        return taken

    def acknowledge(self, deliveries: Any) -> None:
        if not self._waiting:
            self._stopping.set()


class Silent:
    def receipts(self, receipts: Any, answers: Any) -> None:
        pass

    def answer(self, topic: str, payload: bytes) -> None:
        raise AssertionError("nobody asked for the time")


class Away(Session):
    """A session whose database is away at first."""

    times = 2

    async def run(self, work: Any) -> Any:
        if self.times:
            self.times -= 1
            raise Unavailable(f"no route to the server of {METER}")
        return await super().run(work)


def reading(seq: int, wh: int) -> bytes:
    at = format_instant(now_ms() // 1000 * 1000 - HOUR_MS + seq * 1000)
    return json.dumps({"v": 1, "boot": 1, "seq": seq, "ts": at, "reg": {"1.8.0": wh}}).encode()


async def ingest(session: Session, payloads: list[bytes], batch: int = 100) -> None:
    stopping = asyncio.Event()
    source: Any = Once(payloads, stopping)
    loop = IngestLoop(source, [session], Silent(), now_ms, GatewayMetrics(1), batch)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await loop.run(stopping)
    finally:
        await session.close()


@pytest.fixture
def meter(database_url: str) -> int:
    """A meter without an account: its readings are stored and charge nobody."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        centre = registry.add_centre(conn, "S", "Spans")
        return registry.add_meter(conn, centre, registry.NewMeter(METER))


async def test_a_commit_is_one_span_with_the_counts_of_its_batch(
    recorded_spans: Any, database_url: str, meter: int
) -> None:
    first, second = reading(1, 1000), reading(2, 1010)
    await ingest(Session(database_url, "test"), [first, second, first, b"rubbish", second], 4)
    full, rest = recorded_spans.get_finished_spans()
    assert (full.name, rest.name) == ("ingest.commit", "ingest.commit")
    with psycopg.connect(database_url) as conn:
        row = conn.execute("SELECT count(*) FROM reading WHERE verdict = 'accepted'").fetchone()
        assert row is not None
    assert dict(full.attributes) == {
        "prepaid.messages": 4,
        "prepaid.accepted": row[0],
        "prepaid.duplicate": 1,
        "prepaid.quarantined": 3 - row[0],
        "prepaid.commands": 0,
    }
    assert dict(rest.attributes) == {
        "prepaid.messages": 1,
        "prepaid.accepted": 0,
        "prepaid.duplicate": 1,
        "prepaid.quarantined": 0,
        "prepaid.commands": 0,
    }
    assert {span.status.status_code for span in (full, rest)} == {StatusCode.UNSET}
    assert full.context.trace_id != rest.context.trace_id
    assert METER not in full.to_json() + rest.to_json()


async def test_an_attempt_without_a_database_is_an_event_of_the_commit(
    recorded_spans: Any, database_url: str, meter: int
) -> None:
    with structlog.testing.capture_logs(processors=[name_span]) as lines:
        await ingest(Away(database_url, "test"), [reading(1, 1000)])
    (span,) = recorded_spans.get_finished_spans()
    assert [event.name for event in span.events] == ["database_away", "database_away"]
    assert METER not in span.to_json()
    away = [line for line in lines if line["event"] == "database_away"]
    assert len(away) == 2
    assert {int(line["trace_id"], 16) for line in away} == {span.context.trace_id}
    assert {int(line["span_id"], 16) for line in away} == {span.context.span_id}


async def test_a_commit_that_ends_the_worker_is_an_error_that_quotes_nothing(
    recorded_spans: Any, database_url: str, meter: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise LookupError(METER)

    monkeypatch.setattr(IngestLoop, "_record", fail)
    with pytest.RaisesGroup(LookupError):
        await ingest(Session(database_url, "test"), [reading(1, 1000), reading(2, 1010)], 1)
    (span,) = recorded_spans.get_finished_spans()
    assert span.status.status_code == StatusCode.ERROR
    assert dict(span.attributes) == {"prepaid.messages": 1, "error.type": "LookupError"}
    assert METER not in span.to_json()


async def test_a_round_of_commands_is_one_span_and_a_round_of_none_is_no_span(
    recorded_spans: Any, database_url: str, broker_url: str, meter: int
) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        other = registry.add_meter(
            conn, registry.add_centre(conn, "S", "Spans"), registry.NewMeter("37000000025")
        )
        for each in (meter, other):
            supply.queue(conn, each, "read", {}, now_ms(), now_ms() + HOUR_MS)
    session, stopping = Session(database_url, "dispatch"), asyncio.Event()
    dispatcher = Dispatcher(
        BrokerAddress.parse(broker_url), "prepaid-dispatch-spans", session, now_ms, 1
    )
    with structlog.testing.capture_logs(processors=[name_span]) as lines:
        running = asyncio.create_task(dispatcher.run(stopping))
        async with asyncio.timeout(PATIENCE_S):
            while not recorded_spans.get_finished_spans():
                await asyncio.sleep(0.01)
        # It has looked for more before it stops, and found none.
        stopping.set()
        await running
    await session.close()
    (span,) = recorded_spans.get_finished_spans()
    assert (span.name, dict(span.attributes)) == ("dispatch.send", {"prepaid.commands": 2})
    assert span.status.status_code == StatusCode.UNSET
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT DISTINCT state FROM command").fetchall() == [("sent",)]
    (line,) = [line for line in lines if line["event"] == "commands_sent"]
    assert int(line["span_id"], 16) == span.context.span_id
