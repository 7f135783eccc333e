"""Customers pay by wallet, on a channel's page, or in cash at a desk; and what channels say."""

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from pydantic import SecretStr

from api import answers
from api.admission import KnownFirst
from api.answers import Answer, TopUpAnswer, TopUpPage
from api.dependencies import (
    DIGITS_ROLES,
    PAGE_DEFAULT,
    AllowedBriefly,
    Around,
    Caller,
    Cursor,
    Database,
    Limit,
    Once,
    OnceInSecret,
    Open,
    PayableAccount,
    Surroundings,
    caller_name,
)
from api.errors import Forbidden, RequestRefused
from api.numbers import (
    check_currency,
    cursor_text,
    payment_micro,
    phone_number,
    positive_micro,
    text_cursor,
    typed_passcode,
)
from api.requests import ConfirmationRequest, TopUpRequest
from schemas.contacts import typed_digits
from schemas.quantities import format_instant
from store import reads, top_up_tracker
from store.errors import NotFound, TooManyAttempts
from store.idempotency import Claim
from store.payment_attempts import Attempt
from store.pool import borrow
from store.reads import MAY, Account, Principal
from store.top_up_tracker import Tracked, TrackedState

router = APIRouter(prefix="/v1", tags=["top-ups"], route_class=KnownFirst)

# A payer waits so long at the screen for a channel; then he is told what is known and looks again.
OPEN_WAIT_S = 5
CONFIRM_WAIT_S = 15

# Who may pay for an account: its holder, and who serves him at a desk.
Payer = Annotated[Principal, Depends(AllowedBriefly("customer", "desk", "supervisor", "admin"))]
AccountNumber = Annotated[str, Path(max_length=64, pattern=r"^[^\x00-\x1f]+$")]
TopUpId = Annotated[str, Path(max_length=64, pattern=r"^[!-~]+$")]
MethodCode = Annotated[str, Path(max_length=64, pattern=r"^[!-~]+$")]


class MethodAnswer(Answer):
    """`passcode`: the payer makes one in his app and confirms with it; `page`: he goes on at the
    channel's page; `cash`: at a desk alone.
    """

    code: str
    name: str
    kind: Literal["passcode", "page", "cash"]


class MethodList(Answer):
    items: list[MethodAnswer]


class NotificationAnswer(Answer):
    """It was understood; a repeat is answered alike."""

    taken: bool = True


class ReturnAnswer(Answer):
    """Where a payment stands, for the browser that comes back; what it brings is not believed."""

    top_up: str
    state: TrackedState


@router.get("/payment-methods")
def list_payment_methods(around: Around, caller: Caller) -> MethodList:
    """The ways to pay that this caller may use."""
    return MethodList(
        items=[
            MethodAnswer(code=each.code, name=each.name, kind=each.kind)
            for each in around.payments.methods()
            if each.kind != "cash" or caller.is_operator
        ]
    )


@router.post("/accounts/{account}/top-ups", status_code=202)
async def start_top_up(
    around: Around, caller: Payer, once: Once, account: AccountNumber, body: TopUpRequest
) -> TopUpAnswer:
    """Starts a payment; its answer says where the payer goes on. Cash is credited at once. The same
    key again is answered with the state of now.
    """
    amount_micro = payment_micro(body.amount, around.settings)
    counted = None if body.counted is None else positive_micro(body.counted, "/counted")
    msisdn = None if body.phone is None else phone_number(body.phone, around.settings.phone_plan)
    _check_method(around, caller, body)

    def record() -> tuple[Account, str]:
        with borrow(around.pool) as conn:
            found = reads.account_seen(conn, typed_digits(account), caller, "pay")
            check_currency(body.currency, found.currency)
            return found, around.payments.start(
                conn,
                account_id=found.id,
                currency=found.currency,
                method=body.method,
                started_by=caller_name(caller),
                key=once.key,
                request_sha256=once.sha256,
                amount_micro=amount_micro,
                unusual_confirmed=body.unusual_confirmed,
                msisdn=msisdn,
                counted_micro=counted,
            )

    found, attempt = await run_in_threadpool(record)
    # Where there is no room, the sweep goes on with it.
    with suppress(TooManyAttempts):
        await _heard(around.payments.go_on(attempt), OPEN_WAIT_S)
    return await run_in_threadpool(_shown, around, caller, found, attempt)


