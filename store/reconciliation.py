"""Daily reconciliation: a partner's file of a business date against what we took.

The file is kept as it came, the same file again changes nothing, and a corrected one replaces what
nobody decided yet. Each difference has an owner, an age, an action, and ends with a decision.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from psycopg import Connection

from credit_engine.days import DAY_MS, local_time, midnight_ms
from store import audit_log, suspects
from store.errors import Conflict, NotFound
from store.matching import Class, Item, Line, Ours, Trailer, check_trailer, match, trailer_of
from store.pool import snapshot
from store.sql import query
from store.terms import TermsCache
from store.vending import Payment, content_sha256
from tokens.security_module import SecurityModule

# Who acts on a class, and what is to be done; a class without an owner is closed by itself.
_TASKS: dict[Class, tuple[str, str]] = {
    "matched": ("nobody", "nothing"),
    "late": ("nobody", "nothing: it belongs to another business date"),
    "ours_only": ("partner", "send the line with a later file, or say that nothing was taken"),
    "theirs_only": ("finance", "find the payer: credit the payment, or return it"),
    "amount_differs": ("finance", "agree on the amount with the partner, and correct ours"),
    "duplicate": ("partner", "return the second payment to the payer, or say that it is another"),
}
_CLOSED_BY_ITSELF = "reconciliation"


@dataclass(frozen=True, slots=True)
class ReconciliationItem:
    """One payment as both sides have it; `payment` is our top-up or suspect payment."""

    id: int
    channel: str
    business_date: date
    cls: Class
    partner_txn_id: str
    payment: str | None
    their_micro: int | None
    our_micro: int | None
    owner: str
    action: str
    opened_ms: int
    decision: str | None
    note: str | None
    closed_by: str | None
    closed_ms: int | None

    def age_days(self, now_ms: int) -> int:
        """Whole days from the first file that showed it until it was closed, or now."""
        end_ms = now_ms if self.closed_ms is None else self.closed_ms
        return max(0, end_ms - self.opened_ms) // DAY_MS


@dataclass(frozen=True, slots=True)
class File:
    """The partner's file that stands for a business date."""

    sha256: bytes
    received_ms: int


@dataclass(frozen=True, slots=True)
class Standing:
    """A business date from both sides: our lines in order of payment with their trailer, the
    partner's newest file, and every item.
    """

    lines: Sequence[Line]
    trailer: Trailer
    file: File | None
    items: Sequence[ReconciliationItem]


def reconcile(
    conn: Connection,
    channel: str,
    business_date: date,
    lines: Sequence[Line],
    trailer: Trailer,
    *,
    zone: ZoneInfo,
    who: str,
    now_ms: int,
) -> bool:
    """Take a partner's file of a business date (a local date in `zone`) and match it; False when
    this very file stands already.

    Errors: DomainError `trailer_differs`; Conflict `date_not_over`.
    """
    check_trailer(lines, trailer)
    if business_date >= local_time(zone, now_ms).date():
        raise Conflict("date_not_over", "send the file of a business date when it is over")
    of = {"channel": channel, "business_date": business_date}
    with conn.transaction():
        conn.execute(query("lock_reconciliation"), of)
        newest = conn.execute(query("newest_reconciliation_file"), of).fetchone()
        if newest is not None and bytes(newest[1]) == trailer.sha256:
            return False
        _keep_file(conn, of, lines, trailer, who, now_ms)
        payments = _ours(conn, of, lines, zone, business_date)
        items = match(lines, payments, business_date)
        with conn.cursor() as cursor:
            cursor.executemany(
                query("keep_reconciliation_item"), [_kept(of, item, now_ms) for item in items]
            )
        overtaken = {**of, "places": [item.place for item in items], "now_ms": now_ms}
        conn.execute(query("end_overtaken_items"), overtaken)
        late = [item.ours.id for item in items if item.cls == "late" and item.ours is not None]
        late_of = {**of, "business_date": business_date.isoformat(), "payments": late}
        conn.execute(query("end_items_that_came_late"), {**late_of, "now_ms": now_ms})
    return True


