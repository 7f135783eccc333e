"""Operators: what partners' daily files and our payments do not agree on, until it is decided."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from api import answers, payment_answers
from api.admission import KnownFirst
from api.dependencies import (
    PAGE_DEFAULT,
    Allowed,
    Around,
    Cursor,
    Database,
    Limit,
    Once,
    RowId,
    answer_once,
    name_of,
)
from api.numbers import cursor_id
from api.payment_answers import ItemAnswer, ItemPage
from api.requests import DecisionRequest
from schemas.quantities import format_instant
from store import reconciliation
from store.matching import Class
from store.reads import Principal

router = APIRouter(prefix="/v1/reconciliation", tags=["operators"], route_class=KnownFirst)

# A channel's money belongs to no one centre.
Reader = Annotated[
    Principal, Depends(Allowed("finance", "supervisor", "auditor", "admin", everywhere=True))
]
Decider = Annotated[Principal, Depends(Allowed("finance", "supervisor", "admin", everywhere=True))]


@router.get("")
def list_items(
    conn: Database,
    around: Around,
    caller: Reader,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
    channel: Annotated[str | None, Query(max_length=64, pattern=r"^[!-~]+$")] = None,
    class_: Annotated[Class | None, Query(alias="class")] = None,
    waiting: bool = True,
) -> ItemPage:
    """Differences that wait for a decision, oldest first; with `waiting=false` every item."""
    found = reconciliation.listed(
        conn,
        open_only=waiting,
        channel=channel,
        cls=class_,
        after_id=cursor_id(cursor),
        limit=limit,
    )
    items, following = answers.page(found, limit, lambda each: str(each.id))
    now_ms = around.now_ms()
    return ItemPage(
        items=[
            payment_answers.item_answer(each, around.settings.currency, now_ms) for each in items
        ],
        as_of=format_instant(now_ms),
        next_cursor=following,
    )


@router.post("/{item}/decision")
def decide_item(
    conn: Database,
    around: Around,
    caller: Decider,
    once: Once,
    item: RowId,
    body: DecisionRequest,
) -> ItemAnswer:
    """Decides what becomes of a difference, once. `credited` takes a line that never came as a
    payment as one: it is credited, or held where something speaks against that.
    """
    now_ms = around.now_ms()

    def work() -> ItemAnswer:
        who = name_of(caller)
        if body.decision == "credited":
            found = reconciliation.credit(
                conn,
                around.terms,
                around.security_module,
                item,
                note=body.note,
                who=who,
                now_ms=now_ms,
            )
        else:
            found = reconciliation.close(
                conn, item, decision=body.decision, note=body.note, who=who, now_ms=now_ms
            )
        return payment_answers.item_answer(found, around.settings.currency, now_ms)

    return answer_once(conn, caller, once, now_ms, work, ItemAnswer)
