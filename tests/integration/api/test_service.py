import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import structlog

from api.openapi import described_app, openapi_text
from tokens.errors import SecurityModuleAway
from tokens.security_module import SoftwareSecurityModule

Site = Any
OPENAPI = Path(__file__).parents[3] / "api" / "openapi.json"


def test_the_published_description_is_that_of_the_code(site: Site) -> None:
    published = OPENAPI.read_text(encoding="utf-8")
    assert published == openapi_text(), "run scripts/generate_openapi.py"
    served = site.client.get("/openapi.json").json()
    assert served["openapi"].startswith("3.1")
    assert httpx.Response(200, text=published).json() == served


def test_ready_says_when_the_ledger_last_grew(site: Site) -> None:
    assert site.client.get("/healthz").json() == {"status": "alive"}
    assert site.client.get("/readyz").json()["newest_commit_at"] is None
    customer = site.open()
    site.clock.set("2026-03-01T09:00:00Z")
    site.pay(customer, "20.00", "t1")
    site.clock.set("2026-03-01T10:00:00Z")
    response = site.client.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {
        "ready": True,
        "vending": True,
        "database": "ready",
        "security_module": "ready",
        "payment_channels": [],
        "pending_migrations": [],
        "newest_commit_at": "2026-03-01T09:00:00Z",
        "as_of": "2026-03-01T10:00:00Z",
    }


def test_a_security_module_that_is_away_stops_vending_and_nothing_else(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = site.open()
    asked: list[tuple[str, int]] = []

    def away(_: object, sgc: str, krn: int) -> str:
        asked.append((sgc, krn))
        raise SecurityModuleAway("unplugged")

    def state() -> tuple[int, bool, str]:
        answer = site.client.get("/readyz")
        body = answer.json()
        assert body["ready"] == (answer.status_code == 200)
        return answer.status_code, body["vending"], body["security_module"]

    assert state() == (200, True, "ready")
    with monkeypatch.context() as patched:
        patched.setattr(SoftwareSecurityModule, "key_check_value", away)
        # An answer holds for some seconds, so that nobody keeps a module busy by asking us.
        assert state() == (200, True, "ready")
        site.clock.wall += 6
        assert state() == state() == (200, False, "away")
        assert asked == [("123456", 1)]
        assert site.client.get("/v1/accounts", headers=customer.headers).status_code == 200
    site.clock.wall += 6
    assert state() == (200, True, "ready")


def test_a_database_without_its_migrations_is_not_ready(
    site: Site, database_url: str, as_owner: Any
) -> None:
    with psycopg.connect(as_owner(database_url), autocommit=True) as owner:
        owner.execute("DELETE FROM schema_migration WHERE name LIKE '0004%'")
    response = site.client.get("/readyz")
    assert (response.status_code, response.json()["database"]) == (503, "to_migrate")
    assert len(response.json()["pending_migrations"]) == 1
    with psycopg.connect(as_owner(database_url), autocommit=True) as owner:
        owner.execute("DROP TABLE schema_migration")
    response = site.client.get("/readyz")
    assert (response.status_code, response.json()["database"]) == (503, "to_migrate")


def test_a_database_that_went_away_is_503_and_comes_back_by_itself(
    site: Site, database_url: str, as_owner: Any, refused: Any
) -> None:
    customer = site.open()
    server, name = as_owner(database_url).rsplit("/", 1)
    admin = f"{server}/postgres"
    with psycopg.connect(admin, autocommit=True) as conn:
        conn.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            " AND application_name = 'prepaid-api'",
            (name,),
        )
        response = site.client.get("/v1/accounts", headers=customer.headers)
        assert refused(response) == (503, "unavailable")
        assert response.headers["retry-after"] == "5"
        # What the driver says names hosts and users.
        assert "127.0.0.1" not in response.text
        assert site.client.get("/readyz").json()["database"] == "away"
        assert site.client.get("/healthz").status_code == 200
        conn.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    for _ in range(20):
        if site.client.get("/readyz").status_code == 200:
            break
    assert site.client.get("/v1/accounts", headers=customer.headers).status_code == 200