def standing(conn: Connection, channel: str, business_date: date, zone: ZoneInfo) -> Standing:
    """What we have of a channel's business date (a local date in `zone`), and what the partner's
    file came to.
    """
    of = {"channel": channel, "business_date": business_date}
    with snapshot(conn):
        file = conn.execute(query("newest_reconciliation_file"), of).fetchone()
        payments = [
            each
            for each in _ours(conn, of, (), zone, business_date)
            if each.business_date == business_date
        ]
        items = items_of(conn, channel, business_date)
    payments.sort(key=lambda ours: (ours.paid_ms, ours.partner_txn_id))
    lines = [
        Line(ours.partner_txn_id, ours.meter, ours.amount_micro, ours.paid_ms) for ours in payments
    ]
    return Standing(
        lines, trailer_of(lines), None if file is None else File(bytes(file[1]), file[2]), items
    )


def items_of(conn: Connection, channel: str, business_date: date) -> list[ReconciliationItem]:
    """Every item of a channel's business date, oldest first."""
    of = {"channel": channel, "business_date": business_date, "limit": None}
    return [ReconciliationItem(*row) for row in conn.execute(query("reconciliation_items"), of)]


def open_items(
    conn: Connection, *, limit: int, channel: str | None = None
) -> list[ReconciliationItem]:
    """What nobody decided yet, oldest first."""
    of = {"channel": channel, "business_date": None, "limit": limit}
    return [ReconciliationItem(*row) for row in conn.execute(query("reconciliation_items"), of)]


def listed(
    conn: Connection,
    *,
    open_only: bool,
    channel: str | None,
    cls: Class | None,
    after_id: int | None,
    limit: int,
) -> list[ReconciliationItem]:
    """A page of the queue, oldest first; one more than `limit` when there is a next page."""
    of = {"open": open_only, "channel": channel, "class": cls, "after": after_id, "id": None}
    rows = conn.execute(query("reconciliation_queue"), of | {"limit": limit + 1})
    return [ReconciliationItem(*row) for row in rows]


def item(conn: Connection, number: int) -> ReconciliationItem:
    """One item. Errors: NotFound."""
    of = {"open": False, "channel": None, "class": None, "after": None, "id": number, "limit": 1}
    row = conn.execute(query("reconciliation_queue"), of).fetchone()
    if row is None:
        raise NotFound("The item")
    return ReconciliationItem(*row)


def line_of(conn: Connection, found: ReconciliationItem) -> Line | None:
    """The partner's line of an item, from the newest file of its date; None where it has none."""
    of = {
        "channel": found.channel,
        "business_date": found.business_date,
        "partner_txn_id": found.partner_txn_id,
        "amount_micro": found.their_micro,
    }
    row = conn.execute(query("line_of_item"), of).fetchone()
    return None if row is None else Line(*row)


def close(
    conn: Connection, number: int, *, decision: str, note: str, who: str, now_ms: int
) -> ReconciliationItem:
    """Decide what becomes of a difference; the same decision again is the first answer.

    Errors: NotFound; Conflict `reason_missing`, `item_closed` (with another decision).
    """
    if not all(text.strip() for text in (decision, note, who)):
        raise Conflict("reason_missing", "say who decides, what and why: all are kept")
    with conn.transaction():
        found = _locked(conn, number)
        if found.decision is not None:
            if (found.decision, found.closed_by) != (decision, who):
                raise Conflict("item_closed", f"it was closed as {found.decision}: nothing is left")
            return found
        conn.execute(
            query("close_reconciliation_item"),
            {"id": number, "decision": decision, "note": note, "who": who, "now_ms": now_ms},
        )
        audit_log.record(
            conn,
            who,
            "reconciliation.close",
            f"payment:{found.channel}/{found.partner_txn_id}",
            now_ms,
            reason=note,
            before={"class": found.cls, "business_date": found.business_date.isoformat()},
            after={"decision": decision},
        )
        return _locked(conn, number)


