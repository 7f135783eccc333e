"""Corrections of a balance that operators enter: each with a reason, large ones by two people.

An adjustment is a fact of the engine from the instant at which nobody has to be asked any more;
it is never edited, and a wrong one is mended by another.
"""

from dataclasses import dataclass
from typing import Literal

from psycopg import Connection

from store import audit_log, decisions
from store.errors import Conflict, NotFound
from store.settlement import lock_accounts, settle_account
from store.sql import query
from store.terms import TermsCache

AdjustmentState = Literal["requested", "posted", "refused"]
# About a household's usual payment, in µ of the account's currency: what one person may move.
SECOND_PERSON_ABOVE_MICRO = 500_000_000


@dataclass(frozen=True, slots=True)
class Adjustment:
    """`amount_micro`: + credits the account, - debits it. `decided_by`: the second person."""

    id: str
    account_id: int
    amount_micro: int
    reason: str
    requested_by: str
    requested_ms: int
    state: AdjustmentState
    decided_by: str | None
    adjusted_ms: int | None


@dataclass(frozen=True, slots=True)
class CarriedOver:
    """Credit from the time before an account was prepaid; `second` as for every adjustment."""

    credit_micro: int
    who: str
    second: str | None = None


def enter(
    conn: Connection,
    terms: TermsCache,
    *,
    adjustment: str,
    account_id: int,
    amount_micro: int,
    reason: str,
    who: str,
    now_ms: int,
    limit_micro: int = SECOND_PERSON_ABOVE_MICRO,
) -> AdjustmentState:
    """Enter a correction under a number of the caller's: `posted` at once, or `requested` above
    the limit. The same number with the same content again is the first answer.

    Errors: NotFound; Conflict `adjustment_refused` (nothing to move, no reason or person),
    `idempotency_conflict` (the same number with another content).
    """
    _check(amount_micro, reason, who)
    with conn.transaction():
        state = lock_accounts(conn, [account_id]).get(account_id)
        if state is None:
            raise NotFound("The account")
        alone = abs(amount_micro) <= limit_micro
        inserted = conn.execute(
            query("insert_adjustment"),
            {
                "id": adjustment,
                "account": account_id,
                "amount_micro": amount_micro,
                "reason": reason,
                "who": who,
                "now_ms": now_ms,
                "state": "posted" if alone else "requested",
                "second": None,
                "adjusted_ms": now_ms if alone else None,
            },
        ).fetchone()
        if inserted is None:
            known = by_id(conn, adjustment)
            content = (known.account_id, known.amount_micro, known.reason, known.requested_by)
            if content != (account_id, amount_micro, reason, who):
                raise Conflict(
                    "idempotency_conflict",
                    f"adjustment {adjustment} was entered with another content: use a new number",
                )
            return known.state
        entered: AdjustmentState = "posted" if alone else "requested"
        if alone:
            settled = settle_account(conn, terms, state, (), now_ms, touched_from_ms=now_ms)
            decisions.record(conn, [settled], now_ms)
        audit_log.record(
            conn,
            who,
            "adjustment.enter",
            f"adjustment:{adjustment}",
            now_ms,
            reason=reason,
            after={"amount_micro": amount_micro, "state": entered},
            account=account_id,
        )
        return entered


def approve(
    conn: Connection,
    terms: TermsCache,
    adjustment: str,
    *,
    who: str,
    now_ms: int,
    reason: str | None = None,
) -> bool:
    """Post a requested correction; False when it is posted already.

    Errors: NotFound; Conflict `second_person_needed` (the one who asked cannot approve),
    `adjustment_refused` (somebody refused it).
    """
    return _decide(conn, terms, adjustment, "posted", who, now_ms, reason)


def refuse(
    conn: Connection,
    terms: TermsCache,
    adjustment: str,
    *,
    who: str,
    now_ms: int,
    reason: str | None = None,
) -> bool:
    """Refuse a requested correction; False when it is refused already.

    Errors: NotFound; Conflict `second_person_needed`, `adjustment_posted` (enter its opposite).
    """
    return _decide(conn, terms, adjustment, "refused", who, now_ms, reason)


