"""What is asked about a payment whose tokens are out, until an operator grants or refuses it.

A token that was shown cannot be recalled, so that a partner's reversal and a payer's move end in a
refusal, and here: the question is kept, once for a payment, and a person answers it. Above the
limit of one person a second one must grant it, too.
"""

from dataclasses import dataclass
from typing import Literal

from psycopg import Connection

from store import adjustments, audit_log, reversals
from store.errors import Conflict, NotFound
from store.sql import query
from store.terms import TermsCache
from tokens.security_module import SecurityModule

Kind = Literal["reversal", "move"]
Decision = Literal["granted", "refused"]


@dataclass(frozen=True, slots=True)
class Appeal:
    """`meter` and `account` were credited; `proposed_by`: the first of two who grant it."""

    id: int
    kind: Kind
    top_up: str
    channel: str
    partner_txn_id: str
    account_id: int
    account: str
    meter: str
    to_meter: str | None
    amount_micro: int
    currency: str
    asked_by: str
    reason: str
    asked_ms: int
    proposed_by: str | None
    proposed_ms: int | None
    decision: Decision | None
    decided_by: str | None
    decided_ms: int | None
    note: str | None

    @property
    def state(self) -> str:
        """asked, proposed (one of two people granted it), granted or refused."""
        return self.decision or ("asked" if self.proposed_by is None else "proposed")


def take_back(
    conn: Connection, terms: TermsCache, channel: str, partner_txn_id: str, reason: str, now_ms: int
) -> None:
    """As `reversals.take_back`; a payment whose tokens are out is refused and asked for here.

    Errors: NotFound; Conflict `token_issued` (an operator decides), `reversal_refused` (one did).
    """
    try:
        reversals.take_back(conn, terms, channel, partner_txn_id, reason, now_ms)
    except Conflict as refusal:
        if refusal.code != "token_issued":
            raise
        top_up = top_up_of(conn, channel, partner_txn_id)
        open_for(conn, top_up, "reversal", f"partner:{channel}", reason, now_ms)
        raise


def open_for(
    conn: Connection,
    top_up: str,
    kind: Kind,
    who: str,
    reason: str,
    now_ms: int,
    *,
    to_meter: str | None = None,
    by_operator: bool = False,
) -> Appeal:
    """Ask for a reversal or a move; the open appeal where the payment has one. What an operator
    asks is in the audit log.

    Errors: Conflict `reversal_refused`, `move_refused` where a person refused the same before,
    `appeal_open` where another one is open.
    """
    with conn.transaction():
        for known in _of_payment(conn, top_up):
            same = (known.kind, known.to_meter) == (kind, to_meter)
            if same and known.decision == "refused":
                raise Conflict(
                    f"{kind}_refused", f"this was asked before and refused: {known.note}"
                )
            if known.decision is None and not same:
                raise Conflict(
                    "appeal_open",
                    f"a {known.kind} of this payment waits for an operator: ask again when it is "
                    "decided",
                )
        of = {"kind": kind, "top_up": top_up, "to_meter": to_meter, "who": who, "reason": reason}
        opened = conn.execute(query("open_appeal"), of | {"now_ms": now_ms}).fetchone()
        found = _of_payment(conn, top_up)[-1]
        if opened is not None and by_operator:
            audit_log.record(
                conn,
                who,
                "appeal.open",
                _subject(found),
                now_ms,
                reason=reason,
                after={"appeal": found.id, "kind": kind, "to_meter": to_meter},
                account=found.account_id,
            )
        return found


