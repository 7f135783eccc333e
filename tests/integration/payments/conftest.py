"""A utility that takes payments by simulated channels, over real HTTP, with clocks set by hand."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from itertools import count
from threading import Thread
from typing import Any

import psycopg
import pytest
import structlog
from httpx import Client, Response
from psycopg import Connection
from pydantic import SecretStr

from api.app import create_app
from api.server import address, listen, server
from api.settings import ApiSettings
from credit_engine.terms import Installation
from payments.aggregator import DIALECTS, Aggregator, AggregatorSettings
from payments.bpay import BPay, BPaySettings
from payments.desk import Cash, PaymentDesk
from payments.hosted import HostedPage, HostedSettings
from payments.port import Connector
from payments.simulated.aggregator import SimulatedAggregator
from payments.simulated.bpay import SimulatedBPay
from payments.simulated.channel import Mischief
from payments.simulated.hosted import SimulatedWallet
from payments.sweep import sweep_once
from prepaid import logs
from schemas.quantities import format_instant, parse_instant_ms
from store import operators, registry
from store.audit import audit
from store.payment_words import Ears
from store.pool import Pool, make_pool
from store.registry import NewMeter
from store.terms import TermsCache
from tokens.keys import KeyAttributes, VendingKey
from tokens.numbers import check_digit
from tokens.security_module import SecurityModule, SoftwareSecurityModule

OPENED = parse_instant_ms("2026-03-01T00:00:00Z")
WALL_MS = 1_790_000_000_000
HELD = KeyAttributes(sgc="123456", krn=1, kt=2, ken=255, ti="01", base_date=2014, ea=11, dkga=4)
MODULE = SoftwareSecurityModule({("123456", 1): VendingKey(bytes(range(20)))})
PHONE = "36000001"
TARIFF = {
    "timezone": "Africa/Nouakchott",
    "currency": "MRU",
    "holidays": [],
    "tariff": {
        "versions": [
            {
                "valid_from": "2026-01-01",
                "period": "month",
                "bands": [{"name": "all", "method": "graduated", "blocks": [{"price": "5"}]}],
                "standing_per_day": "0",
                "taxes": [],
            }
        ]
    },
}


@dataclass
class Clock:
    """The system's clock and real time, moved together."""

    now: int = OPENED
    wall: int = WALL_MS

    def advance(self, seconds: int) -> None:
        self.now += seconds * 1000
        self.wall += seconds * 1000


@dataclass
class Customer:
    number: str
    meter: str
    account_id: int
    headers: dict[str, str]