@router.post("/accounts/{account}/top-ups/{top_up}/confirmation", status_code=202)
async def confirm_top_up(
    around: Around,
    caller: Payer,
    once: OnceInSecret,
    account: AccountNumber,
    top_up: TopUpId,
    body: ConfirmationRequest,
) -> TopUpAnswer:
    """Gives the passcode that the payer's app made, once: a repeat is answered with the state of
    now, and asks for nothing. The same key with another passcode is a conflict.
    """
    msisdn = phone_number(body.phone, around.settings.phone_plan)
    passcode = SecretStr(typed_passcode(body.passcode.get_secret_value()))

    def look() -> tuple[Account, Attempt]:
        with borrow(around.pool) as conn:
            found = reads.account_seen(conn, typed_digits(account), caller, "pay")
            # Another payer's looks like none, as where it is asked for.
            mine = _his_own(caller, found)
            attempt = top_up_tracker.tracked_one(conn, found.id, top_up, of_caller=mine).attempt
            if attempt is None:
                raise NotFound("The payment")
            return found, attempt

    found, attempt = await run_in_threadpool(look)
    by = caller_name(caller)
    asked = around.payments.confirm(
        attempt.id,
        msisdn=msisdn,
        passcode=passcode,
        by=by,
        claim=Claim(caller.operator_id, by, once.key, once.sha256),
    )
    await _heard(asked, CONFIRM_WAIT_S)
    return await run_in_threadpool(_shown, around, caller, found, attempt.id)


