"""An application on a database of its own, with a clock that the test sets."""

import base64
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from threading import Thread
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import structlog
from fastapi import FastAPI
from httpx import Client, Response
from psycopg import Connection
from pydantic import SecretStr

from api.app import create_app
from api.server import address, listen, server
from api.settings import ApiSettings, Partner
from api.signatures import sign
from credit_engine.terms import Installation
from prepaid.runtime import Instance
from schemas.decoding import decode_up
from schemas.quantities import format_instant, parse_instant_ms
from schemas.topics import parse
from store import contacts, ingest, operators, registry
from store.contacts import Actor
from store.incoming import Incoming, Recorded
from store.pool import make_pool
from store.registry import NewMeter
from store.roles import as_application
from store.terms import TermsCache
from tokens.keys import KeyAttributes, VendingKey
from tokens.numbers import check_digit
from tokens.security_module import SoftwareSecurityModule

OPENED = parse_instant_ms("2026-03-01T00:00:00Z")
WALL_S = 1_790_000_000
BANK_KEY = "whsec_" + base64.b64encode(b"bank-key-of-this-test-run-0000").decode()
NEXT_BANK_KEY = "whsec_" + base64.b64encode(b"bank-key-of-this-test-run-0001").decode()
WALLET_KEY = "whsec_" + base64.b64encode(b"wallet-key-of-this-test-run-00").decode()
VENDING_KEY = bytes(range(20))
HELD = KeyAttributes(sgc="123456", krn=1, kt=2, ken=255, ti="01", base_date=2014, ea=11, dkga=4)
MODULE = SoftwareSecurityModule({("123456", 1): VendingKey(VENDING_KEY)})
TARIFF: dict[str, Any] = {
    "timezone": "Africa/Nouakchott",
    "currency": "MRU",
    "holidays": [],
    "tariff": {
        "versions": [
            {
                "valid_from": "2026-01-01",
                "period": "month",
                "bands": [
                    {
                        "name": "all",
                        "method": "graduated",
                        "blocks": [{"up_to_kwh": "100", "price": "2.459"}, {"price": "5.903"}],
                    }
                ],
                "standing_per_day": "1.20",
                "taxes": [
                    {
                        "name": "vat",
                        "percent": "16",
                        "on": ["energy", "standing"],
                        "included": False,
                    }
                ],
            }
        ]
    },
}


def drn(serial: int) -> str:
    payload = f"07{serial:08d}"
    return payload + check_digit(payload)


@dataclass
class Clock:
    """The system's clock and real time, both standing until the test moves them."""

    now: int = OPENED
    wall: float = WALL_S

    def set(self, text: str) -> None:
        self.now = parse_instant_ms(text)


@dataclass
class Customer:
    number: str
    meter: str
    account_id: int
    headers: dict[str, str]


