"""A payment to the wrong meter, moved to the right one by who paid or by who serves him."""

from typing import Annotated

from fastapi import APIRouter, Path

from api import payment_answers
from api.admission import KnownFirst
from api.dependencies import (
    DIGITS_ROLES,
    Around,
    Caller,
    Database,
    Once,
    ServedAccount,
    answer_once,
    named,
)
from api.numbers import meter_number
from api.payment_answers import MoveAnswer
from api.requests import MoveRequest
from store import appeals, reads, reversals, top_ups, tracker
from store.errors import Conflict

router = APIRouter(prefix="/v1/accounts", tags=["customers"], route_class=KnownFirst)


@router.post("/{account}/top-ups/{top_up}/moves", status_code=201)
def move_top_up(
    conn: Database,
    around: Around,
    caller: Caller,
    once: Once,
    account: ServedAccount,
    top_up: Annotated[str, Path(max_length=64, pattern=r"^[!-~]+$")],
    body: MoveRequest,
) -> MoveAnswer:
    """Moves a payment to the meter that was meant while its credit is unspent. Where its token was
    shown already the answer is 409 and an operator decides.
    """
    now_ms = around.now_ms()
    meter = meter_number(body.meter)
    paid = top_ups.top_up(conn, account.id, top_up)

    def work() -> MoveAnswer:
        # A repeat is answered whatever has changed since, the meter's exchange included.
        if caller.is_operator:
            # What lies in another centre looks like what does not exist.
            served = reads.account_served_by(conn, meter)
            reads.account(conn, served.number, None, caller.centres)
        reversals.move(
            conn,
            around.terms,
            around.security_module,
            paid.channel,
            paid.partner_txn_id,
            to_meter=meter,
            who=named(caller),
            reason=body.reason,
            now_ms=now_ms,
        )
        track = tracker.of_top_up(conn, top_ups.top_up(conn, account.id, top_up))
        return payment_answers.move_answer(track, top_up, digits=caller.role in DIGITS_ROLES)

    try:
        return answer_once(conn, caller, once, now_ms, work, MoveAnswer)
    except Conflict as refusal:
        if refusal.code == "token_issued":
            appeals.open_for(
                conn,
                top_up,
                "move",
                named(caller),
                body.reason,
                now_ms,
                to_meter=meter,
                by_operator=caller.is_operator,
            )
        raise
