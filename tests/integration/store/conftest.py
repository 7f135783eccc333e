"""A utility in a database of its own: accounts, meters, and messages as meters send them."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from credit_engine.terms import Installation
from schemas.decoding import decode_up
from schemas.quantities import format_instant, parse_instant_ms
from schemas.topics import parse
from store import (
    clockwork,
    ingest,
    payment_attempts,
    payment_words,
    registry,
    reversals,
    suspects,
    vending,
)
from store.incoming import Incoming, Recorded
from store.lanes import Lanes
from store.payment_attempts import NewAttempt
from store.payment_words import Ears, Word
from store.registry import NewMeter
from store.settlement import AccountState, read_account
from store.terms import TermsCache
from tokens.keys import KeyAttributes, VendingKey
from tokens.numbers import check_digit
from tokens.security_module import SoftwareSecurityModule

OPENED = parse_instant_ms("2026-03-01T00:00:00Z")
MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
OPENING_WH = 100_000
ATTRIBUTES = KeyAttributes(
    sgc="123456", krn=1, kt=2, ken=255, ti="01", base_date=2014, ea=11, dkga=4
)
# A key that anybody can read here opens nothing anywhere.
MODULE = SoftwareSecurityModule({("123456", 1): VendingKey(bytes(range(20)))})
TARIFF: dict[str, Any] = {
    "timezone": "Africa/Nouakchott",
    "currency": "MRU",
    "holidays": ["2026-03-03"],
    "tariff": {
        "versions": [
            {
                "valid_from": "2026-01-01",
                "period": "month",
                "bands": [
                    {
                        "name": "night",
                        "windows": [
                            {
                                "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
                                "from": "22:00",
                                "to": "06:00",
                            }
                        ],
                        "method": "graduated",
                        "blocks": [{"price": "1.5"}],
                    },
                    {
                        "name": "day",
                        "method": "graduated",
                        "blocks": [{"up_to_kwh": "10", "price": "2.459"}, {"price": "5.903"}],
                    },
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


def at(text: str) -> int:
    return parse_instant_ms(f"2026-{text}")


def drn(serial: int) -> str:
    payload = f"07{serial:08d}"
    return payload + check_digit(payload)


@dataclass
class Supply:
    """One account with the meter that it was opened with."""

    id: int
    number: str
    meter: str


@dataclass
class Utility:
    """A database, a clock that the test sets, and everything that may happen to an account."""

    # Holds a password: not for the report of a failed test.
    url: str = field(repr=False)
    conn: Connection
    centre: int
    tariff: int
    now: int = OPENED
    terms: TermsCache = field(default_factory=TermsCache)
    lanes: Lanes = field(default_factory=Lanes)
    module: SoftwareSecurityModule = field(default=MODULE, repr=False)
    serials: Iterator[int] = field(default_factory=lambda: count(1))
    seqs: Iterator[int] = field(default_factory=lambda: count(1))

    def meter(self, *, sts: bool = False, gateway: str | None = None) -> str:
        """A meter in stock."""
        number = drn(next(self.serials))
        new = NewMeter(number, gateway=gateway)
        if sts:
            payload = f"600727{number}"
            new = NewMeter(number, payload + check_digit(payload), ATTRIBUTES, gateway)
        registry.add_meter(self.conn, self.centre, new)
        return number

    def open(
        self,
        *,
        sts: bool = False,
        gateway: str | None = None,
        meter: str | None = None,
        opened: int = OPENED,
        tariff: int | None = None,
        **terms: Any,
    ) -> Supply:
        """An account that begins with register `OPENING_WH`."""
        meter = meter or self.meter(sts=sts, gateway=gateway)
        number = f"A-{next(self.serials)}"
        account = registry.open_account(
            self.conn,
            number=number,
            customer=registry.add_customer(self.conn, "Aminata Sow", opened),
            centre=self.centre,
            tariff=tariff or self.tariff,
            terms={"activated_at": format_instant(opened), **terms},
            installation=self.installation(meter, opened),
            now_ms=max(self.now, opened),
        )
        return Supply(account, number, meter)

    def installation(self, meter: str, at_ms: int, opening_wh: int = OPENING_WH) -> Installation:
        return Installation(meter, 10**9, at_ms, opening_wh, 100_000)

    def state(self, supply: Supply) -> AccountState:
        state = read_account(self.conn, supply.id)
        assert state is not None
        return state

    # --- messages ---------------------------------------------------------------------------

    def message(self, topic: str, form: object, **more: Any) -> Incoming:
        payload = form if isinstance(form, bytes) else json.dumps(form).encode()
        parsed = parse(topic)
        decoded = decode_up(parsed, payload, more.get("content_type"), self.now)
        return Incoming(parsed, topic, payload, more.get("content_type"), decoded)

    def reading(self, meter: str, at_ms: int, wh: int | Mapping[str, int], **more: Any) -> Incoming:
        """A meter's own message; its `seq` grows with the time of the reading."""
        registers = {"1.8.0": wh} if isinstance(wh, int) else dict(wh)
        form = {"v": 1, "boot": 1, "seq": (at_ms - OPENED) // 1000 + 10**6}
        form |= {"ts": format_instant(at_ms), "reg": registers, **more}
        return self.message(f"pm/v1/m/{meter}/up/reading", form)

    def record(self, *messages: Incoming) -> Recorded:
        return ingest.record(self.conn, self.terms, messages, self.now, self.lanes)

    def read(self, supply: Supply, at_ms: int, wh: int, **more: Any) -> Recorded:
        """A reading that arrives when it is made, or late."""
        self.now = max(self.now, at_ms)
        return self.record(self.reading(supply.meter, at_ms, wh, **more))

    def slot(
        self, meter: str, seq: int, *, boot: int = 1, at_ms: int | None = None, **more: Any
    ) -> Recorded:
        """A reading of count `seq`, at the end of that quarter of an hour or at an instant."""
        ts_ms = OPENED + seq * 15 * MINUTE if at_ms is None else at_ms
        self.now = max(self.now, ts_ms)
        wh = OPENING_WH + seq * 10
        return self.record(self.reading(meter, ts_ms, wh, boot=boot, seq=seq, **more))

    def say(self, meter: str, kind: str, **form: Any) -> Recorded:
        return self.record(self.message(f"pm/v1/m/{meter}/up/{kind}", {"v": 1, **form}))

    # --- payments ---------------------------------------------------------------------------

    def payment(self, supply: Supply, amount_micro: int, txn: str) -> vending.Payment:
        return vending.Payment(
            channel="bank",
            partner_txn_id=txn,
            meter=supply.meter,
            amount_micro=amount_micro,
            paid_ms=self.now,
            request_sha256=hashlib.sha256(f"{supply.meter} {amount_micro}".encode()).digest(),
        )

    def vend(self, supply: Supply, amount_micro: int, txn: str) -> str:
        payment = self.payment(supply, amount_micro, txn)
        return vending.vend(self.conn, self.terms, MODULE, payment, self.now)

    def top_up(self, supply: Supply, amount_micro: int, txn: str, at_ms: int) -> bool:
        """Money that was credited at an earlier instant, without tokens."""
        payment = self.payment(supply, amount_micro, txn)
        return vending.record_top_up(self.conn, self.terms, payment, txn, at_ms, self.now)

    def exchange(self, supply: Supply, at_ms: int, closing_wh: int, new: str) -> bool:
        self.now = max(self.now, at_ms)
        installation = self.installation(new, at_ms)
        return registry.exchange_meter(self.conn, supply.id, closing_wh, installation, self.now)

    # --- looking ----------------------------------------------------------------------------

    def rows(self, text: str, *values: object) -> Sequence[Any]:
        """Rows of a statement of the test's own; one column comes as its values."""
        rows = self.conn.execute(text, values).fetchall()  # type: ignore[call-overload]
        return [row[0] if len(row) == 1 else row for row in rows]


@contextmanager
def working(url: str) -> Iterator[Utility]:
    """A utility with a tariff and nobody to supply."""
    with psycopg.connect(url, autocommit=True) as conn:
        centre = registry.add_centre(conn, "north", "North")
        tariff = registry.add_tariff(conn, "social", "Social", TARIFF)
        yield Utility(url, conn, centre, tariff)


@pytest.fixture
def utility(database_url: str) -> Iterator[Utility]:
    with working(database_url) as started:
        yield started


@pytest.fixture(scope="module")
def shared_utility(
    copied_database: Callable[[str], AbstractContextManager[str]], template_database: str
) -> Iterator[Utility]:
    """One for the tests of a module that look at their own accounts and meters only."""
    with copied_database(template_database) as url, working(url) as started:
        yield started


DAYS = 12


def live_through(utility: Utility) -> None:
    """Everything that may happen to accounts, in days with thousands of readings."""
    daily = {"outstanding": "40.00", "rules": [{"kind": "daily", "amount": "0.70"}]}
    share = {"outstanding": "90.00", "rules": [{"kind": "payment_share", "percent": "20"}]}
    emergency = {"limit": "9.00", "activation": "on_request"}
    window = [{"days": ["fri"], "from": "12:00", "to": "24:00"}]
    supplies = [
        utility.open(sts=True),
        utility.open(sts=True, debt=daily, reconnect_at="5.00"),
        utility.open(sts=True, debt=share, emergency=emergency),
        utility.open(sts=True, non_disconnection=window),
        utility.open(sts=True, emergency={"limit": "20.00", "activation": "automatic"}),
    ]
    spare = utility.meter(sts=True)
    late: list[Incoming] = []
    for day in range(DAYS):
        midnight = OPENED + day * DAY
        batch: list[Incoming] = []
        # Before the charges of midnight: many of these readings are steady.
        utility.now = midnight + DAY - 1
        for place, supply in enumerate(supplies):
            step = 4 if place else 1
            for quarter in range(0, 96, step):
                at_ms = midnight + quarter * 15 * MINUTE + 15 * MINUTE
                wh = OPENING_WH + (at_ms - OPENED) * (place + 1) // 9_000
                seq = (day * 96 + quarter) // step
                message = utility.reading(supply.meter, at_ms, wh, seq=seq)
                (late if (quarter + day + place) % 17 == 0 else batch).append(message)
        for first in range(0, len(batch), 40):
            utility.record(*batch[first : first + 40])
        utility.now = midnight + DAY
        if day % 4 == 1:
            utility.record(*late, *batch[:5])
            late.clear()
        clockwork.settle_due(utility.conn, utility.terms, utility.now, 100)
        clockwork.close_overdue(utility.conn, utility.now)
        for place, supply in enumerate(supplies):
            if (day + place) % 3 == 0:
                utility.vend(supply, 1_500_000_000 + place, f"p-{day}-{place}")
        if day == DAYS // 2:
            utility.top_up(supplies[2], 30_000_000, "import-1", utility.now - 3 * DAY)
            vending.record_reversal(
                utility.conn,
                utility.terms,
                "import-1",
                supplies[2].id,
                utility.now - DAY,
                utility.now,
            )
            vending.request_emergency_credit(
                utility.conn, utility.terms, supplies[2].id, utility.now
            )
    utility.record(*late)
    utility.exchange(
        supplies[0], utility.now - 1, OPENING_WH + (utility.now - OPENED) // 9_000 - 1, spare
    )
    handle_payments(utility, supplies)
    first = supplies[1]
    utility.read(first, utility.now + HOUR, 5)
    utility.read(first, utility.now - 2 * DAY - 1, 10**8)
    utility.read(first, utility.now + HOUR, OPENING_WH + 10**6, tq="lost")


def handle_payments(utility: Utility, supplies: Sequence[Supply]) -> None:
    """Cash in coins, payments that wait for a person, and one that moves to the right meter."""
    conn, terms, now = utility.conn, utility.terms, utility.now
    cash = replace(
        utility.payment(supplies[2], 50_130_000, "cash-1"),
        counted_micro=50_200_000,
        coin_micro=200_000,
    )
    vending.vend(conn, terms, MODULE, cash, now)
    for place in range(3):
        unknown = replace(utility.payment(supplies[3], 7_000_000, f"lost-{place}"), meter="1")
        held = suspects.receive(conn, terms, MODULE, unknown, now).suspect
        assert held is not None
        if place == 1:
            suspects.send_back(conn, held, who="vera", reason="the payer asked", now_ms=now)
        if place == 2:
            suspects.credit(
                conn,
                terms,
                MODULE,
                held,
                meter=supplies[3].meter,
                who="vera",
                reason="the payer named the meter",
                now_ms=now,
            )
    thin, right = utility.open(), utility.open()
    utility.vend(thin, 30_000_000, "wrong-1")
    of = {"to_meter": right.meter, "who": "payer", "reason": "one digit off", "now_ms": now}
    reversals.move(conn, terms, MODULE, "bank", "wrong-1", **of)
    pay_by_wallet(utility, supplies[2])


def pay_by_wallet(utility: Utility, supply: Supply) -> None:
    """A customer tries twice: no money, and then some."""
    conn, now = utility.conn, utility.now
    ears = Ears(utility.terms, MODULE, lambda: now, lambda: now)
    for key, said in (("k-1", Word("failed", "TF")), ("k-2", Word("paid", "TS", "B-1"))):
        new = NewAttempt(
            account_id=supply.id,
            method="wallet",
            started_by="customer:1",
            key=key,
            request_sha256=hashlib.sha256(key.encode()).digest(),
            amount_micro=40_000_000,
            unusual_confirmed=True,
            msisdn=None,
            lapses_wall_ms=None,
            next_check_wall_ms=None,
        )
        attempt = payment_attempts.start(conn, new, now, now)
        payment_words.hear(conn, ears, attempt, said, by="channel")


@pytest.fixture(scope="session")
def busy_database(
    copied_database: Callable[[str], AbstractContextManager[str]],
    frozen_database: Callable[[str], str],
    template_database: str,
) -> Iterator[str]:
    """Name of a database in which days went by; nobody may connect to it."""
    with copied_database(template_database) as url:
        with working(url) as utility:
            live_through(utility)
        yield frozen_database(url)


@pytest.fixture
def busy_url(
    copied_database: Callable[[str], AbstractContextManager[str]], busy_database: str
) -> Iterator[str]:
    """A copy of that database, of the test's own."""
    with copied_database(busy_database) as url:
        yield url


@pytest.fixture
def busy(busy_url: str) -> Iterator[Connection]:
    """As the application."""
    with psycopg.connect(busy_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def busy_owner(busy_url: str, as_owner: Callable[[str], str]) -> Iterator[Connection]:
    """As the one who owns the database, and can damage it."""
    with psycopg.connect(as_owner(busy_url), autocommit=True) as conn:
        yield conn


def receipts(recorded: Recorded) -> list[tuple[int, int]]:
    """Up to which (boot, seq) meters are told that all is kept."""
    return [(each.boot, each.seq) for each in recorded.receipts]