def test_answers_are_not_kept_nor_framed_and_carry_their_id(site: Site) -> None:
    response = site.client.get("/v1/accounts", headers={"x-request-id": "abc-1"})
    assert response.headers["x-request-id"] == "abc-1"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["cross-origin-resource-policy"] == "same-origin"
    assert response.headers["cross-origin-opener-policy"] == "same-origin"
    assert response.headers["referrer-policy"] == "no-referrer"
    # Over plain HTTP it would mean nothing.
    assert "strict-transport-security" not in response.headers
    assert "server" not in response.headers
    forged = site.client.get("/v1/accounts", headers={"x-request-id": "a b\\n" + "x" * 100})
    assert len(forged.headers["x-request-id"]) == 16


async def test_who_came_by_tls_is_told_to_stay_with_it() -> None:
    transport = httpx.ASGITransport(described_app())
    async with httpx.AsyncClient(transport=transport, base_url="https://utility") as client:
        for path in ("/healthz", "/nowhere"):
            found = (await client.get(path)).headers["strict-transport-security"]
            assert found == "max-age=31536000"


def test_figures_count_requests_by_route_and_never_by_account(site: Site) -> None:
    customer = site.open()
    site.get(customer, "/balance")
    site.client.get("/nowhere")
    text = site.client.get("/metrics").text
    route = "/v1/accounts/{account}/balance"
    assert f'prepaid_api_requests_total{{method="GET",route="{route}",status="200"}} 1.0' in text
    assert 'route="unmatched",status="404"' in text
    assert customer.number not in text


def test_one_line_is_logged_per_request_without_keys_numbers_or_tokens(site: Site) -> None:
    customer = site.open()
    with structlog.testing.capture_logs() as lines:
        paid = site.pay(customer, "20.00", "t1", msisdn="+22236123456").json()
        site.get(customer, "/balance")
        site.client.get("/v1/accounts", headers={"Authorization": "Bearer secret-thing"})
    served = [line for line in lines if line["event"] == "request_served"]
    assert [(line["route"], line["status"]) for line in served] == [
        ("/v1/partners/payments", 201),
        ("/v1/accounts/{account}/balance", 200),
        ("/v1/accounts", 401),
    ]
    assert served[0]["caller"] == "partner:bank"
    assert served[2]["code"] == "access_key_unknown"
    said = repr(lines)
    key = customer.headers["Authorization"].removeprefix("Bearer ")
    for secret in (key, "secret-thing", "36123456", paid["tokens"][0], customer.number):
        assert secret not in said


@pytest.mark.usefixtures("defect")
def test_a_defect_is_a_problem_with_the_requests_id(site: Site, refused: Any) -> None:
    with structlog.testing.capture_logs() as lines:
        response = site.client.get("/v1/accounts", headers={"Authorization": "Bearer x"})
        # The line of a request is written once its answer is on the way.
        deadline_s = time.monotonic() + 5
        while len(lines) < 2 and time.monotonic() < deadline_s:
            time.sleep(0.01)
    assert refused(response) == (500, "internal")
    assert "secret of the machine" not in response.text
    assert [line["event"] for line in lines] == ["request_failed", "request_served"]


SERVER = """
import signal
import sys
from api.app import create_app
from api.server import run
from api.settings import ApiSettings
from store.pool import make_pool
from tokens.security_module import SoftwareSecurityModule

app = create_app(
    ApiSettings(), pool=make_pool(sys.argv[1]), security_module=SoftwareSecurityModule({}),
    now_ms=lambda: 0, wall_s=lambda: 0, partners=(),
)
announce = lambda url: print(url, flush=True)
if sys.argv[2:]:
    announce = lambda url: signal.raise_signal(signal.SIGTERM)
run(app, port=0, announce=announce)
print("ended", flush=True)
"""


def test_the_server_says_its_address_and_ends_on_sigterm(database_url: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, database_url],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(f"{url}/readyz").status_code == 200
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    assert (process.returncode, out.splitlines()[-1]) == (0, "ended")
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as again:
        assert again.connect_ex((host, int(port))) != 0


def test_the_server_ends_on_a_signal_that_comes_as_it_starts(database_url: str) -> None:
    """A supervisor that stops it at once would otherwise have to kill it."""
    ended = subprocess.run(
        [sys.executable, "-c", SERVER, database_url, "at once"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ended.stdout.splitlines() == ["ended"]
