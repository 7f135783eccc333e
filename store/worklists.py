"""What operators look through in their centres, newest first: holds, adjustments, drafts, tokens.

`centres` are the ids that an operator has, None for every centre; what lies outside is not found.
Lists return one more than `limit` when there is a next page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from psycopg import Connection

from store.adjustments import Adjustment, AdjustmentState
from store.decisions import Decision
from store.engineering import EngineeringToken
from store.errors import NotFound
from store.holds import Hold
from store.issuing import Issued
from store.sql import query
from store.suspects import Suspect

DraftState = Literal["drafted", "approved", "withdrawn"]


@dataclass(frozen=True, slots=True)
class AccountReport:
    """An account as its centre knows it. `tariff` prices it today, local date."""

    number: str
    holder: str
    centre: str
    tariff: str
    opened_ms: int
    low_credit_micro: int
    supply: str
    meter: str | None


@dataclass(frozen=True, slots=True)
class HeldAccount:
    account: str
    hold: Hold


@dataclass(frozen=True, slots=True)
class AdjustedAccount:
    account: str
    currency: str
    adjustment: Adjustment


@dataclass(frozen=True, slots=True)
class TariffReport:
    """A tariff; `versions` in the form of rating.md section 10, oldest first."""

    code: str
    name: str
    currency: str
    timezone: str
    accounts: int
    versions: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Draft:
    """A version on its way; `version` in the form of rating.md section 10."""

    id: int
    tariff: str
    version: Mapping[str, Any]
    note: str
    state: DraftState
    drafted_by: str
    drafted_ms: int
    decided_by: str | None
    decided_ms: int | None


@dataclass(frozen=True, slots=True)
class HeldPayment:
    """A suspect payment with the account that its meter serves; None where nobody has the meter."""

    account: str | None
    currency: str | None
    suspect: Suspect


@dataclass(frozen=True, slots=True)
class Reversible:
    """A top-up as its channel named it."""

    account_id: int
    account: str
    channel: str
    partner_txn_id: str


def account(conn: Connection, account_id: int, *, now_ms: int) -> AccountReport:
    """One account, by an id that the caller may see."""
    of = {"account": account_id, "now_ms": now_ms}
    return AccountReport(*_row(conn, "account_report", of, "The account"))


def holds(
    conn: Connection,
    *,
    account: str | None,
    in_force: bool,
    centres: Sequence[int] | None,
    before_id: int | None,
    limit: int,
) -> list[HeldAccount]:
    """All, those of an account, or those that nobody released."""
    of = {"account": account, "in_force": in_force, "hold": None}
    rows = conn.execute(query("holds_newest"), of | _page(centres, before_id, limit))
    return [HeldAccount(row[0], Hold(*row[1:])) for row in rows]


def hold(conn: Connection, number: int, centres: Sequence[int] | None) -> HeldAccount:
    """Errors: NotFound."""
    of = {"account": None, "in_force": False, "hold": number} | _page(centres, None, 1)
    row = _row(conn, "holds_newest", of, "The hold")
    return HeldAccount(row[0], Hold(*row[1:]))


def adjustments(
    conn: Connection,
    *,
    account: str | None,
    state: AdjustmentState | None,
    centres: Sequence[int] | None,
    before_id: str | None,
    limit: int,
) -> list[AdjustedAccount]:
    """All, those of an account, or those in a state."""
    of = {"account": account, "state": state, "id": None}
    rows = conn.execute(query("adjustments_newest"), of | _page(centres, before_id, limit))
    return [AdjustedAccount(row[0], row[1], Adjustment(*row[2:])) for row in rows]


def adjustment(conn: Connection, number: str, centres: Sequence[int] | None) -> AdjustedAccount:
    """Errors: NotFound."""
    of = {"account": None, "state": None, "id": number} | _page(centres, None, 1)
    row = _row(conn, "adjustments_newest", of, "The adjustment")
    return AdjustedAccount(row[0], row[1], Adjustment(*row[2:]))


def decisions(
    conn: Connection, account_id: int, *, before: int | None, limit: int
) -> list[Decision]:
    """The decisions of an account; the cursor is the ordinal."""
    of = {"account": account_id, "before": before, "limit": limit + 1}
    return [Decision(*row) for row in conn.execute(query("decisions_before"), of)]


def tariffs(conn: Connection, code: str | None = None) -> list[TariffReport]:
    """Every tariff with its versions, by code; or one."""
    return [TariffReport(*row) for row in conn.execute(query("tariff_reports"), {"code": code})]


def tariff(conn: Connection, code: str) -> TariffReport:
    """Errors: NotFound."""
    found = tariffs(conn, code)
    if not found:
        raise NotFound(f"Tariff {code}")
    return found[0]


def drafts(
    conn: Connection, *, state: DraftState | None, before_id: int | None, limit: int
) -> list[Draft]:
    """Drafts of every tariff, all or in a state."""
    of = {"state": state, "draft": None, "before": before_id, "limit": limit + 1}
    return [Draft(*row) for row in conn.execute(query("drafts_newest"), of)]


def draft(conn: Connection, number: int) -> Draft:
    """Errors: NotFound."""
    of = {"state": None, "draft": number, "before": None, "limit": 1}
    return Draft(*_row(conn, "drafts_newest", of, "The draft"))


def engineering_tokens(
    conn: Connection,
    *,
    waiting: bool,
    centres: Sequence[int] | None,
    before_id: int | None,
    limit: int,
) -> list[EngineeringToken]:
    """Requests, all or those that wait for a decision."""
    of = {"waiting": waiting, "id": None} | _page(centres, before_id, limit)
    rows = conn.execute(query("engineering_tokens_of_centres"), of)
    return [EngineeringToken(*row) for row in rows]


def engineering_token(
    conn: Connection, number: int, centres: Sequence[int] | None
) -> EngineeringToken:
    """Errors: NotFound."""
    of = {"waiting": False, "id": number} | _page(centres, None, 1)
    return EngineeringToken(*_row(conn, "engineering_tokens_of_centres", of, "The request"))


def suspects(
    conn: Connection,
    *,
    waiting: bool,
    centres: Sequence[int] | None,
    after_id: str | None,
    limit: int,
) -> list[HeldPayment]:
    """Oldest first, all or those that wait."""
    of = {"waiting": waiting, "id": None, "centres": _listed(centres), "after": after_id}
    rows = conn.execute(query("suspects_of_centres"), of | {"limit": limit + 1})
    return [HeldPayment(row[0], row[1], Suspect(*row[2:])) for row in rows]


def suspect(conn: Connection, number: str, centres: Sequence[int] | None) -> HeldPayment:
    """Errors: NotFound."""
    of = {"waiting": False, "id": number, "centres": _listed(centres), "after": None, "limit": 1}
    row = _row(conn, "suspects_of_centres", of, "The suspect payment")
    return HeldPayment(row[0], row[1], Suspect(*row[2:]))


def reversible(conn: Connection, top_up: str, centres: Sequence[int] | None) -> Reversible:
    """A top-up by our id. Errors: NotFound."""
    of = {"top_up": top_up, "centres": _listed(centres)}
    return Reversible(*_row(conn, "top_up_of_centres", of, "The top-up"))


def issued(conn: Connection, digits: str, centres: Sequence[int] | None) -> list[Issued]:
    """Each time that we issued these digits to a meter of these centres, oldest first."""
    of = {"digits": digits, "centres": _listed(centres)}
    return [Issued(*row) for row in conn.execute(query("issued_in_centres"), of)]


def _page(centres: Sequence[int] | None, before: int | str | None, limit: int) -> dict[str, object]:
    return {"centres": _listed(centres), "before": before, "limit": limit + 1}


def _listed(centres: Sequence[int] | None) -> list[int] | None:
    return None if centres is None else list(centres)


def _row(conn: Connection, name: str, of: Mapping[str, object], what: str) -> tuple[Any, ...]:
    row = conn.execute(query(name), of).fetchone()
    if row is None:
        raise NotFound(what)
    return row
