"""A centre in a database of the test's own: accounts, readings, payments and a clock to turn."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from credit_engine.terms import Installation
from schemas.decoding import decode_up
from schemas.quantities import format_instant, parse_instant_ms
from schemas.topics import parse
from store import centres, clockwork, decisions, ingest, registry, supply, vending
from store.incoming import Incoming, Recorded
from store.registry import NewMeter
from store.settlement import AccountState, read_account
from store.terms import TermsCache

OPENED = "2026-03-01T00:00:00Z"


def tariff_form(*, price: str = "2", standing: str = "0", zone: str = "Africa/Nouakchott") -> Any:
    """One flat price a kWh, so that a test can be followed in the head."""
    return {
        "timezone": zone,
        "currency": "MRU",
        "holidays": [],
        "tariff": {"versions": [version(price=price, standing=standing)]},
    }


def version(*, valid_from: str = "2026-01-01", price: str = "2", standing: str = "0") -> Any:
    return {
        "valid_from": valid_from,
        "period": "month",
        "bands": [{"name": "all", "method": "graduated", "blocks": [{"price": price}]}],
        "standing_per_day": standing,
    }


@dataclass
class Centre:
    """What operators and meters do, at instants that the test names."""

    conn: Connection
    url: str
    centre: int
    now: int = parse_instant_ms(OPENED)
    terms: TermsCache = field(default_factory=TermsCache)
    serials: Iterator[int] = field(default_factory=lambda: count(1))
    seqs: Iterator[int] = field(default_factory=lambda: count(1))

    def set(self, **settings: Any) -> None:
        """What the centre asks of its guards; a test that turns to days without readings sets
        `reading_hours=None`.
        """
        centres.change(self.conn, "north", settings, by="chief", now_ms=self.now)

    def sent(self) -> None:
        """Everything in the outbox is with the broker now."""
        queued = supply.queued_commands(self.conn, 1000)
        supply.mark_sent(self.conn, [each.command.cmd for each in queued], self.now)

    def tariff(self, **form: Any) -> int:
        code = f"T{next(self.serials)}"
        return registry.add_tariff(self.conn, code, code, tariff_form(**form))

    def open(self, tariff: int | None = None, **terms: Any) -> int:
        """An account opened at OPENED with register 0; its meter is `meter(account)`."""
        serial = next(self.serials)
        number = f"{serial:011d}"
        registry.add_meter(self.conn, self.centre, NewMeter(number))
        opened = parse_instant_ms(OPENED)
        return registry.open_account(
            self.conn,
            number=f"A-{serial}",
            customer=registry.add_customer(self.conn, "Mariem", opened),
            centre=self.centre,
            tariff=self.tariff() if tariff is None else tariff,
            terms={"activated_at": OPENED, **terms},
            installation=Installation(number, 10**9, opened, 0),
            now_ms=self.now,
        )

    def meter(self, account: int) -> str:
        row = self.conn.execute(
            "SELECT number FROM installation JOIN meter ON meter.id = meter_id"
            " WHERE account_id = %s ORDER BY installation.opened_at DESC LIMIT 1",
            (account,),
        ).fetchone()
        assert row is not None
        return str(row[0])

    def number(self, account: int) -> str:
        row = self.conn.execute("SELECT number FROM account WHERE id = %s", (account,)).fetchone()
        assert row is not None
        return str(row[0])

    def pay(self, account: int, amount: int, at: str, txn: str | None = None) -> None:
        """Credit of `amount` whole units given at an instant, known now."""
        name = txn or f"p{next(self.serials)}"
        payment = vending.Payment(
            "desk", name, self.meter(account), amount * 10**6, parse_instant_ms(at), b"0" * 32
        )
        self.turn(at)
        vending.record_top_up(self.conn, self.terms, payment, name, payment.paid_ms, self.now)

    def read(self, account: int, at: str, wh: int, **more: Any) -> Recorded:
        return self.say(account, self.reading(at, wh, **more), at)

    def reading(self, at: str, wh: int, **more: Any) -> Any:
        return {"v": 1, "boot": 1, "seq": next(self.seqs), "ts": at, "reg": {"1.8.0": wh}, **more}

    def say(self, account: int, form: Any, at: str) -> Recorded:
        text = f"pm/v1/m/{self.meter(account)}/up/reading"
        topic, payload = parse(text), json.dumps(form).encode()
        self.turn(at)
        message = Incoming(topic, text, payload, None, decode_up(topic, payload, None, self.now))
        return ingest.record(self.conn, self.terms, [message], self.now)

    def instant(self, later_s: int = 0) -> str:
        """The clock, or so many seconds after it."""
        return format_instant(self.now + later_s * 1000)

    def turn(self, at: str) -> None:
        """The clock, which never goes back."""
        self.now = max(self.now, parse_instant_ms(at))

    def tick(self, at: str) -> None:
        """What time alone brings up to an instant, in one round."""
        self.turn(at)
        while clockwork.settle_due(self.conn, self.terms, self.now, 100):
            pass
        clockwork.end_holds(self.conn, self.terms, self.now, 100)

    def state(self, account: int) -> AccountState:
        state = read_account(self.conn, account)
        assert state is not None
        return state

    def decided(self, account: int) -> list[tuple[str, str, str]]:
        """(kind, instant, cause) in the order in which they were decided."""
        found = decisions.of_account(self.conn, account, limit=1000)
        return [(one.kind, format_instant(one.at_ms), one.cause) for one in reversed(found)]

    def guards(self, account: int) -> list[tuple[str, Any]]:
        """(kind, what the guards found) in the order in which they were decided."""
        found = decisions.of_account(self.conn, account, limit=1000)
        return [(one.kind, dict(one.guards)) for one in reversed(found)]

    def took(self, account: int) -> list[int]:
        """Seconds from payment to supply reported on, of those that found it off."""
        rows = self.conn.execute(
            "SELECT (ms_of(on_supply_at) - credited_ms) / 1000 FROM top_up"
            " WHERE account_id = %s AND reconnects AND on_supply_at IS NOT NULL ORDER BY id",
            (account,),
        )
        return [seconds for (seconds,) in rows]

    def kinds(self, account: int) -> list[str]:
        return [kind for kind, _, _ in self.decided(account)]

    def orders(self, account: int) -> list[tuple[str, str]]:
        """(to, state) of the relay commands of the account's meter, oldest first."""
        return self.conn.execute(
            "SELECT args ->> 'to', state FROM command JOIN meter ON meter.id = meter_id"
            " WHERE number = %s AND type = 'relay' ORDER BY ctr",
            (self.meter(account),),
        ).fetchall()


@pytest.fixture
def desk(database_url: str) -> Iterator[Centre]:
    with psycopg.connect(database_url, autocommit=True) as conn:
        yield Centre(conn, database_url, registry.add_centre(conn, "north", "North"))
