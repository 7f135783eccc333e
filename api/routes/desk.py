"""Operators at work on accounts: decisions, holds, corrections, reversals, its tariff."""

import secrets
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query

from api import answers
from api.admission import KnownFirst
from api.answers import Answer, Instant, Money, TopUpAnswer
from api.dependencies import (
    OPERATOR_ROLES,
    PAGE_DEFAULT,
    Allowed,
    Around,
    Cursor,
    Database,
    Limit,
    Once,
    Operator,
    RowId,
    account_for,
    answer_once,
    name_of,
)
from api.errors import RequestRefused
from api.numbers import (
    check_currency,
    cursor_id,
    cursor_text,
    instant_ms,
    signed_micro,
    text_cursor,
    threshold_micro,
)
from api.requests import (
    AdjustmentRequest,
    AssignmentRequest,
    HoldRequest,
    LowCreditRequest,
    NoteRequest,
    OperatorReversalRequest,
    ReasonRequest,
    Typed,
)
from credit_engine.errors import CreditError
from schemas.identity import command_id
from schemas.quantities import format_instant
from store import (
    adjustments,
    appeals,
    audit_log,
    holds,
    reads,
    tariffs,
    top_ups,
    vending,
    worklists,
)
from store.adjustments import AdjustmentState
from store.errors import Conflict
from store.holds import HoldKind
from store.reads import Account, Principal
from store.worklists import AdjustedAccount, HeldAccount

router = APIRouter(prefix="/v1", tags=["operators"], route_class=KnownFirst)

Desk = Annotated[Principal, Depends(Allowed("desk", "supervisor", "admin"))]
# Who moves money: never the one who talks to the customer alone.
Money_ = Annotated[Principal, Depends(Allowed("finance", "supervisor", "admin"))]
SeenAccount = Annotated[Account, Depends(account_for(*OPERATOR_ROLES))]
HoldId = RowId
AdjustmentId = Annotated[str, Path(max_length=80, pattern=r"^[!-~]+$")]
AccountFilter = Annotated[str | None, Query(max_length=64, pattern=r"^[^\x00-\x1f]+$"), Typed]


class AccountReportAnswer(Answer):
    """`tariff` prices the account today; `warned_at`: the balance at which its holder is warned."""

    account: str
    holder: str
    centre: str
    tariff: str
    meter: str | None
    supply: Literal["connected", "protected", "disconnected"]
    opened_at: Instant
    warned_at: Money
    as_of: Instant


class DecisionAnswer(Answer):
    """`cause`: what crossed the threshold, as an entry's key or a hold's name. `guards`: what each
    guard found where the supply was to be cut, by the guard's name.
    """

    ordinal: int
    threshold: str
    kind: str
    at: Instant
    recorded_at: Instant
    balance: Money
    cause: str
    guards: dict[str, str]


class DecisionPage(Answer):
    items: list[DecisionAnswer]
    next_cursor: str | None


class HoldAnswer(Answer):
    """While it holds nothing cuts the supply; `until` None: until somebody releases it."""

    id: int
    account: str
    kind: HoldKind
    from_at: Instant
    until: Instant | None
    placed_by: str
    reason: str
    released_at: Instant | None
    released_by: str | None
    release_reason: str | None


class HoldPage(Answer):
    items: list[HoldAnswer]
    next_cursor: str | None


class AdjustmentAnswer(Answer):
    """`requested` waits for a second person: approve or refuse it."""

    id: str
    account: str
    amount: Money
    reason: str
    requested_by: str
    requested_at: Instant
    state: AdjustmentState
    decided_by: str | None
    posted_at: Instant | None


class AdjustmentPage(Answer):
    items: list[AdjustmentAnswer]
    next_cursor: str | None


class AssignmentAnswer(Answer):
    account: str
    tariff: str
    from_day: str


@router.get("/accounts/{account}")
def show_account(conn: Database, around: Around, account: SeenAccount) -> AccountReportAnswer:
    """An account as its centre knows it; its balance and entries are below it."""
    now_ms = around.now_ms()
    found = worklists.account(conn, account.id, now_ms=now_ms)
    return AccountReportAnswer.model_validate(
        {
            "account": found.number,
            "holder": found.holder,
            "centre": found.centre,
            "tariff": found.tariff,
            "meter": found.meter,
            "supply": found.supply,
            "opened_at": format_instant(found.opened_ms),
            "warned_at": answers.money(found.low_credit_micro, account.currency),
            "as_of": format_instant(now_ms),
        }
    )


