"""Holds: an operator protects a supply from being cut, for a reason and a time.

A hold blocks cuts and nothing else: energy is debited, the balance falls, and when the hold ends
the supply is decided again on the facts of that instant. It does not restore a supply that is off.
"""

from dataclasses import dataclass
from typing import Literal

from psycopg import Connection

from store import audit_log, decisions, supply
from store.errors import Conflict, NotFound
from store.settlement import AccountState, lock_accounts, settle_account
from store.sql import query
from store.terms import TermsCache

HoldKind = Literal["medical", "dispute", "data", "contact", "maintenance", "tamper", "other"]
# Who releases a hold whose end has come.
# Two weeks of the past say nothing of a time further ahead.
MOST_WARNED_DAYS = 60
TIME = "time"


@dataclass(frozen=True, slots=True)
class Hold:
    """`until_ms` None: until somebody releases it. The last three are None while it holds."""

    id: int
    kind: HoldKind
    from_ms: int
    until_ms: int | None
    placed_by: str
    reason: str
    released_ms: int | None
    released_by: str | None
    release_reason: str | None


def place(
    conn: Connection,
    account_id: int,
    *,
    kind: HoldKind,
    from_ms: int,
    until_ms: int | None,
    who: str,
    reason: str,
    now_ms: int,
) -> int:
    """Protect an account's supply from `from_ms` until `until_ms`; returns the hold's id.

    An order to cut that the broker does not have yet is withdrawn when the hold begins at once;
    one that was sent may still be obeyed. Errors: NotFound; Conflict `hold_refused` (it ends
    before it begins or before now, or `who` or `reason` is missing).
    """
    if not who.strip() or not reason.strip():
        raise Conflict("hold_refused", "say who holds the supply and why")
    if until_ms is not None and until_ms <= max(from_ms, now_ms):
        raise Conflict("hold_refused", "let the hold end after it begins and after now")
    with conn.transaction():
        _lock(conn, account_id)
        row = conn.execute(
            query("insert_hold"),
            {
                "account": account_id,
                "kind": kind,
                "from_ms": from_ms,
                "until_ms": until_ms,
                "who": who,
                "reason": reason,
                "now_ms": now_ms,
            },
        ).fetchone()
        assert row is not None, "an insert returns its row"
        meter = supply.meter_of_account(conn, account_id)
        if from_ms <= now_ms and meter is not None and meter.desired_relay == "open":
            withdrawn = conn.execute(query("withdraw_unsent_cut"), {"meter": meter.id}).fetchone()
            if withdrawn is not None:
                conn.execute(query("desire_relay"), {"meter": meter.id, "relay": "closed"})
        audit_log.record(
            conn,
            who,
            "hold.place",
            f"hold:{row[0]}",
            now_ms,
            reason=reason,
            after={"kind": kind, "from_ms": from_ms}
            | ({} if until_ms is None else {"until_ms": until_ms}),
            account=account_id,
        )
        return int(row[0])


def release(
    conn: Connection, terms: TermsCache, hold: int, *, who: str, reason: str, now_ms: int
) -> bool:
    """End a hold now and decide the supply again; False when it was over already.

    Errors: NotFound; Conflict `hold_refused` (`who` or `reason` is missing).
    """
    if not who.strip() or not reason.strip():
        raise Conflict("hold_refused", "say who releases the hold and why")
    row = conn.execute(query("hold_to_release"), {"hold": hold}).fetchone()
    if row is None:
        raise NotFound("The hold")
    with conn.transaction():
        ended = _end(conn, terms, hold, row[0], who, reason, now_ms)
        if ended:
            audit_log.record(
                conn,
                who,
                "hold.release",
                f"hold:{hold}",
                now_ms,
                reason=reason,
                before={"kind": row[1], "from_ms": row[2]}
                | ({} if row[3] is None else {"until_ms": row[3]}),
                after={"released_ms": now_ms},
                account=row[0],
            )
        return ended


def end(conn: Connection, terms: TermsCache, hold: int, account_id: int, now_ms: int) -> bool:
    """A hold's own end has come (the clockwork's work); False when it was over already."""
    return _end(conn, terms, hold, account_id, TIME, "its end has come", now_ms)


def of_account(conn: Connection, account_id: int, *, limit: int) -> list[Hold]:
    """The holds of an account, newest first."""
    of = {"account": account_id, "limit": limit}
    return [Hold(*row) for row in conn.execute(query("holds_of_account"), of)]


def set_low_credit(
    conn: Connection,
    terms: TermsCache,
    account_id: int,
    threshold_micro: int,
    now_ms: int,
    *,
    who: str,
    days: int | None = None,
    reason: str | None = None,
) -> None:
    """Warn this account at or below another balance from now on; with `days`, also when the balance
    covers no more than so many days as the last two weeks went.

    Errors: NotFound; Conflict `threshold_refused` (an amount below zero, days beyond 1 to 60).
    """
    _check_threshold(threshold_micro, days)
    with conn.transaction():
        before = _lock(conn, account_id)
        of = {"account": account_id, "threshold_micro": threshold_micro, "days": days}
        conn.execute(query("set_low_credit"), of)
        state = _lock(conn, account_id)
        settled = settle_account(conn, terms, state, (), now_ms)
        decisions.record(conn, [settled], now_ms)
        audit_log.record(
            conn,
            who,
            "account.low_credit",
            audit_log.account_subject(conn, account_id),
            now_ms,
            reason=reason,
            before={"threshold_micro": before.low_credit_micro, "days": before.low_credit_days},
            after={"threshold_micro": threshold_micro, "days": days},
            account=account_id,
        )


def set_low_credit_of_centre(
    conn: Connection,
    centre: int,
    threshold_micro: int,
    now_ms: int,
    *,
    who: str,
    days: int | None = None,
) -> int:
    """The same for every account of a centre, those opened later included; returns how many have it
    now. Each is decided at its next settlement. Errors: Conflict `threshold_refused`.
    """
    _check_threshold(threshold_micro, days)
    with conn.transaction():
        of = {"centre": centre, "threshold_micro": threshold_micro, "days": days}
        conn.execute(query("set_low_credit_of_new_accounts"), of)
        changed = conn.execute(query("set_low_credit_of_centre"), of).rowcount
        audit_log.record(
            conn,
            who,
            "centre.low_credit",
            f"centre:{centre}",
            now_ms,
            after={"threshold_micro": threshold_micro, "days": days, "accounts": changed},
        )
    return changed


def _check_threshold(threshold_micro: int, days: int | None) -> None:
    if threshold_micro < 0:
        raise Conflict("threshold_refused", "warn at a balance of zero or above")
    if days is not None and not 1 <= days <= MOST_WARNED_DAYS:
        raise Conflict("threshold_refused", f"warn of 1 to {MOST_WARNED_DAYS} days")


def _end(
    conn: Connection,
    terms: TermsCache,
    hold: int,
    account_id: int,
    who: str,
    reason: str,
    now_ms: int,
) -> bool:
    with conn.transaction():
        state = _lock(conn, account_id)
        of = {"hold": hold, "who": who, "reason": reason, "now_ms": now_ms}
        if conn.execute(query("release_hold"), of).fetchone() is None:
            return False
        settled = settle_account(conn, terms, state, (), now_ms)
        decisions.record(conn, [settled], now_ms, released=f"hold:{hold}")
        return True


def _lock(conn: Connection, account_id: int) -> AccountState:
    state = lock_accounts(conn, [account_id]).get(account_id)
    if state is None:
        raise NotFound("The account")
    return state