@dataclass
class Site:
    """The application with what a test needs around it."""

    client: Client
    conn: Connection
    clock: Clock
    tariff: int
    centre: int
    operator: dict[str, str]
    stop: Callable[[], None]
    terms: TermsCache = field(default_factory=TermsCache)
    serials: Iterator[int] = field(default_factory=lambda: count(1))
    seqs: Iterator[int] = field(default_factory=lambda: count(1))
    ids: Iterator[int] = field(default_factory=lambda: count(1))

    def open(self, *, sts: bool = True, tariff: int | None = None, **terms: Any) -> Customer:
        """An account opened at OPENED with register 100000 Wh."""
        serial = next(self.serials)
        number = drn(serial)
        new = NewMeter(number)
        if sts:
            payload = f"600727{number}"
            new = NewMeter(number, payload + check_digit(payload), HELD)
        registry.add_meter(self.conn, self.centre, new)
        holder = registry.add_customer(self.conn, "Aminata Sow", OPENED)
        account_id = registry.open_account(
            self.conn,
            number=f"A-{serial}",
            customer=holder,
            centre=self.centre,
            tariff=tariff or self.tariff,
            terms={"activated_at": format_instant(OPENED), **terms},
            installation=Installation(number, 10**9, OPENED, 100_000, 100_000),
            now_ms=max(self.clock.now, OPENED),
        )
        key = registry.add_access_key(self.conn, holder, OPENED)
        return Customer(f"A-{serial}", number, account_id, {"Authorization": f"Bearer {key}"})

    def holder_of(self, customer: Customer) -> int:
        """The number of the customer who holds an account."""
        return registry.customer_of_account(self.conn, customer.number)

    def reach(self, customer: Customer, phone: str) -> int:
        """Gives the holder of an account a verified phone; returns the holder's number."""
        holder = self.holder_of(customer)
        by, now = Actor("admin", is_operator=True, place="north"), max(self.clock.now, OPENED)
        contacts.register(self.conn, holder, "phone", phone, wording="w-1", by=by, now_ms=now)
        contacts.verify_at_desk(
            self.conn, holder, "phone", "seen", by=by, now_ms=now, wall_ms=self.wall_ms()
        )
        return holder

    def wall_ms(self) -> int:
        return int(self.clock.wall * 1000)

    def newest_code(self) -> str | None:
        """The code that was queued last; None where it goes to nobody."""
        row = self.conn.execute("SELECT code FROM code_message ORDER BY id DESC LIMIT 1").fetchone()
        assert row is not None
        code: str | None = row[0]
        return code

    def signed_in(self, phone: str) -> dict[str, str]:
        """The headers of a new session of whoever has a phone."""
        self.clock.wall += 31
        asked = self.client.post("/v1/auth/otp", json={"phone": phone})
        assert asked.status_code == 202, asked.text
        body = {"phone": phone, "code": self.newest_code()}
        session = self.client.post("/v1/auth/otp/verify", json=body)
        assert session.status_code == 200, session.text
        return {"Authorization": f"Bearer {session.json()['session']}"}

    def free_of_charges(self) -> int:
        """A tariff without a standing charge or taxes."""
        version = TARIFF["tariff"]["versions"][0]
        kept = {name: version[name] for name in ("valid_from", "period", "bands")}
        form = {**TARIFF, "tariff": {"versions": [kept]}}
        return registry.add_tariff(self.conn, "plain", "Plain", form)

    def attributes(self) -> KeyAttributes:
        return HELD

    @property
    def security_module(self) -> SoftwareSecurityModule:
        return MODULE

    def wallet_key(self) -> str:
        return WALLET_KEY

    def next_bank_key(self) -> str:
        return NEXT_BANK_KEY

    def exchange(self, customer: Customer, at: str) -> str:
        """Another meter, without tokens, takes the place of the account's; returns its number."""
        self.clock.set(at)
        number = drn(next(self.serials))
        registry.add_meter(self.conn, self.centre, NewMeter(number))
        new = Installation(number, 10**9, self.clock.now, 0, 100_000)
        registry.exchange_meter(self.conn, customer.account_id, 100_000, new, self.clock.now)
        return number

    def in_zone(self, zone: str) -> int:
        """The same tariff elsewhere."""
        return registry.add_tariff(self.conn, zone, zone, {**TARIFF, "timezone": zone})

    def read(self, customer: Customer, at: str, wh: int, **more: Any) -> Recorded:
        """One reading from the meter, recorded when it was made."""
        form = {
            "v": 1,
            "boot": 1,
            "seq": next(self.seqs),
            "ts": at,
            "reg": {"1.8.0": wh},
            **more,
        }
        self.clock.now = max(self.clock.now, parse_instant_ms(at))
        return self.say(customer.meter, "reading", form)

    def say(self, meter: str, kind: str, form: object) -> Recorded:
        text = f"pm/v1/m/{meter}/up/{kind}"
        topic, payload = parse(text), json.dumps(form).encode()
        decoded = decode_up(topic, payload, None, self.clock.now)
        message = Incoming(topic, text, payload, None, decoded)
        return ingest.record(self.conn, self.terms, [message], self.clock.now)

    def get(self, customer: Customer, path: str, **query: Any) -> Any:
        response = self.client.get(
            f"/v1/accounts/{customer.number}{path}", headers=customer.headers, params=query
        )
        assert response.status_code == 200, response.text
        return response.json()

    def signed(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        partner: str = "bank",
        key: str = BANK_KEY,
        raw: bytes | None = None,
        age_s: int = 0,
    ) -> Response:
        """A partner's request, signed as Standard Webhooks says."""
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        at, message_id = int(self.clock.wall) - age_s, f"msg_{next(self.ids)}"
        return self.client.request(
            method,
            f"/v1/partners{path}",
            content=content,
            headers={
                "content-type": "application/json",
                "webhook-partner": partner,
                "webhook-id": message_id,
                "webhook-timestamp": str(at),
                "webhook-signature": sign(key, message_id, at, content),
            },
        )

    def pay(self, customer: Customer, amount: str, txn: str, **more: Any) -> Response:
        body = {
            "partner_txn_id": txn,
            "meter": customer.meter,
            "amount": amount,
            "paid_at": format_instant(min(self.clock.now, OPENED + 9 * 3_600_000)),
            **more,
        }
        return self.signed("POST", "/payments", body)