@router.get("/accounts/{account}/decisions")
def list_decisions(
    conn: Database, account: SeenAccount, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None
) -> DecisionPage:
    """What crossing a threshold decided, newest first: warnings, cuts, supply back."""
    before = cursor_id(cursor)
    if before is not None and before > 2**31 - 1:
        raise RequestRefused("bad_cursor", "Send next_cursor of the page before.", "?cursor")
    found = worklists.decisions(conn, account.id, before=before, limit=limit)
    items, following = answers.page(found, limit, lambda each: str(each.ordinal))
    return DecisionPage(
        items=[
            DecisionAnswer(
                ordinal=each.ordinal,
                threshold=each.threshold,
                kind=each.kind,
                at=format_instant(each.at_ms),
                recorded_at=format_instant(each.recorded_ms),
                balance=answers.money(each.balance_micro, account.currency),
                cause=each.cause,
                guards=dict(each.guards),
            )
            for each in items
        ],
        next_cursor=following,
    )


@router.put("/accounts/{account}/low-credit")
def set_low_credit(
    conn: Database,
    around: Around,
    caller: Desk,
    account: SeenAccount,
    body: LowCreditRequest,
) -> AccountReportAnswer:
    """Warns the holder at or below another balance from now on."""
    check_currency(body.currency, account.currency)
    threshold = threshold_micro(body.amount)
    now_ms = around.now_ms()
    holds.set_low_credit(
        conn,
        around.terms,
        account.id,
        threshold,
        now_ms,
        who=name_of(caller),
        reason=body.reason,
    )
    return show_account(conn, around, account)


@router.post("/accounts/{account}/tariffs", status_code=201)
def assign_tariff(
    conn: Database,
    around: Around,
    caller: Annotated[Principal, Depends(Allowed("supervisor", "finance", "admin"))],
    account: SeenAccount,
    body: AssignmentRequest,
) -> AssignmentAnswer:
    """Prices the account by another tariff from a local date on, tomorrow or later."""
    try:
        tariffs.assign(
            conn,
            account.id,
            body.tariff,
            body.from_,
            who=name_of(caller),
            reason=body.reason,
            now_ms=around.now_ms(),
        )
    except CreditError as error:
        # Of all that is asked for, the date alone is judged by the engine.
        raise RequestRefused(error.code, str(error), "/from") from None
    return AssignmentAnswer(
        account=account.number, tariff=body.tariff, from_day=body.from_.isoformat()
    )


@router.get("/holds")
def list_holds(
    conn: Database,
    caller: Operator,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
    account: AccountFilter = None,
    in_force: bool = False,
) -> HoldPage:
    """Holds, newest first; with `in_force` those that nobody released."""
    found = worklists.holds(
        conn,
        account=account,
        in_force=in_force,
        centres=caller.centres,
        before_id=cursor_id(cursor),
        limit=limit,
    )
    items, following = answers.page(found, limit, lambda each: str(each.hold.id))
    return HoldPage(items=[_hold_answer(each) for each in items], next_cursor=following)


@router.post(
    "/holds",
    status_code=201,
    responses={
        201: {
            "links": {
                "release": {
                    "operationId": "release_hold",
                    "parameters": {"hold": "$response.body#/id"},
                    "requestBody": {"note": "the reason is over"},
                }
            }
        }
    },
)
def place_hold(conn: Database, around: Around, caller: Desk, body: HoldRequest) -> HoldAnswer:
    """Keeps a supply from being cut from now on; it restores none."""
    account = reads.account(conn, body.account, None, caller.centres)
    now_ms = around.now_ms()
    number = holds.place(
        conn,
        account.id,
        kind=body.kind,
        from_ms=now_ms,
        until_ms=None if body.until is None else instant_ms(body.until, "/until"),
        who=name_of(caller),
        reason=body.reason,
        now_ms=now_ms,
    )
    return _hold_answer(worklists.hold(conn, number, caller.centres))


@router.post("/holds/{hold}/release")
def release_hold(
    conn: Database, around: Around, caller: Desk, hold: HoldId, body: NoteRequest
) -> HoldAnswer:
    """Ends a hold; the supply is decided again at once. A repeat is answered alike."""
    worklists.hold(conn, hold, caller.centres)
    now_ms = around.now_ms()
    holds.release(conn, around.terms, hold, who=name_of(caller), reason=body.note, now_ms=now_ms)
    return _hold_answer(worklists.hold(conn, hold, caller.centres))


@router.get("/adjustments")
def list_adjustments(
    conn: Database,
    caller: Operator,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
    account: AccountFilter = None,
    state: AdjustmentState | None = None,
) -> AdjustmentPage:
    """Corrections of balances; those `requested` wait for a second person."""
    found = worklists.adjustments(
        conn,
        account=account,
        state=state,
        centres=caller.centres,
        before_id=cursor_text(cursor),
        limit=limit,
    )
    items, following = answers.page(found, limit, lambda each: text_cursor(each.adjustment.id))
    return AdjustmentPage(items=[_adjustment_answer(each) for each in items], next_cursor=following)