def grant(
    conn: Connection,
    terms: TermsCache,
    module: SecurityModule,
    appeal: int,
    *,
    who: str,
    note: str,
    now_ms: int,
    limit_micro: int = adjustments.SECOND_PERSON_ABOVE_MICRO,
) -> Appeal:
    """Do what was asked; above the limit the first call proposes it and a second person's does it.

    Errors: NotFound; Conflict `appeal_decided`, `second_person_needed`, and as
    `reversals.reverse_after_issue` or `reversals.move`.
    """
    with conn.transaction():
        found = _locked(conn, appeal)
        if found.decision == "granted":
            return found
        if found.decision is not None:
            raise _decided(found)
        first, second = who, None
        if found.amount_micro > limit_micro:
            if found.proposed_by is None:
                conn.execute(query("propose_appeal"), {"id": appeal, "who": who, "now_ms": now_ms})
                _log(conn, found, "appeal.propose", who, note, now_ms)
                return _locked(conn, appeal)
            if found.proposed_by == who:
                raise Conflict(
                    "second_person_needed", "another person must grant a payment of this size"
                )
            first, second = found.proposed_by, who
        if found.to_meter is None:
            reversals.reverse_after_issue(
                conn,
                terms,
                found.channel,
                found.partner_txn_id,
                who=first,
                second=second,
                reason=found.reason,
                now_ms=now_ms,
                limit_micro=limit_micro,
            )
        else:
            reversals.move(
                conn,
                terms,
                module,
                found.channel,
                found.partner_txn_id,
                to_meter=found.to_meter,
                who=first,
                reason=found.reason,
                now_ms=now_ms,
                tokens_out=True,
            )
        return _decide(conn, found, "granted", who, note, now_ms)


def refuse(conn: Connection, appeal: int, *, who: str, note: str, now_ms: int) -> Appeal:
    """Decide that nothing is done. Errors: NotFound; Conflict `appeal_decided`."""
    with conn.transaction():
        found = _locked(conn, appeal)
        if found.decision == "refused":
            return found
        if found.decision is not None:
            raise _decided(found)
        return _decide(conn, found, "refused", who, note, now_ms)


def listed(
    conn: Connection,
    *,
    open_only: bool,
    centres: list[int] | None,
    after_id: int | None,
    limit: int,
) -> list[Appeal]:
    """Oldest first; one more than `limit` when there is a next page."""
    of = {"open": open_only, "id": None, "top_up": None, "centres": centres, "after": after_id}
    rows = conn.execute(query("appeals"), of | {"limit": limit + 1})
    return [Appeal(*row) for row in rows]


def by_id(conn: Connection, appeal: int, centres: list[int] | None) -> Appeal:
    """Errors: NotFound."""
    of = {"open": False, "id": appeal, "top_up": None, "centres": centres, "after": None}
    row = conn.execute(query("appeals"), of | {"limit": 1}).fetchone()
    if row is None:
        raise NotFound("The appeal")
    return Appeal(*row)


def newest(conn: Connection, top_up: str) -> Appeal | None:
    """What was asked last about a payment; None: nothing ever."""
    return next(reversed(_of_payment(conn, top_up)), None)


def top_up_of(conn: Connection, channel: str, partner_txn_id: str) -> str:
    """The id of a payment's top-up. Errors: NotFound."""
    of = {"channel": channel, "partner_txn_id": partner_txn_id}
    row = conn.execute(query("top_up_of_payment"), of).fetchone()
    if row is None:
        raise NotFound(f"Payment {partner_txn_id}")
    return str(row[0])


def _of_payment(conn: Connection, top_up: str) -> list[Appeal]:
    of = {"open": False, "id": None, "top_up": top_up, "centres": None, "after": None}
    return [Appeal(*row) for row in conn.execute(query("appeals"), of | {"limit": None})]


def _locked(conn: Connection, appeal: int) -> Appeal:
    if conn.execute(query("lock_appeal"), {"id": appeal}).fetchone() is None:
        raise NotFound("The appeal")
    return by_id(conn, appeal, None)


def _decided(found: Appeal) -> Conflict:
    return Conflict(
        "appeal_decided",
        f"{found.decided_by} has {found.decision} it already: enter an adjustment instead",
    )


def _decide(
    conn: Connection, found: Appeal, decision: Decision, who: str, note: str, now_ms: int
) -> Appeal:
    of = {"id": found.id, "decision": decision, "who": who, "note": note, "now_ms": now_ms}
    conn.execute(query("decide_appeal"), of)
    _log(
        conn, found, "appeal.grant" if decision == "granted" else "appeal.refuse", who, note, now_ms
    )
    return _locked(conn, found.id)


def _subject(found: Appeal) -> str:
    return f"payment:{found.channel}/{found.partner_txn_id}"


def _log(conn: Connection, found: Appeal, action: str, who: str, note: str, now_ms: int) -> None:
    audit_log.record(
        conn,
        who,
        action,
        _subject(found),
        now_ms,
        reason=note,
        before={"appeal": found.id, "kind": found.kind, "state": found.state},
        after={"asked_by": found.asked_by, "to_meter": found.to_meter},
        account=found.account_id,
    )
