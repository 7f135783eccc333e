"""kill -9 of the API while a bank takes the money: the next one finds out and credits once."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from credit_engine.terms import Installation
from payments.simulated.bpay import SimulatedBPay
from payments.simulated.channel import Plan
from schemas.quantities import format_instant
from store import registry
from store.audit import audit

ROOT = Path(__file__).parents[2]
TARIFF = {
    "timezone": "Africa/Nouakchott",
    "currency": "MRU",
    "tariff": {
        "versions": [
            {
                "valid_from": "2026-01-01",
                "period": "month",
                "bands": [{"name": "all", "method": "graduated", "blocks": [{"price": "5"}]}],
            }
        ]
    },
}
PHONE = "36000001"
# Bounds on waiting, never on being right.
PATIENCE_S = 60
# Six processes start one after the other.
pytestmark = pytest.mark.timeout(300)


@contextmanager
def running(environment: dict[str, str], *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """`prepaid` with these words, ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "prepaid", *words],
        env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    err = process.stderr
    # Nobody reads it, and a full pipe would hold the process up.
    reader = threading.Thread(target=lambda: [None for _ in err])
    reader.start()
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
        process.stderr.close()


@contextmanager
def api(
    environment: dict[str, str], port: int = 0
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    with running(environment, "api", "--port", str(port), "--json") as process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        assert url.startswith("http"), "it did not start"
        with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
            yield process, client


def account(conn: Any) -> dict[str, str]:
    opened_ms = int(time.time() * 1000) - 1000
    number = "37000000017"
    registry.add_meter(conn, registry.add_centre(conn, "K", "Killed"), registry.NewMeter(number))
    holder = registry.add_customer(conn, "Aminata Sow", opened_ms)
    registry.open_account(
        conn,
        number="K-1",
        customer=holder,
        centre=registry.add_centre(conn, "K", "Killed"),
        tariff=registry.add_tariff(conn, "flat", "Flat", TARIFF),
        terms={"activated_at": format_instant(opened_ms)},
        installation=Installation(number, 10**9, opened_ms, 0),
        now_ms=opened_ms,
    )
    return {"Authorization": f"Bearer {registry.add_access_key(conn, holder, opened_ms)}"}


def confirm(client: httpx.Client, headers: dict[str, str], path: str, passcode: str) -> None:
    """Its answer never comes: the server is killed under it."""
    with suppress(httpx.HTTPError):
        keyed = {**headers, "Idempotency-Key": path[-64:]}
        client.post(path, headers=keyed, json={"phone": PHONE, "passcode": passcode})


def until(found: Any) -> Any:
    """What `found` gives, once it gives something."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        value = found()
        if value:
            return value
        time.sleep(0.2)
    pytest.fail("it did not come")


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PREPAID_DATABASE__URL": database_url,
        "PREPAID_PAYMENTS__FILE": str(tmp_path / "methods.json"),
        # The meter of this test takes no tokens: nobody is asked there.
        "PREPAID_STS__SOCKET": str(tmp_path / "nobody.sock"),
    }


def test_the_api_is_killed_while_the_bank_has_the_money(
    database_url: str, environment: dict[str, str], tmp_path: Path
) -> None:
    with SimulatedBPay() as bank, psycopg.connect(database_url, autocommit=True) as conn:
        form = {
            "public_url": "https://utility.example",
            "methods": [
                {"kind": "bpay", "code": "bankily", "name": "Bankily", "url": bank.url,
                 "merchant": "1", "username": bank.USERNAME, "password": bank.password,
                 "client": "utility", "timeout_s": 2},
            ],
        }  # fmt: skip
        file = Path(environment["PREPAID_PAYMENTS__FILE"])
        file.write_text(json.dumps(form))
        file.chmod(0o600)
        headers = account(conn)
        top_ups = "/v1/accounts/K-1/top-ups"
        made = []
        for deed in ("paid", "late_paid", "late_failed"):
            with api(environment) as (process, client):
                started = client.post(
                    top_ups, headers={**headers, "Idempotency-Key": deed},
                    json={"method": "bankily", "amount": "50.00"},
                ).json()  # fmt: skip
                made.append(started["id"])
                bank.mischief.next_plans.append(Plan(deed, "hang"))  # type: ignore[arg-type] # one of its
                code = bank.make_passcode(PHONE, "50")

                asked = (client, headers, f"{top_ups}/{started['id']}/confirmation", code)
                payer = threading.Thread(target=confirm, args=asked)
                payer.start()
                until(lambda number=started["id"]: number in bank.operations)
                process.kill()
                payer.join()
            # The next one begins with what this one left.
            left = "SELECT state, top_up_id FROM payment_attempt WHERE id = %s"
            assert conn.execute(left, (started["id"],)).fetchone() == ("pending", None)
        with api(environment) as (_, client), api(environment):

            def ended() -> list[str] | None:
                shown = [client.get(f"{top_ups}/{each}", headers=headers).json() for each in made]
                states = [each["state"] for each in shown]
                return None if {"pending", "unknown"} & set(states) else states

            # Without tokens: this meter takes none.
            assert until(ended) == ["credited", "credited", "failed"]
            balance = client.get("/v1/accounts/K-1/balance", headers=headers).json()
            assert balance["balance"]["amount"] == "100.000000"
        assert sorted(bank.taken) == sorted(made[:2])
        assert conn.execute("SELECT count(*) FROM top_up").fetchone() == (2,)
        assert bank.calls["/payment"] == 3
        assert [check.name for check in audit(conn) if not check.passed] == []


def test_a_payer_pays_at_the_simulated_channels_by_hand(
    database_url: str, environment: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    file = environment["PREPAID_PAYMENTS__FILE"]
    of = ("payments", "simulated", file, "--api-url", url, "--port", "0")
    with (
        psycopg.connect(database_url, autocommit=True) as conn,
        running(environment, *of) as channels,
    ):
        assert channels.stdout is not None
        lines = [channels.stdout.readline().decode() for _ in range(5)]
        assert lines[-1] == "ready\n"
        bank, wallet = (re.findall(r"http://[0-9.:]+", line)[0] for line in lines[:2])
        headers = account(conn)
        top_ups = "/v1/accounts/K-1/top-ups"
        with api(environment, port) as (_, client):
            made = {}
            for place, method in enumerate(("bankily", "masrvi", "muamla")):
                made[method] = client.post(
                    top_ups, headers={**headers, "Idempotency-Key": method},
                    json={"method": method, "amount": f"{50 + place}.00"},
                ).json()  # fmt: skip
            code = client.get(f"{bank}/app/passcode?phone={PHONE}&amount=50").text.strip()
            confirm(client, headers, f"{top_ups}/{made['bankily']['id']}/confirmation", code)
            page = made["masrvi"]["going_on"]
            assert client.post(page["url"], data=page["fields"]).text == "OK"
            reference = {"purchaseref": made["masrvi"]["id"]}
            sent = client.get(f"{wallet}/app/sms", params=reference).text.strip()
            client.post(f"{wallet}/online/confirm", data={**reference, "code": sent})
            assert client.get(made["muamla"]["going_on"]["url"]).text == "paid\n"

            def credited() -> bool:
                shown = client.get(top_ups, headers=headers).json()["items"]
                return [each["state"] for each in shown] == ["credited"] * 3

            assert until(credited)
            balance = client.get("/v1/accounts/K-1/balance", headers=headers).json()
            assert balance["balance"]["amount"] == "153.000000"