@contextmanager
def serving(app: FastAPI) -> Iterator[tuple[Client, Callable[[], None]]]:
    """A client of the application behind its real server, and what ends that server."""
    with listen("127.0.0.1", 0) as listener:
        running = server(app)
        thread = Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()

        def stop() -> None:
            running.should_exit = True
            thread.join()

        try:
            with Client(base_url=address(listener), timeout=30) as client:
                yield client, stop
        finally:
            stop()


@pytest.fixture
def site(database_url: str) -> Iterator[Site]:
    with opened_site(database_url) as made:
        yield made


@pytest.fixture
def defect(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever calls meets a defect of ours, whose words are nobody's business."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret of the machine")

    monkeypatch.setattr("store.reads.principal_of_key", fail)
    # Written out with all that its frames hold, as is the default, it takes half a minute.
    before = structlog.get_config()
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, plain])
    yield
    structlog.configure(**before)


@pytest.fixture
def hasty_site(database_url: str) -> Iterator[Site]:
    """One that takes 3 requests a minute of a caller and 9 of an address."""
    settings = ApiSettings(requests_per_minute=3, requests_per_minute_of_address=9)
    with opened_site(database_url, settings) as made:
        yield made


@pytest.fixture
def lively_site(database_url: str) -> Iterator[Site]:
    """One whose event streams look up often, and of which there are few."""
    settings = ApiSettings(
        streams=8, streams_per_caller=3, streams_poll_s=0.05, streams_heartbeat_s=0.2
    )
    with opened_site(database_url, settings) as made:
        yield made


@pytest.fixture(scope="module")
def shared_site(runtime: Instance, template_database: str) -> Iterator[Site]:
    """One for all tests of a module, for those that leave nothing behind."""
    name = f"prepaid_test_{uuid.uuid4().hex[:12]}"
    clone = f'CREATE DATABASE "{name}" TEMPLATE "{template_database}"'
    with psycopg.connect(runtime.database_url, autocommit=True) as conn:
        conn.execute(clone)
        url = urlunsplit(urlsplit(runtime.database_url)._replace(path=f"/{name}"))
        with opened_site(as_application(url)) as made:
            yield made
        conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def opened_site(database_url: str, settings: ApiSettings | None = None) -> Iterator[Site]:
    clock = Clock()
    app = create_app(
        settings or ApiSettings(),
        pool=make_pool(database_url, min_size=1, max_size=6),
        security_module=MODULE,
        now_ms=lambda: clock.now,
        wall_s=lambda: clock.wall,
        partners=[
            Partner("bank", "A bank", (SecretStr(NEXT_BANK_KEY), SecretStr(BANK_KEY))),
            Partner("wallet", "A wallet", (SecretStr(WALLET_KEY),)),
        ],
    )
    with psycopg.connect(database_url, autocommit=True) as conn:
        centre = registry.add_centre(conn, "north", "North")
        tariff = registry.add_tariff(conn, "social", "Social", TARIFF)
        operators.add(conn, "admin", "admin", who="test", now_ms=OPENED)
        operator = operators.add_access_key(conn, "admin", "test", who="test", now_ms=OPENED)
        with serving(app) as (client, stop):
            headers = {"Authorization": f"Bearer {operator}"}
            yield Site(client, conn, clock, tariff, centre, headers, stop)


@pytest.fixture
def refused() -> Callable[[Response], tuple[int, str]]:
    """(status, code) of a problem, once its form is that of the contract."""

    def check(response: Response) -> tuple[int, str]:
        assert response.headers["content-type"] == "application/problem+json", response.text
        body = response.json()
        assert body["status"] == response.status_code
        assert {"type", "title", "status", "detail", "code"} <= body.keys()
        return response.status_code, body["code"]

    return check