def credit(
    conn: Connection,
    terms: TermsCache,
    module: SecurityModule,
    number: int,
    *,
    note: str,
    who: str,
    now_ms: int,
) -> ReconciliationItem:
    """Take the line of an item that has no payment of ours as one, and close the item: the partner
    has the money and its message never came. A repeat is the first answer.

    Errors: NotFound; Conflict `nothing_to_credit` (we have a payment for it), `item_closed`.
    """
    with conn.transaction():
        found = _locked(conn, number)
        if found.decision is None:
            line = line_of(conn, found) if found.cls == "theirs_only" else None
            if line is None:
                raise Conflict(
                    "nothing_to_credit",
                    "only a line without a payment of ours is credited: decide otherwise",
                )
            payment = Payment(
                channel=found.channel,
                partner_txn_id=line.partner_txn_id,
                meter=line.meter,
                amount_micro=line.amount_micro,
                paid_ms=line.paid_ms,
                request_sha256=content_sha256(line.meter, line.amount_micro, line.paid_ms),
            )
            suspects.receive(conn, terms, module, payment, now_ms)
        return close(conn, number, decision="credited", note=note, who=who, now_ms=now_ms)


def _locked(conn: Connection, number: int) -> ReconciliationItem:
    row = conn.execute(query("lock_reconciliation_item"), {"id": number}).fetchone()
    if row is None:
        raise NotFound("The item")
    return ReconciliationItem(*row)


def _keep_file(
    conn: Connection,
    of: dict[str, object],
    lines: Sequence[Line],
    trailer: Trailer,
    who: str,
    now_ms: int,
) -> None:
    row = conn.execute(
        query("insert_reconciliation_file"),
        {
            **of,
            "sha256": trailer.sha256,
            "count": trailer.count,
            "sum_micro": trailer.sum_micro,
            "who": who,
            "now_ms": now_ms,
        },
    ).fetchone()
    assert row is not None, "an insert that returns"
    conn.execute(
        query("insert_reconciliation_lines"),
        {
            "file": row[0],
            "numbers": [line.partner_txn_id for line in lines],
            "meters": [line.meter for line in lines],
            "amounts": [line.amount_micro for line in lines],
            "paid": [line.paid_ms for line in lines],
        },
    )


def _ours(
    conn: Connection,
    of: dict[str, object],
    lines: Sequence[Line],
    zone: ZoneInfo,
    business_date: date,
) -> list[Ours]:
    # A day more on either side: there a line without a number in common may find its payment.
    window = {
        "from_ms": midnight_ms(zone, business_date) - DAY_MS,
        "to_ms": midnight_ms(zone, business_date + timedelta(days=1)) + DAY_MS,
        "numbers": [line.partner_txn_id for line in lines],
    }
    return [
        Ours(payment, number, meter, amount, paid, local_time(zone, paid).date(), accounted)
        for payment, number, meter, amount, paid, accounted in conn.execute(
            query("payments_to_reconcile"), {**of, **window}
        )
    ]


def _kept(of: dict[str, object], item: Item, now_ms: int) -> dict[str, object]:
    theirs, ours = item.theirs, item.ours
    owner, action = _TASKS[item.cls]
    by_itself = item.cls in {"matched", "late"}
    number = theirs.partner_txn_id if theirs is not None else ours.partner_txn_id if ours else ""
    return {
        **of,
        "place": item.place,
        "class": item.cls,
        "partner_txn_id": number,
        "payment": None if ours is None else ours.id,
        "their_micro": None if theirs is None else theirs.amount_micro,
        "our_micro": None if ours is None else ours.amount_micro,
        "owner": owner,
        "action": action,
        "decision": item.cls if by_itself else None,
        "note": "both sides agree" if by_itself else None,
        "closed_by": _CLOSED_BY_ITSELF if by_itself else None,
        "closed_ms": now_ms if by_itself else None,
        "now_ms": now_ms,
    }