@dataclass
class Market:
    """The utility, the channels, and payers."""

    url: str = field(repr=False)
    conn: Connection
    clock: Clock
    pool: Pool
    desk: PaymentDesk
    client: Client
    bank: SimulatedBPay
    wallet: SimulatedWallet
    silent: SimulatedWallet
    muamla: SimulatedAggregator
    moosyl: SimulatedAggregator
    clerk: dict[str, str]
    centre: int
    tariff: int
    ears: Ears
    make_desk: Callable[..., PaymentDesk] = field(repr=False)
    serials: Iterator[int] = field(default_factory=lambda: count(1))
    keys: Iterator[int] = field(default_factory=lambda: count(1))

    def customer(self, *, sts: bool = True) -> Customer:
        serial = next(self.serials)
        payload = f"07{serial:08d}"
        number = payload + check_digit(payload)
        pan = f"600727{number}"
        new = NewMeter(number, pan + check_digit(pan), HELD) if sts else NewMeter(number)
        registry.add_meter(self.conn, self.centre, new)
        holder = registry.add_customer(self.conn, "Aminata Sow", OPENED)
        account_id = registry.open_account(
            self.conn,
            number=f"A-{serial}",
            customer=holder,
            centre=self.centre,
            tariff=self.tariff,
            terms={"activated_at": format_instant(OPENED)},
            installation=Installation(number, 10**9, OPENED, 0, 100_000),
            now_ms=OPENED,
        )
        key = registry.add_access_key(self.conn, holder, OPENED)
        return Customer(f"A-{serial}", number, account_id, {"Authorization": f"Bearer {key}"})

    def start(self, who: Customer, method: str, amount: str = "50.00", **more: Any) -> Response:
        body = {"method": method, "amount": amount, **more}
        key = body.pop("key", None) or f"k-{next(self.keys)}"
        headers = body.pop("headers", who.headers)
        return self.client.post(
            f"/v1/accounts/{who.number}/top-ups",
            headers={**headers, "Idempotency-Key": key},
            json=body,
        )

    def started(self, who: Customer, method: str, amount: str = "50.00", **more: Any) -> Any:
        response = self.start(who, method, amount, **more)
        assert response.status_code == 202, response.text
        return response.json()

    def confirm(
        self, who: Customer, top_up: str, passcode: str, phone: str = PHONE, key: str | None = None
    ) -> Response:
        key = key or f"k-{next(self.keys)}"
        return self.client.post(
            f"/v1/accounts/{who.number}/top-ups/{top_up}/confirmation",
            headers={**who.headers, "Idempotency-Key": key},
            json={"phone": phone, "passcode": passcode},
        )

    def pay_by_bank(self, who: Customer, amount: str = "50.00", **more: Any) -> Any:
        """A payment by passcode, as the payer sees it after the confirmation."""
        made = self.started(who, "bankily", amount, **more)
        code = self.bank.make_passcode(PHONE, made["going_on"]["amount"])
        answer = self.confirm(who, made["id"], code)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def show(self, who: Customer, top_up: str) -> Any:
        path = f"/v1/accounts/{who.number}/top-ups/{top_up}"
        response = self.client.get(path, headers=who.headers)
        assert response.status_code == 200, response.text
        return response.json()

    def balance(self, who: Customer) -> str:
        response = self.client.get(f"/v1/accounts/{who.number}/balance", headers=who.headers)
        return str(response.json()["balance"]["amount"])

    def sweep(self, *, after_s: int = 0, rounds: int = 1) -> None:
        """Let time pass and go on with what is due, in each round."""
        for _ in range(rounds):
            self.clock.advance(after_s)
            while sweep_once(self.desk, self.pool):
                pass

    def notifications(self, method: str) -> str:
        return f"{self.client.base_url}/v1/payments/{method}/notifications"

    def one(self, sql: str, *of: object) -> Any:
        row = self.conn.execute(sql, of).fetchone()  # type: ignore[arg-type] # of this test's own
        assert row is not None
        return row[0]

    def counts(self) -> tuple[int, int, int]:
        """How many top-ups, tokens, and suspect payments there are."""
        return (
            self.one("SELECT count(*) FROM top_up"),
            self.one("SELECT count(*) FROM token"),
            self.one("SELECT count(*) FROM suspect_payment"),
        )

    def refusals(self) -> dict[tuple[str, str], int]:
        rows = self.conn.execute(
            "SELECT method, reason, sum(count) FROM notification_refusal GROUP BY method, reason"
        )
        return {(method, reason): int(total) for method, reason, total in rows}

    def states(self, top_up: str) -> list[str]:
        """Every state that an attempt's steps show, in their order."""
        rows = self.conn.execute(
            "SELECT state FROM payment_step WHERE attempt_id = %s ORDER BY id", (top_up,)
        )
        return [row[0] for row in rows]

    def laws_hold(self) -> None:
        """The whole database proves its laws."""
        failed = {check.name: check.failures for check in audit(self.conn) if not check.passed}
        assert failed == {}


