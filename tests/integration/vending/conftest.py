"""A vending desk on a database of its own, and meters that take what the outbox holds for them."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from credit_engine.terms import Installation
from schemas.quantities import format_instant, parse_instant_ms
from schemas.telemetry import Ack
from simulators.token_entry import token_entry
from store import key_changes, registry, supply, vending
from store.registry import NewMeter
from store.terms import TermsCache
from tokens import meter_record
from tokens.acceptance import MeterTokenState
from tokens.keys import KeyAttributes, VendingKey, decoder_key
from tokens.numbers import check_digit
from tokens.security_module import SoftwareSecurityModule

OPENED = parse_instant_ms("2026-03-01T00:00:00Z")
NOON = parse_instant_ms("2026-03-02T12:00:00Z")
HOUR = 3_600_000
HELD = KeyAttributes(sgc="123456", krn=1, kt=2, ken=255, ti="01", base_date=2014, ea=11, dkga=4)
STA_HELD = replace(HELD, ea=7)
VENDING_KEYS = {
    ("123456", 1): VendingKey(bytes(range(1, 21))),
    ("123456", 2): VendingKey(bytes(range(21, 41))),
    ("123456", 3): VendingKey(bytes(range(41, 61)), base_date=2035),
    ("123456", 4): VendingKey(bytes.fromhex("abababababababab")),
    ("123456", 5): VendingKey(bytes(range(81, 101)), ken=110, base_date=2014),
    ("654321", 1): VendingKey(bytes(range(61, 81))),
}
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


def drn(serial: int, maker: str = "07") -> str:
    payload = f"{maker}{serial:08d}"
    return payload + check_digit(payload)


def pan(number: str) -> str:
    payload = f"600727{number}" if len(number) == 11 else f"0000{number}"
    return payload + check_digit(payload)


@dataclass
class Box:
    """A meter in its housing: it takes tokens from the network or the keypad, and answers."""

    conn: Connection
    id: int
    number: str
    memory: MeterTokenState
    credit_wh: int = 0

    @property
    def meter_pan(self) -> str:
        return pan(self.number)

    def enter(self, digits: str) -> dict[str, Any]:
        entry = token_entry(lambda: self.memory)(None, digits)
        self.memory = meter_record.load(json.loads(entry.memory))
        self.credit_wh += entry.credited_wh
        return dict(entry.outcome)

    def waiting(self) -> list[tuple[str, list[str]]]:
        """(command, tokens) of the outbox for this meter, oldest first."""
        return [
            (command.cmd, command.args["tokens"])
            for number, _, command in supply.queued_commands(self.conn, 1000)
            if number == self.number and command.type == "token"
        ]

    def take(self, now_ms: int, *, lose_answers: bool = False) -> list[list[str]]:
        """Take every waiting command; returns the results by command."""
        taken = []
        for command, digits in self.waiting():
            supply.mark_sent(self.conn, [command], now_ms)
            outcomes = [self.enter(each) for each in digits]
            if not lose_answers:
                self.answer(command, outcomes, now_ms)
            taken.append([each["result"] for each in outcomes])
        return taken

    def answer(self, command: str, outcomes: list[dict[str, Any]], now_ms: int) -> None:
        # Nobody answers what was not said.
        supply.mark_sent(self.conn, [command], now_ms)
        good = all(
            each["result"] in {"Accept", "1stKCT", "2ndKCT", "UsedError"} for each in outcomes
        )
        ack = Ack(
            meter=self.number,
            cmd=command,
            state="done" if good else "failed",
            ts_ms=now_ms,
            relay=None,
            reg={},
            tokens=tuple(outcomes),  # type: ignore[arg-type] # as the simulator makes them
            why=None,
        )
        assert supply.answer(self.conn, ack, self.number, now_ms)


@dataclass
class Desk:
    """Who sells, and what the tests look at."""

    url: str
    conn: Connection
    module: SoftwareSecurityModule
    tariff: int
    customer: int
    serials: Iterator[int] = field(default_factory=lambda: count(1))
    payments: Iterator[int] = field(default_factory=lambda: count(1))
    terms: TermsCache = field(default_factory=TermsCache)

    def meter(
        self,
        held: KeyAttributes = HELD,
        *,
        centre: str = "north",
        served: bool = True,
        third_kct: bool = False,
        heard: bool = False,
        maker: str = "07",
    ) -> Box:
        serial = next(self.serials)
        number = drn(serial, maker)
        where = registry.add_centre(self.conn, centre, centre.title())
        new = NewMeter(number, pan(number), held, third_kct=third_kct)
        meter_id = registry.add_meter(self.conn, where, new)
        if served:
            registry.open_account(
                self.conn,
                number=f"A-{serial}",
                customer=self.customer,
                centre=where,
                tariff=self.tariff,
                terms={"activated_at": format_instant(OPENED)},
                installation=Installation(number, 10**9, OPENED, 0, 100_000),
                now_ms=OPENED,
            )
        if heard:
            self.conn.execute(
                "UPDATE meter_state SET seen_at = now() WHERE meter_id = %s", (meter_id,)
            )
        key = decoder_key(VENDING_KEYS[held.sgc, held.krn], pan(number), held)
        return Box(self.conn, meter_id, number, MeterTokenState(key, held))

    def payment(self, meter: str, txn: str | None = None, amount: int = 100) -> vending.Payment:
        name = txn or f"P-{next(self.payments)}"
        return vending.Payment(
            channel="bank",
            partner_txn_id=name,
            meter=meter,
            amount_micro=amount * 1_000_000,
            paid_ms=NOON,
            request_sha256=hashlib.sha256(f"{name} {meter} {amount}".encode()).digest(),
        )

    def vend(self, box: Box, now_ms: int = NOON, **more: Any) -> str:
        of = self.payment(box.number, **more)
        return vending.vend(self.conn, self.terms, self.module, of, now_ms)

    def adopt(self, now_ms: int = NOON, **more: Any) -> key_changes.VendingKeyRevision:
        wanted = {"sgc": "123456", "krn": 2, "ken": 255, "base_date": 2014, "dkga": 4}
        return key_changes.adopt_vending_key(
            self.conn,
            self.module,
            **{**wanted, "from_ms": now_ms, "by": "vera", "now_ms": now_ms, **more},
        )

    def held(self, box: Box) -> KeyAttributes:
        with self.conn.transaction():
            return key_changes.lock_token_meter(self.conn, box.id, NOON).held

    def tokens(self, top_up: str) -> list[tuple[int, int, int, str | None]]:
        """(ordinal, class, subclass, result) of a top-up."""
        return self.conn.execute(
            "SELECT ordinal, class, subclass, result FROM token WHERE top_up_id = %s "
            "ORDER BY ordinal",
            (top_up,),
        ).fetchall()

    def state(self, top_up: str) -> tuple[bool, bool]:
        """Whether a top-up is accepted, and whether it is rejected."""
        row = self.conn.execute(
            "SELECT accepted_at IS NOT NULL, rejected_at IS NOT NULL FROM top_up WHERE id = %s",
            (top_up,),
        ).fetchone()
        assert row is not None
        return row


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    with psycopg.connect(database_url, autocommit=True) as conn:
        yield Desk(
            url=database_url,
            conn=conn,
            module=SoftwareSecurityModule(VENDING_KEYS),
            tariff=registry.add_tariff(conn, "flat", "Flat", TARIFF),
            customer=registry.add_customer(conn, "Aminata Sow", OPENED),
        )
