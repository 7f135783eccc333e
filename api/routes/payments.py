"""Operators: where a payment is, payments that wait for a person, and what is asked about them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from api import answers, payment_answers
from api.admission import KnownFirst
from api.dependencies import (
    DIGITS_ROLES,
    PAGE_DEFAULT,
    Allowed,
    Around,
    Cursor,
    Database,
    Limit,
    Once,
    Operator,
    RowId,
    answer_once,
    name_of,
)
from api.errors import RequestRefused
from api.numbers import cursor_id, cursor_text, meter_number, text_cursor
from api.payment_answers import (
    AppealAnswer,
    AppealPage,
    OperatorPaymentAnswer,
    OperatorPaymentPage,
    SuspectAnswer,
    SuspectPage,
)
from api.requests import CreditingRequest, NoteRequest, Typed
from store import appeals, reads, suspects, tracker, worklists
from store.errors import NotFound
from store.pool import Connection
from store.reads import Principal

router = APIRouter(prefix="/v1/payments", tags=["operators"], route_class=KnownFirst)

# Who moves money: never the one who talks to the customer alone.
Cashier = Annotated[Principal, Depends(Allowed("finance", "supervisor", "admin"))]
PaymentId = Annotated[str, Path(max_length=64, pattern=r"^[!-~]+$")]
AppealId = RowId
Word = Annotated[str | None, Query(max_length=64, pattern=r"^[!-~]+$")]


@router.get("")
def find_payments(
    conn: Database,
    around: Around,
    caller: Operator,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
    number: Annotated[
        str | None,
        Query(max_length=140, pattern=r"^[!-~]+$", description="The channel's own number."),
    ] = None,
    channel: Word = None,
    meter: Annotated[str | None, Query(min_length=1, max_length=40)] = None,
    account: Annotated[str | None, Query(max_length=64, pattern=r"^[^\x00-\x1f]+$"), Typed] = None,
) -> OperatorPaymentPage:
    """Payments by the channel's number, a meter or an account, newest first, each with a track."""
    if number is None and meter is None and account is None:
        raise RequestRefused(
            "filter_missing", "Ask by the number of a payment, a meter or an account.", "?number"
        )
    found = tracker.found(
        conn,
        number=number,
        channel=channel,
        meter=None if meter is None else meter_number(meter, "?meter"),
        account=account,
        centres=caller.centres,
        before_id=cursor_text(cursor),
        limit=limit,
    )
    items, following = answers.page(found, limit, lambda each: text_cursor(each[0]))
    return OperatorPaymentPage(
        items=[_payment(conn, around, caller, channel, number) for _, channel, number in items],
        next_cursor=following,
    )


@router.get("/suspect")
def list_suspects(
    conn: Database,
    around: Around,
    caller: Operator,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
    waiting: bool = True,
) -> SuspectPage:
    """Payments that wait for a person, oldest first; with `waiting=false` the decided ones, too."""
    found = worklists.suspects(
        conn, waiting=waiting, centres=caller.centres, after_id=cursor_text(cursor), limit=limit
    )
    items, following = answers.page(found, limit, lambda each: text_cursor(each.suspect.id))
    currency = around.settings.currency
    return SuspectPage(
        items=[payment_answers.suspect_answer(each, currency) for each in items],
        next_cursor=following,
    )


@router.post("/suspect/{suspect}/crediting")
def credit_suspect(
    conn: Database,
    around: Around,
    caller: Cashier,
    once: Once,
    suspect: PaymentId,
    body: CreditingRequest,
) -> SuspectAnswer:
    """Credits a payment that waits, to the account of the meter that was meant."""
    worklists.suspect(conn, suspect, caller.centres)
    now_ms, meter = around.now_ms(), meter_number(body.meter)

    def work() -> SuspectAnswer:
        # A repeat is answered whatever has changed since, the meter's exchange included.
        served = reads.account_served_by(conn, meter)
        reads.account(conn, served.number, None, caller.centres)
        suspects.credit(
            conn,
            around.terms,
            around.security_module,
            suspect,
            meter=meter,
            who=name_of(caller),
            reason=body.reason,
            now_ms=now_ms,
        )
        return _suspect(conn, around, caller, suspect)

    return answer_once(conn, caller, once, now_ms, work, SuspectAnswer)