def by_id(conn: Connection, adjustment: str) -> Adjustment:
    """One correction. Errors: NotFound."""
    row = conn.execute(query("adjustment_by_id"), {"id": adjustment}).fetchone()
    if row is None:
        raise NotFound("The adjustment")
    return Adjustment(*row)


def of_account(conn: Connection, account_id: int, *, limit: int) -> list[Adjustment]:
    """The corrections of an account, newest first."""
    of = {"account": account_id, "limit": limit}
    return [Adjustment(*row) for row in conn.execute(query("adjustments_of_account"), of)]


def carry_over(
    conn: Connection,
    account_id: int,
    number: str,
    carried: CarriedOver,
    opened_ms: int,
    now_ms: int,
) -> None:
    """The first fact of a converted account; the caller settles it with the opening.

    Errors: Conflict `adjustment_refused` (no credit), `second_person_needed` above the limit.
    """
    if carried.credit_micro < 0:
        raise Conflict(
            "adjustment_refused",
            "what the customer owes from before is the account's debt: put it into its terms",
        )
    reason = "carried over from the time before prepayment"
    _check(carried.credit_micro, reason, carried.who)
    second = carried.second
    if carried.credit_micro > SECOND_PERSON_ABOVE_MICRO and second is None:
        raise Conflict("second_person_needed", "name a second person for a credit of this size")
    if second == carried.who:
        raise _same_person()
    conn.execute(
        query("insert_adjustment"),
        {
            "id": f"carried-over-{number}",
            "account": account_id,
            "amount_micro": carried.credit_micro,
            "reason": reason,
            "who": carried.who,
            "now_ms": now_ms,
            "state": "posted",
            "second": second,
            "adjusted_ms": opened_ms,
        },
    )
    audit_log.record(
        conn,
        carried.who,
        "adjustment.enter",
        f"adjustment:carried-over-{number}",
        now_ms,
        reason=reason,
        after={"amount_micro": carried.credit_micro, "state": "posted", "second": second},
        account=account_id,
    )


def _check(amount_micro: int, reason: str, who: str) -> None:
    if amount_micro == 0:
        raise Conflict("adjustment_refused", "enter an amount above or below zero")
    if not who.strip() or not reason.strip():
        raise Conflict("adjustment_refused", "say who corrects the balance and why")


def _same_person() -> Conflict:
    return Conflict("second_person_needed", "let another person than the one who asked decide")


def _decide(
    conn: Connection,
    terms: TermsCache,
    adjustment: str,
    wanted: Literal["posted", "refused"],
    who: str,
    now_ms: int,
    reason: str | None,
) -> bool:
    if not who.strip():
        raise Conflict("second_person_needed", "say who decides")
    with conn.transaction():
        account_id = by_id(conn, adjustment).account_id
        state = lock_accounts(conn, [account_id])[account_id]
        # Read again: two people at once meet at the account's lock.
        known = by_id(conn, adjustment)
        if known.state == wanted:
            return False
        if known.state != "requested":
            word = "enter its opposite" if known.state == "posted" else "enter a new one"
            raise Conflict(f"adjustment_{known.state}", f"it is {known.state} already: {word}")
        if known.requested_by == who:
            raise _same_person()
        posted = wanted == "posted"
        conn.execute(
            query("decide_adjustment"),
            {
                "id": adjustment,
                "state": wanted,
                "who": who,
                "adjusted_ms": now_ms if posted else None,
            },
        )
        if posted:
            settled = settle_account(conn, terms, state, (), now_ms, touched_from_ms=now_ms)
            decisions.record(conn, [settled], now_ms)
        audit_log.record(
            conn,
            who,
            f"adjustment.{'approve' if posted else 'refuse'}",
            f"adjustment:{adjustment}",
            now_ms,
            reason=reason,
            before={"state": known.state, "amount_micro": known.amount_micro},
            after={"state": wanted, "amount_micro": known.amount_micro},
            account=account_id,
        )
        return True
