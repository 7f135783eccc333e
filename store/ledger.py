"""The rows of the double-entry ledger: what is recorded under each key, and what is added to it.

Nothing recorded is edited: a key whose posting is otherwise today gets one more row.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby
from operator import itemgetter
from struct import Struct
from typing import Any

from psycopg import Connection

from credit_engine.outcome import Legs, Posting
from credit_engine.settlement import Correction, New, Posted
from store import binary
from store.binary import Int8s
from store.sql import query


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One transaction to be recorded; `correction` counts how often its key was corrected."""

    account_id: int
    key: str
    correction: int
    corrects: int | None
    kind: str
    from_ms: int | None
    at_ms: int
    local_day: date
    band: str | None
    energy_wh: int
    legs: Legs
    balance_micro: int
    explanation: Mapping[str, object]


@dataclass(slots=True)
class Recorded:
    """What the ledger holds from an anchor on, by key."""

    posted: list[Posted] = field(default_factory=list)
    corrections: dict[str, int] = field(default_factory=dict)
    # kind, from_ms, at_ms, local_day, band of the first transaction of a key
    places: dict[str, tuple[str, int | None, int, date, str | None]] = field(default_factory=dict)


def ledger_codes(conn: Connection) -> dict[int, str]:
    """The chart of accounts: number to code."""
    return {number: code for code, number in conn.execute(query("ledger_accounts"))}


def numbers_of_accounts(conn: Connection, codes: Collection[str]) -> list[int]:
    """The numbers of ledger accounts, in the order given; those not known yet are added."""
    numbers = {code: number for number, code in ledger_codes(conn).items()}
    missing = set(codes) - numbers.keys()
    if missing:
        conn.execute(query("add_ledger_accounts"), {"codes": sorted(missing)})
        numbers = {code: number for number, code in ledger_codes(conn).items()}
    return [numbers[code] for code in codes]


def recorded_from(conn: Connection, anchors: Mapping[int, int]) -> dict[int, Recorded]:
    """By account: what the ledger holds from its anchor (an instant in ms) on."""
    codes = ledger_codes(conn)
    since = {"accounts": Int8s(list(anchors)), "from": Int8s(list(anchors.values()))}
    rows = conn.execute(query("posted_from"), since).fetchall()
    recorded = {account: Recorded() for account in anchors}
    for account, of_account in groupby(rows, key=itemgetter(0)):
        recorded[account] = _recorded(codes, of_account)
    return recorded


def _recorded(codes: Mapping[int, str], rows: Iterable[Sequence[Any]]) -> Recorded:
    recorded = Recorded()
    first: dict[str, int] = {}
    net: dict[str, dict[str, int]] = {}
    energy: dict[str, int] = {}
    for _, row_id, key, correction, legs, amounts, energy_wh, kind, *place in rows:
        if key not in first:
            first[key] = row_id
            recorded.places[key] = (kind, *place)
        recorded.corrections[key] = max(correction, recorded.corrections.get(key, 0))
        energy[key] = energy.get(key, 0) + energy_wh
        sums = net.setdefault(key, {})
        for leg, amount in zip(legs, amounts, strict=True):
            sums[codes[leg]] = sums.get(codes[leg], 0) + amount
    recorded.posted = [
        Posted(
            first[key], key, tuple((code, sums[code]) for code in sums if sums[code]), energy[key]
        )
        for key, sums in net.items()
    ]
    return recorded


def rows_to_write(
    account_id: int, balance_micro: int, entries: Sequence[Correction | New], recorded: Recorded
) -> tuple[LedgerRow, ...]:
    rows: list[LedgerRow] = []
    for entry in entries:
        legs = entry.posting.legs if isinstance(entry, New) else entry.legs
        balance_micro += sum(amount for code, amount in legs if code == "customer")
        if isinstance(entry, New):
            rows.append(_new_row(account_id, entry.posting, balance_micro))
        else:
            rows.append(_correcting_row(account_id, entry, recorded, balance_micro))
    return tuple(rows)


def _new_row(account_id: int, posting: Posting, balance_micro: int) -> LedgerRow:
    return LedgerRow(
        account_id=account_id,
        key=posting.key,
        correction=0,
        corrects=None,
        kind=posting.kind,
        from_ms=posting.explanation["segment"]["from_ms"] if posting.kind == "energy" else None,
        at_ms=posting.at_ms,
        local_day=posting.local_day,
        band=posting.band,
        energy_wh=posting.energy_wh,
        legs=posting.legs,
        balance_micro=balance_micro,
        explanation=posting.explanation,
    )


def _correcting_row(
    account_id: int, entry: Correction, recorded: Recorded, balance_micro: int
) -> LedgerRow:
    kind, from_ms, at_ms, local_day, band = recorded.places[entry.key]
    now = {} if entry.posting is None else {"now": entry.posting.explanation}
    return LedgerRow(
        account_id=account_id,
        key=entry.key,
        correction=recorded.corrections[entry.key] + 1,
        corrects=entry.corrects,
        kind=kind,
        from_ms=from_ms,
        at_ms=at_ms,
        local_day=local_day,
        band=band,
        energy_wh=entry.energy_wh,
        legs=entry.legs,
        balance_micro=balance_micro,
        explanation={"corrects": entry.corrects, "reversed": entry.posting is None, **now},
    )


def write_ledger(conn: Connection, rows: Sequence[LedgerRow], now_ms: int) -> None:
    codes = list({code for row in rows for code, _ in row.legs})
    numbers = dict(zip(codes, numbers_of_accounts(conn, codes), strict=True))
    recorded_us = binary.microseconds(now_ms)
    with conn.cursor().copy(query("copy_ledger")) as copy:
        copy.write(binary.COPY_HEAD)
        copy.write(b"".join([_packed(row, numbers, recorded_us) for row in rows]))
        copy.write(binary.COPY_TAIL)


# The columns of fixed size, each behind its length; `copy_ledger` names all in this order.
_COLUMNS = 16
_FIXED = Struct("!hiqiiiqiqiqiiiqiq").pack


def _packed(row: LedgerRow, numbers: Mapping[str, int], recorded_us: int) -> bytes:
    legs = row.legs
    customer_micro = sum([amount for code, amount in legs if code == "customer"])
    fixed = _FIXED(
        _COLUMNS,
        8,
        row.account_id,
        4,
        row.correction,
        8,
        row.at_ms,
        8,
        recorded_us,
        8,
        row.energy_wh,
        4,
        binary.day_number(row.local_day),
        8,
        customer_micro,
        8,
        row.balance_micro,
    )
    return b"".join(
        (
            fixed,
            binary.int8(row.from_ms),
            binary.int8(row.corrects),
            binary.text(row.key),
            binary.text(row.kind),
            binary.text(row.band),
            binary.array_field(binary.int2_array([numbers[code] for code, _ in legs])),
            binary.array_field(binary.int8_array([amount for _, amount in legs])),
            binary.jsonb(row.explanation),
        )
    )