@router.post("/suspect/{suspect}/return")
def return_suspect(
    conn: Database,
    around: Around,
    caller: Cashier,
    once: Once,
    suspect: PaymentId,
    body: NoteRequest,
) -> SuspectAnswer:
    """Decides that a payment that waits goes back by its channel."""
    worklists.suspect(conn, suspect, caller.centres)
    now_ms = around.now_ms()

    def work() -> SuspectAnswer:
        suspects.send_back(conn, suspect, who=name_of(caller), reason=body.note, now_ms=now_ms)
        return _suspect(conn, around, caller, suspect)

    return answer_once(conn, caller, once, now_ms, work, SuspectAnswer)


@router.get("/appeals")
def list_appeals(
    conn: Database,
    caller: Operator,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
    waiting: bool = True,
) -> AppealPage:
    """Reversals and moves that an operator has to grant, oldest first."""
    found = appeals.listed(
        conn,
        open_only=waiting,
        centres=_listed(caller),
        after_id=cursor_id(cursor),
        limit=limit,
    )
    items, following = answers.page(found, limit, lambda each: str(each.id))
    return AppealPage(
        items=[payment_answers.appeal_answer(each) for each in items], next_cursor=following
    )


@router.post("/appeals/{appeal}/granting")
def grant_appeal(
    conn: Database,
    around: Around,
    caller: Cashier,
    once: Once,
    appeal: AppealId,
    body: NoteRequest,
) -> AppealAnswer:
    """Does what was asked; a large payment takes a second person (`proposed`). What was consumed
    before a reversal becomes debt.
    """
    appeals.by_id(conn, appeal, _listed(caller))
    now_ms = around.now_ms()

    def work() -> AppealAnswer:
        found = appeals.grant(
            conn,
            around.terms,
            around.security_module,
            appeal,
            who=name_of(caller),
            note=body.note,
            now_ms=now_ms,
        )
        return payment_answers.appeal_answer(found)

    return answer_once(conn, caller, once, now_ms, work, AppealAnswer)


@router.post("/appeals/{appeal}/refusal")
def refuse_appeal(
    conn: Database, around: Around, caller: Cashier, appeal: AppealId, body: NoteRequest
) -> AppealAnswer:
    """Decides that nothing is done; who asked is told the note."""
    appeals.by_id(conn, appeal, _listed(caller))
    found = appeals.refuse(
        conn, appeal, who=name_of(caller), note=body.note, now_ms=around.now_ms()
    )
    return payment_answers.appeal_answer(found)


@router.get("/{payment}")
def track_payment(
    conn: Database, around: Around, caller: Operator, payment: PaymentId
) -> OperatorPaymentAnswer:
    """One payment by our id, from the payer to "power is back"."""
    found = tracker.found(conn, payment=payment, centres=caller.centres, limit=1)
    if not found:
        raise NotFound("The payment")
    _, channel, number = found[0]
    return _payment(conn, around, caller, channel, number)


def _payment(
    conn: Connection, around: Around, caller: Principal, channel: str, number: str
) -> OperatorPaymentAnswer:
    return payment_answers.operator_payment_answer(
        tracker.of_payment(conn, channel, number),
        number,
        around.settings.currency,
        around.now_ms(),
        digits=caller.role in DIGITS_ROLES,
    )


def _suspect(conn: Connection, around: Around, caller: Principal, suspect: str) -> SuspectAnswer:
    found = worklists.suspect(conn, suspect, caller.centres)
    return payment_answers.suspect_answer(found, around.settings.currency)


def _listed(caller: Principal) -> list[int] | None:
    return None if caller.centres is None else list(caller.centres)
