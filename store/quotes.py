"""Quotes that partners were given, and what a payment that names one is told.

A quote binds nobody: what money buys is decided when it is credited. Law: nothing of its basis
changed in between, then the payment's lines are those of the quote, to the last micro-unit; the
lines differ, then something of the basis did, and the payment's answer says what.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from credit_engine.days import DAY_MS, cell_at
from credit_engine.outcome import Outcome
from credit_engine.quote import Quote
from credit_engine.terms import Terms
from schemas.identity import command_id
from schemas.quantities import format_micro
from store.settlement import AccountState
from store.sql import query

# Nobody pays by a quote of the day before yesterday; what a payment was told is kept with it.
KEPT_MS = 2 * DAY_MS
# With each new quote so many old ones go: more than come, and a bounded time.
REMOVED_AT_ONCE = 5


@dataclass(frozen=True, slots=True)
class Basis:
    """All that a quote of an amount follows from. `consumed_wh`: in the band's period so far, which
    is where its blocks stand; `taxed_micro`: charges of the month that taxes are rounded over.
    """

    balance_micro: int
    debt_micro: int
    debt_share_used_micro: int
    consumed_wh: int
    taxed_micro: int
    tariff_version: str
    period: str
    band: str
    terms_revision: int


@dataclass(frozen=True, slots=True)
class Named:
    """The quote that a payment named. `equal`: the vend is the quote, line by line; None while the
    payment waits. `changed`: {what, before, after}, in words of this contract.
    """

    quote_id: str
    equal: bool | None
    changed: Sequence[Mapping[str, str]]


def basis_of(state: AccountState, terms: Terms, outcome: Outcome) -> Basis:
    """What a quote at the instant of `outcome` follows from. A tariff version is in force then."""
    totals, cell = outcome.totals, cell_at(terms.tariff, outcome.status.at_ms)
    return Basis(
        balance_micro=totals.balance_micro,
        debt_micro=totals.debt_micro,
        debt_share_used_micro=totals.cap_used_micro if totals.cap_month == cell.day.month else 0,
        consumed_wh=totals.consumed_wh.get(cell.position_key, 0),
        taxed_micro=sum(totals.taxed_micro.get(key, 0) for key, _ in cell.energy_taxes),
        tariff_version=cell.version.valid_from.isoformat(),
        period=cell.position_key[0],
        band=cell.band.name,
        terms_revision=state.terms_revision,
    )


def quote_lines(offered: Quote) -> list[Mapping[str, object]]:
    """The lines of a quote as JSON: name, amount, and with energy its Wh and price per kWh."""
    lines: list[Mapping[str, object]] = []
    for line in offered.lines:
        form: dict[str, object] = {"name": line.name, "amount": format_micro(line.amount_micro)}
        if line.wh is not None and line.price_micro_per_wh is not None:
            form["wh"] = line.wh
            # µ per Wh is thousandths of a unit per kWh.
            form["price"] = format_micro(line.price_micro_per_wh * 1000)
        lines.append(form)
    return lines


def keep(
    conn: Connection,
    channel: str,
    account_id: int,
    meter: str,
    offered: Quote,
    basis: Basis,
    valid_until_ms: int,
    now_ms: int,
) -> str:
    """Keep a quote that is given out; returns its id."""
    quote_id = command_id(now_ms, secrets.token_bytes(10))
    with conn.transaction():
        conn.execute(
            query("keep_quote"),
            {
                "id": quote_id,
                "channel": channel,
                "account": account_id,
                "meter": meter,
                "amount_micro": offered.amount_micro,
                "energy_wh": offered.energy_wh,
                "lines": Jsonb(quote_lines(offered)),
                "basis": Jsonb(asdict(basis)),
                "quoted_ms": offered.at_ms,
                "valid_until_ms": valid_until_ms,
            },
        )
        old = {"before_ms": now_ms - KEPT_MS, "limit": REMOVED_AT_ONCE}
        conn.execute(query("remove_old_quotes"), old)
    return quote_id


def note(conn: Connection, channel: str, partner_txn_id: str, quote_id: str) -> None:
    """A payment that waits for a person named a quote."""
    _note(conn, channel, partner_txn_id, quote_id, None, None)


def compare(
    conn: Connection,
    channel: str,
    partner_txn_id: str,
    quote_id: str,
    meter: str,
    amount_micro: int,
    offered: Quote | None,
    basis: Basis,
) -> None:
    """Note what became of the quote that a payment named, in the transaction that credits it.

    `offered`: what the payment buys; None where its energy is free.
    """
    row = conn.execute(query("quote_of_channel"), {"id": quote_id, "channel": channel}).fetchone()
    changed: list[dict[str, str]] = []
    same = False
    if row is None:
        changed = [_change("quote_id", "unknown, or older than two days", quote_id)]
    else:
        quoted_meter, quoted_micro, energy_wh, lines, quoted_basis, _ = row
        same = (
            quoted_meter == meter
            and offered is not None
            and (energy_wh, lines) == (offered.energy_wh, quote_lines(offered))
        )
        if not same:
            if quoted_meter != meter:
                changed.append(_change("meter", quoted_meter, meter))
            if quoted_micro != amount_micro:
                changed.append(
                    _change("amount", format_micro(quoted_micro), format_micro(amount_micro))
                )
            changed += differences(quoted_basis, asdict(basis))
    _note(conn, channel, partner_txn_id, quote_id, same, changed)


def named_by(conn: Connection, channel: str, partner_txn_id: str) -> Named | None:
    """The quote that a payment named; None where it named none."""
    of = {"channel": channel, "partner_txn_id": partner_txn_id}
    row = conn.execute(query("payment_quote"), of).fetchone()
    return None if row is None else Named(row[0], row[1], row[2] or ())


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, str]]:
    """What differs between two bases: amounts as decimal strings, energy in Wh."""
    return [
        _change(name.removesuffix("_micro"), _said(name, before[name]), _said(name, after[name]))
        for name in after
        if before[name] != after[name]
    ]


def _said(name: str, value: Any) -> str:
    return format_micro(value) if name.endswith("_micro") else str(value)


def _change(what: str, before: str, after: str) -> dict[str, str]:
    return {"what": what, "before": before, "after": after}


def _note(
    conn: Connection,
    channel: str,
    partner_txn_id: str,
    quote_id: str,
    equal: bool | None,
    changed: Sequence[Mapping[str, str]] | None,
) -> None:
    conn.execute(
        query("note_payment_quote"),
        {
            "channel": channel,
            "partner_txn_id": partner_txn_id,
            "quote": quote_id,
            "equal": equal,
            "changed": None if changed is None else Jsonb(list(changed)),
        },
    )