def connectors(
    market_url: str,
    bank: SimulatedBPay,
    wallets: Sequence[SimulatedWallet],
    aggregators: Sequence[SimulatedAggregator],
) -> list[Connector]:
    wallet, silent = wallets
    muamla, moosyl = aggregators
    return [
        BPay(
            BPaySettings(
                "bankily", "Bankily", bank.url, "012345", bank.USERNAME,
                SecretStr(bank.password), "utility", timeout_s=5,
            )
        ),
        *(
            HostedPage(
                HostedSettings(
                    code, code.title(), at.url, f"{at.url}/online/page", SecretStr(at.MERCHANT),
                    (ip_network("127.0.0.0/8"),), f"{market_url}/v1/payments/{code}/returns",
                    "utility", check, timeout_s=5,
                )
            )
            for code, at, check in (
                ("masrvi", wallet, "/online/check"), ("click", silent, None),
            )
        ),
        *(
            Aggregator(
                AggregatorSettings(
                    code, code.title(), at.url, at.dialect, SecretStr(at.access_key),
                    (SecretStr("the key before this one, still good"), SecretStr(at.signing_key)),
                    f"{market_url}/v1/payments/{code}/returns", looks_up, timeout_s=5,
                )
            )
            for code, at, looks_up in (("muamla", muamla, True), ("moosyl", moosyl, False))
        ),
    ]  # fmt: skip


@contextmanager
def opened_market(
    database_url: str, *, module: SecurityModule = MODULE, seed: int = 1, odd: int = 0
) -> Iterator[Market]:
    clock = Clock()
    with ExitStack() as stack:
        bank = stack.enter_context(SimulatedBPay(Mischief(seed, odd)))
        wallets = [
            stack.enter_context(SimulatedWallet(Mischief(each), now_s=lambda: clock.wall / 1000))
            for each in (seed + 10, seed + 11)
        ]
        aggregators = [
            stack.enter_context(SimulatedAggregator(DIALECTS[name], Mischief(each)))
            for name, each in (("muamla", seed + 20), ("moosyl", seed + 21))
        ]
        pool = make_pool(database_url, min_size=1, max_size=8)
        ears = Ears(TermsCache(), module, lambda: clock.now, lambda: clock.wall)
        listener = stack.enter_context(listen("127.0.0.1", 0))
        url = address(listener)

        def make_desk(using: Pool = pool, hearing: Ears = ears) -> PaymentDesk:
            return PaymentDesk(
                connectors(url, bank, wallets, aggregators),
                Cash("till", "Cash", {"MRU": 200_000}),
                pool=using,
                ears=hearing,
            )

        desk = stack.enter_context(make_desk())
        app = create_app(
            ApiSettings(),
            pool=pool,
            security_module=module,
            now_ms=lambda: clock.now,
            wall_s=lambda: clock.wall / 1000,
            partners=(),
            payments=desk,
        )
        running = server(app)
        thread = Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        stack.callback(thread.join)
        stack.callback(lambda: setattr(running, "should_exit", True))
        client = stack.enter_context(Client(base_url=url, timeout=30, trust_env=False))
        conn = stack.enter_context(psycopg.connect(database_url, autocommit=True))
        operators.add(conn, "clerk", "desk", who="test", now_ms=OPENED)
        key = operators.add_access_key(conn, "clerk", "till", who="test", now_ms=OPENED)
        yield Market(
            database_url, conn, clock, pool, desk, client, bank, *wallets, *aggregators,
            {"Authorization": f"Bearer {key}"},
            registry.add_centre(conn, "north", "North"),
            registry.add_tariff(conn, "flat", "Flat", TARIFF),
            ears, make_desk,
        )  # fmt: skip


@pytest.fixture
def market(database_url: str) -> Iterator[Market]:
    with opened_market(database_url) as made:
        yield made


@pytest.fixture
def open_market(database_url: str) -> Callable[..., Any]:
    """A market with a security module or a seed of the test's own."""
    return lambda **of: opened_market(database_url, **of)


@pytest.fixture
def spoken(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Everything that is logged, from the lowest level of every logger on, ours as in service."""
    lines: list[str] = []

    class Kept:
        def msg(self, message: str) -> None:
            lines.append(message)

        debug = info = warning = error = critical = exception = msg

    logs.configure(as_json=True, level="debug")
    structlog.configure(**{**structlog.get_config(), "logger_factory": lambda *_: Kept()})
    caplog.set_level(logging.DEBUG)
    yield lines
    lines.extend(record.getMessage() for record in caplog.records)