@router.get("/accounts/{account}/top-ups")
def list_top_ups(
    conn: Database,
    around: Around,
    caller: Caller,
    account: PayableAccount,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> TopUpPage:
    """Top-ups newest first, from the payment on, each with every state reached. Who may pay and not
    see is shown his own.
    """
    mine = _his_own(caller, account)
    before = cursor_text(cursor)
    found = top_up_tracker.tracked(conn, account.id, before_id=before, limit=limit, of_caller=mine)
    items, following = answers.page(found, limit, lambda each: text_cursor(each.id))
    now_ms, digits = around.now_ms(), caller.role in DIGITS_ROLES
    return TopUpPage(
        items=[_answer(each, now_ms, digits=digits) for each in items],
        next_cursor=following,
    )


@router.get("/accounts/{account}/top-ups/{top_up}")
def show_top_up(
    conn: Database, around: Around, caller: Caller, account: PayableAccount, top_up: TopUpId
) -> TopUpAnswer:
    """One top-up, by the number of its payment or its own, with every state reached."""
    mine = _his_own(caller, account)
    found = top_up_tracker.tracked_one(conn, account.id, top_up, of_caller=mine)
    digits = caller.role in DIGITS_ROLES
    return _answer(found, around.now_ms(), digits=digits)


@router.post("/payments/{method}/notifications", dependencies=[Open])
async def take_notification(
    request: Request, around: Around, method: MethodCode
) -> NotificationAnswer:
    """What a channel says of a payment: signed over the raw body, as was agreed with it."""
    return await _take_notification(request, around, method)


@router.get("/payments/{method}/notifications", dependencies=[Open])
async def take_notification_by_get(
    request: Request, around: Around, method: MethodCode
) -> NotificationAnswer:
    """The same from channels that send a GET without a signature: from their addresses alone."""
    return await _take_notification(request, around, method)


@router.get("/payments/{method}/returns/{top_up}", dependencies=[Open], response_model=ReturnAnswer)
def come_back(
    around: Around, method: MethodCode, top_up: TopUpId
) -> ReturnAnswer | RedirectResponse:
    """Where a browser comes back to from a channel's page; nothing is credited for it."""
    found = around.payments.come_back(method, top_up)
    if around.settings.return_url is not None:
        return RedirectResponse(f"{around.settings.return_url}?top_up={found.id}", 303)
    state: TrackedState = "received" if found.state == "paid" else found.state
    return ReturnAnswer(top_up=found.id, state=state)


async def _take_notification(
    request: Request, around: Surroundings, method: str
) -> NotificationAnswer:
    body = await request.body()
    await run_in_threadpool(
        around.payments.take_notification,
        method,
        source="" if request.client is None else request.client.host,
        query=request.url.query,
        headers=dict(request.headers),
        body=body,
    )
    return NotificationAnswer()


async def _heard(asked: "Future[None]", wait_s: float) -> None:
    """Wait for a channel, for a while; it goes on without us. Errors: those of the future."""
    waited = asyncio.wrap_future(asked)
    # Nobody may be left to look at what it ends with.
    waited.add_done_callback(lambda done: done.cancelled() or done.exception())
    done, _ = await asyncio.wait({waited}, timeout=wait_s)
    if done:
        waited.result()


def _shown(around: Surroundings, caller: Principal, account: Account, attempt: str) -> TopUpAnswer:
    with borrow(around.pool) as conn:
        mine = _his_own(caller, account)
        found = top_up_tracker.tracked_one(conn, account.id, attempt, of_caller=mine)
    digits = caller.role in DIGITS_ROLES
    return _answer(found, around.now_ms(), digits=digits)


def _check_method(around: Surroundings, caller: Principal, body: TopUpRequest) -> None:
    kinds = {each.code: each.kind for each in around.payments.methods()}
    kind = kinds.get(body.method)
    if kind is None:
        raise RequestRefused("method_unknown", "Send a code of GET /v1/payment-methods.", "/method")
    if kind == "cash" and not caller.is_operator:
        raise Forbidden("cash_refused", "Cash is counted at a desk.")
    if kind != "cash" and body.counted is not None:
        raise RequestRefused("counted_refused", "Only cash is counted.", "/counted")


def _his_own(caller: Principal, account: Account) -> str | None:
    """Whose payments a caller is shown: None for all."""
    sees = account.access is None or "see" in MAY[account.access]
    return None if sees else caller_name(caller)


def _answer(found: Tracked, now_ms: int, *, digits: bool = True) -> TopUpAnswer:
    """A top-up from its payment on. `digits`: whether the caller may read the tokens."""
    attempt, held = found.attempt, found.held
    form: dict[str, object] = {}
    if found.top_up is not None:
        form = answers.top_up_form(found.top_up, now_ms, digits=digits)
    elif attempt is not None:
        form = {
            "account": attempt.account,
            "meter": attempt.meter,
            "channel": attempt.method,
            "amount": answers.money(attempt.amount_micro, attempt.currency),
            "paid_at": answers.instant(attempt.paid_ms),
            "going_on": attempt.going_on,
            **_uncredited(now_ms),
        }
    elif held is not None:
        form = {
            "account": held.account,
            "meter": held.meter,
            "channel": held.channel,
            "amount": answers.money(held.amount_micro, held.currency or ""),
            "paid_at": answers.instant(held.paid_ms),
            "going_on": None,
            **_uncredited(now_ms),
        }
    states = answers.state_forms(found.states())
    if attempt is not None and attempt.state == "pending" and attempt.going_on is not None:
        states[-1]["owner"] = "customer"
    if attempt is not None and attempt.state == "unknown" and attempt.next_check_wall_ms is None:
        # The channel is asked no more: its daily file decides, with a person.
        states[-1]["owner"] = "utility"
    return TopUpAnswer.model_validate(
        form | {"id": found.id, "state": found.state, "states": states}
    )


def _uncredited(now_ms: int) -> dict[str, object]:
    """What comes with the credit, before there is any."""
    return {
        "receipt_number": None,
        "energy_wh": 0,
        "top_up": None,
        "tokens": [],
        "lines": [],
        "as_of": format_instant(now_ms),
    }
