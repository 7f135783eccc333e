"""`prepaid gateway` and `prepaid api` as processes send spans where the environment says so."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import aiomqtt
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from meter_gateway.receiver import BrokerAddress
from tokens.key_file import RANDOM_OCTETS, seal
from tokens.keys import VendingKey

ROOT = Path(__file__).parents[2]
METER = "37000000017"
PATIENCE_S = 60


@dataclass
class Collector:
    """What a collector was sent: (path, body) of each request."""

    url: str = ""
    posted: list[tuple[str, bytes]] = field(default_factory=list)

    def spans(self) -> list[tuple[str, str, dict[str, int]]]:
        """(process, name, whole numbers among the attributes) of every span, as they came."""
        found = []
        for _, body in self.posted:
            for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
                (name,) = (
                    each.value.string_value
                    for each in sent.resource.attributes
                    if each.key == "service.name"
                )
                found += [
                    (
                        name,
                        span.name,
                        {
                            each.key: each.value.int_value
                            for each in span.attributes
                            if each.value.HasField("int_value")
                        },
                    )
                    for scope in sent.scope_spans
                    for span in scope.spans
                ]
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    kept = Collector()

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.posted.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Taking) as server:
        kept.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield kept
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def running(*words: str, **variables: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A command and its first line; after the block it has ended in order."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    with subprocess.Popen(
        [sys.executable, "-m", "prepaid", *words, "--json"],
        env=kept | {"PYTHONPATH": str(ROOT), **variables},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


@pytest.fixture
def api_settings(database_url: str, tmp_path: Path) -> dict[str, str]:
    keys = {("123456", 1): VendingKey.generate(4, secrets.token_bytes(20), base_date=2014)}
    file = tmp_path / "keys.sts"
    file.write_bytes(seal(keys, "correct horse", secrets.token_bytes(RANDOM_OCTETS)))
    file.chmod(0o600)
    return {
        "PREPAID_DATABASE__URL": database_url,
        "PREPAID_STS__KEY_FILE": str(file),
        "PREPAID_STS__KEY_PASSPHRASE": "correct horse",
    }


def test_the_api_sends_its_spans_before_it_ends(
    collector: Collector, api_settings: dict[str, str]
) -> None:
    # Longer than the test waits: what comes was sent as the process ended.
    later = {"OTEL_BSP_SCHEDULE_DELAY": str(PATIENCE_S * 10_000)}
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    with running("api", "--port", "0", **api_settings, **endpoint, **later) as (url, _):
        assert httpx.get(f"{url}/v1/accounts/A-77/balance?meter={METER}").status_code == 401
    assert {path for path, _ in collector.posted} == {"/v1/traces"}
    name = "GET /v1/accounts/{account}/balance"
    assert collector.spans() == [("prepaid-api", name, {"http.response.status_code": 401})]
    told = b"".join(body for _, body in collector.posted)
    assert [each for each in (b"A-77", METER.encode(), b"127.0.0.1") if each in told] == []


def test_a_process_is_called_what_the_environment_calls_it(
    collector: Collector, api_settings: dict[str, str]
) -> None:
    asked = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/elsewhere",
        "OTEL_SERVICE_NAME": "north",
    }
    with running("api", "--port", "0", **api_settings, **asked) as (url, _):
        assert httpx.get(f"{url}/healthz").status_code == 200
    assert {path for path, _ in collector.posted} == {"/elsewhere"}
    assert [name for name, *_ in collector.spans()] == ["north"]


async def test_the_gateway_sends_a_span_for_a_commit(
    collector: Collector, database_url: str, broker_url: str
) -> None:
    variables = {
        "PREPAID_DATABASE__URL": database_url,
        "PREPAID_BROKER__URL": broker_url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    # A group of its own: the broker is shared by the whole test session.
    group = f"traces-{uuid.uuid4().hex[:8]}"
    words = ("gateway", "--name", group, "--group", group, "--ephemeral")
    with running(*words, **variables) as (ready, _):
        assert ready == "ready"
        address = BrokerAddress.parse(broker_url)
        async with aiomqtt.Client(
            address.host, address.port, username=address.username, password=address.password
        ) as client:
            said = json.dumps({"v": 1, "boot": 1, "seq": 1, "reg": {}}).encode()
            await client.publish(f"pm/v1/m/{METER}/up/reading", said, qos=1)
        deadline_s = time.monotonic() + PATIENCE_S
        while not collector.posted and time.monotonic() < deadline_s:
            await asyncio.sleep(0.05)
    assert {path for path, _ in collector.posted} == {"/v1/traces"}
    commits = [each for each in collector.spans() if each[1] == "ingest.commit"]
    assert sum(counts["prepaid.messages"] for *_, counts in commits) == 1
    assert sum(counts["prepaid.quarantined"] for *_, counts in commits) == 1
    assert {name for name, *_ in commits} == {"prepaid-gateway"}
    assert METER.encode() not in b"".join(body for _, body in collector.posted)