@router.post(
    "/adjustments",
    status_code=201,
    responses={
        201: {
            "links": {
                name: {
                    "operationId": f"{name}_adjustment",
                    "parameters": {"adjustment": "$response.body#/id"},
                    "description": "By a second person.",
                }
                for name in ("approve", "refuse")
            }
        }
    },
)
def enter_adjustment(
    conn: Database, around: Around, caller: Money_, once: Once, body: AdjustmentRequest
) -> AdjustmentAnswer:
    """Credits or debits an account, with a reason; above the limit a second person decides."""
    now_ms = around.now_ms()
    amount_micro = signed_micro(body.amount, "/amount")
    account = reads.account(conn, body.account, None, caller.centres)
    check_currency(body.currency, account.currency)

    def work() -> AdjustmentAnswer:
        number = command_id(now_ms, secrets.token_bytes(10))
        adjustments.enter(
            conn,
            around.terms,
            adjustment=number,
            account_id=account.id,
            amount_micro=amount_micro,
            reason=body.reason,
            who=name_of(caller),
            now_ms=now_ms,
        )
        return _adjustment_answer(worklists.adjustment(conn, number, caller.centres))

    return answer_once(conn, caller, once, now_ms, work, AdjustmentAnswer)


@router.post("/adjustments/{adjustment}/approval")
def approve_adjustment(
    conn: Database,
    around: Around,
    caller: Money_,
    once: Once,
    adjustment: AdjustmentId,
    body: ReasonRequest | None = None,
) -> AdjustmentAnswer:
    """Posts a requested correction, as another person than the one who asked."""
    worklists.adjustment(conn, adjustment, caller.centres)
    now_ms = around.now_ms()

    def work() -> AdjustmentAnswer:
        adjustments.approve(
            conn,
            around.terms,
            adjustment,
            who=name_of(caller),
            now_ms=now_ms,
            reason=None if body is None else body.reason,
        )
        return _adjustment_answer(worklists.adjustment(conn, adjustment, caller.centres))

    return answer_once(conn, caller, once, now_ms, work, AdjustmentAnswer)


@router.post("/adjustments/{adjustment}/refusal")
def refuse_adjustment(
    conn: Database,
    around: Around,
    caller: Money_,
    adjustment: AdjustmentId,
    body: ReasonRequest | None = None,
) -> AdjustmentAnswer:
    """Refuses a requested correction, as another person than the one who asked."""
    worklists.adjustment(conn, adjustment, caller.centres)
    adjustments.refuse(
        conn,
        around.terms,
        adjustment,
        who=name_of(caller),
        now_ms=around.now_ms(),
        reason=None if body is None else body.reason,
    )
    return _adjustment_answer(worklists.adjustment(conn, adjustment, caller.centres))


@router.post("/reversals", status_code=201)
def reverse_top_up(
    conn: Database, around: Around, caller: Money_, once: Once, body: OperatorReversalRequest
) -> TopUpAnswer:
    """Takes a payment back while no token left the building; after that the answer is 409, and the
    request waits in `/v1/payments/appeals` for a person who decides.
    """
    now_ms = around.now_ms()
    found = worklists.reversible(conn, body.top_up, caller.centres)

    def work() -> TopUpAnswer:
        vending.reverse(
            conn, around.terms, found.channel, found.partner_txn_id, body.reason, now_ms
        )
        audit_log.record(
            conn,
            name_of(caller),
            "top_up.reverse",
            f"top_up:{body.top_up}",
            now_ms,
            reason=body.reason,
            account=found.account_id,
        )
        return answers.top_up_answer(
            top_ups.top_up(conn, found.account_id, body.top_up), now_ms, digits=False
        )

    try:
        return answer_once(conn, caller, once, now_ms, work, TopUpAnswer)
    except Conflict as refusal:
        if refusal.code == "token_issued":
            who = name_of(caller)
            appeals.open_for(
                conn, body.top_up, "reversal", who, body.reason, now_ms, by_operator=True
            )
        raise


def _hold_answer(held: HeldAccount) -> HoldAnswer:
    hold = held.hold
    return HoldAnswer(
        id=hold.id,
        account=held.account,
        kind=hold.kind,
        from_at=format_instant(hold.from_ms),
        until=answers.instant(hold.until_ms),
        placed_by=hold.placed_by,
        reason=hold.reason,
        released_at=answers.instant(hold.released_ms),
        released_by=hold.released_by,
        release_reason=hold.release_reason,
    )


def _adjustment_answer(adjusted: AdjustedAccount) -> AdjustmentAnswer:
    found = adjusted.adjustment
    return AdjustmentAnswer(
        id=found.id,
        account=adjusted.account,
        amount=answers.money(found.amount_micro, adjusted.currency),
        reason=found.reason,
        requested_by=found.requested_by,
        requested_at=format_instant(found.requested_ms),
        state=found.state,
        decided_by=found.decided_by,
        posted_at=answers.instant(found.adjusted_ms),
    )
