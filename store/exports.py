"""Whole lists for other systems, row by row: accounts, meters, top-ups, the audit log.

A list is read a portion at a time, each portion by a query of its own, so that who reads slowly
keeps neither a connection nor a snapshot; rows stand in the order of their ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from psycopg import Connection

from credit_engine.days import DAY_MS
from schemas.identity import command_id
from store import audit_log
from store.operators import OperatorRole
from store.sql import query

Exported = Literal["accounts", "meters", "top-ups", "audit-log"]
# Of one query: a second of work at most, and a few hundred kilobytes.
PORTION = 2000
# The id of a top-up begins with the instant at which it was entered; it is credited near that.
_ID_MARGIN_MS = DAY_MS


@dataclass(frozen=True, slots=True)
class Export:
    """`columns` are named for their kinds: `_micro` money, `_ms` instants. `timed`: of a time from
    an instant to another. `roles`: who may take it.
    """

    query: str
    columns: tuple[str, ...]
    timed: bool
    roles: frozenset[OperatorRole]


_FIGURES: frozenset[OperatorRole] = frozenset({"finance", "auditor", "admin"})
EXPORTS: Mapping[Exported, Export] = {
    "accounts": Export(
        "export_accounts_of_centres",
        (
            "account", "holder", "centre", "tariff", "currency", "meter", "supply",
            "balance_micro", "debt_micro", "as_of", "opened_ms",
        ),
        timed=False,
        roles=_FIGURES,
    ),
    "meters": Export(
        "export_meters_of_centres",
        (
            "meter", "centre", "gateway", "transformer", "account", "meter_pan", "sgc", "krn",
            "ti", "online", "seen_ms", "desired_relay", "reported_relay",
        ),
        timed=False,
        roles=_FIGURES,
    ),
    "top-ups": Export(
        "export_top_ups_of_centres",
        (
            "top_up", "receipt_number", "account", "meter", "centre", "channel", "partner_txn_id",
            "amount_micro", "currency", "energy_wh", "paid_ms", "credited_ms", "reversed_ms",
        ),
        timed=True,
        roles=_FIGURES,
    ),
    "audit-log": Export(
        "export_acts_of_centres",
        ("id", "at_ms", "who", "action", "subject", "centre", "reason", "before", "after"),
        timed=True,
        roles=frozenset({"auditor", "admin"}),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for: of the centres of who asks (None: every one), or of one by its code."""

    what: Exported
    centres: Sequence[int] | None
    centre: str | None
    from_ms: int
    to_ms: int


def portion(conn: Connection, wanted: Wanted, after: Any) -> list[tuple[Any, ...]]:
    """The next rows, at most PORTION; the first value of each is where the next portion begins."""
    of = {
        "after": after,
        "centres": None if wanted.centres is None else list(wanted.centres),
        "centre": wanted.centre,
        "from_ms": wanted.from_ms,
        "to_ms": wanted.to_ms,
        "first_id": command_id(max(wanted.from_ms - _ID_MARGIN_MS, 0), bytes(10)),
        "end_id": command_id(wanted.to_ms + _ID_MARGIN_MS, bytes(10)),
        "limit": PORTION,
    }
    return conn.execute(query(EXPORTS[wanted.what].query), of).fetchall()


def record(conn: Connection, wanted: Wanted, *, who: str, reason: str | None, now_ms: int) -> None:
    """Somebody takes a list away: that is kept before he has its first row."""
    after: dict[str, object] = {"centre": wanted.centre}
    if EXPORTS[wanted.what].timed:
        after |= {"from_ms": wanted.from_ms, "to_ms": wanted.to_ms}
    audit_log.record(
        conn, who, "export.take", f"export:{wanted.what}", now_ms, reason=reason, after=after
    )
