"""What an installation is made of: its centres, its operators, and the log of what they did."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query

from api import answers
from api.admission import KnownFirst
from api.answers import Answer, Instant
from api.dependencies import (
    PAGE_DEFAULT,
    Allowed,
    Around,
    Cursor,
    Database,
    Limit,
    Operator,
    name_of,
)
from api.numbers import cursor_id
from api.requests import Body, CentreRequest, Name
from schemas.quantities import format_instant
from store import audit_log, customers, operations, operators
from store.audit_log import LoggedAct
from store.customers import CentreReport
from store.operators import OperatorRole
from store.reads import Principal

router = APIRouter(prefix="/v1", tags=["operators"], route_class=KnownFirst)

Auditor = Annotated[Principal, Depends(Allowed("auditor", "admin"))]
CentreCode = Annotated[str, Path(max_length=64, pattern=r"^[!-~]+$")]
Word = Annotated[str | None, Query(max_length=120, pattern=r"^[^\x00-\x1f]+$")]


class CentrePaperAnswer(Answer):
    """`ended`: paper goes only to those who asked for it, `requested` of them."""

    ended: bool
    ended_at: Instant | None
    requested: int


class CentreAnswer(Answer):
    """`registered`: customers with a verified contact and consent to be written to there."""

    code: str
    name: str
    accounts: int
    meters: int
    customers: int
    registered: int
    registered_percent: str
    paper: CentrePaperAnswer
    as_of: Instant


class PaperEndRequest(Body):
    """`ended` False: to everybody again."""

    ended: bool
    reason: Name


class CentreList(Answer):
    items: list[CentreAnswer]


class StaffAnswer(Answer):
    """`centres`: codes, None for every centre; `keys`: beginnings of the keys of programs."""

    name: str
    role: OperatorRole
    centres: list[str] | None
    second_factor: bool
    keys: list[str]
    created_at: Instant
    disabled_at: Instant | None


class StaffList(Answer):
    items: list[StaffAnswer]


class ActAnswer(Answer):
    """`role` is that of now; None for acts at the server's own command line."""

    id: str
    at: Instant
    who: str
    role: str | None
    action: str
    subject: str
    centre: str | None
    reason: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class ActPage(Answer):
    items: list[ActAnswer]
    next_cursor: str | None


@router.get("/centres")
def list_centres(conn: Database, around: Around, caller: Operator) -> CentreList:
    """The centres that the caller has."""
    found = customers.centres(conn, caller.centres)
    now_ms = around.now_ms()
    return CentreList(items=[_centre_answer(each, now_ms) for each in found])


@router.get("/centres/{centre}")
def show_centre(
    conn: Database, around: Around, caller: Operator, centre: CentreCode
) -> CentreAnswer:
    """One centre with how many of its customers can be reached without paper."""
    return _centre_answer(customers.centre(conn, caller.centres, centre), around.now_ms())


@router.put("/centres/{centre}/paper")
def end_paper(
    conn: Database,
    around: Around,
    caller: Annotated[Principal, Depends(Allowed("supervisor", "admin"))],
    centre: CentreCode,
    body: PaperEndRequest,
) -> CentreAnswer:
    """Ends paper for a centre but to those who ask for it, or sends it to everybody again."""
    changed = customers.end_paper(
        conn,
        caller.centres,
        centre,
        ended=body.ended,
        reason=body.reason,
        who=name_of(caller),
        now_ms=around.now_ms(),
    )
    return _centre_answer(changed, around.now_ms())


@router.post("/centres", status_code=201)
def open_centre(
    conn: Database,
    around: Around,
    caller: Annotated[Principal, Depends(Allowed("admin", everywhere=True))],
    body: CentreRequest,
) -> CentreAnswer:
    """A new centre."""
    operations.open_centre(
        conn,
        body.code,
        body.name,
        who=name_of(caller),
        now_ms=around.now_ms(),
        reason=body.reason,
    )
    return _centre_answer(customers.centre(conn, caller.centres, body.code), around.now_ms())


@router.get("/operators")
def list_operators(
    conn: Database,
    caller: Annotated[Principal, Depends(Allowed("auditor", "admin", everywhere=True))],
) -> StaffList:
    """Every operator; they are added and disabled with `prepaid operator` at the server."""
    return StaffList(
        items=[
            StaffAnswer(
                name=each.name,
                role=each.role,
                centres=None if each.centres is None else list(each.centre_codes or ()),
                second_factor=each.has_second_factor,
                keys=list(each.key_prefixes or ()),
                created_at=format_instant(each.created_ms),
                disabled_at=answers.instant(each.disabled_ms),
            )
            for each in operators.listed(conn)
        ]
    )


@router.get("/audit-log")
def list_acts(
    conn: Database,
    caller: Auditor,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
    who: Word = None,
    action: Word = None,
    subject: Word = None,
) -> ActPage:
    """What operators did, newest first: who, when, why, before and after; nothing is removed."""
    found = audit_log.newest(
        conn,
        who=who,
        action=action,
        subject=subject,
        centres=caller.centres,
        before_id=cursor_id(cursor),
        limit=limit,
    )
    items, following = answers.page(found, limit, lambda each: str(each.id))
    return ActPage(items=[_act_answer(each) for each in items], next_cursor=following)


def _centre_answer(centre: CentreReport, now_ms: int) -> CentreAnswer:
    return CentreAnswer(
        code=centre.code,
        name=centre.name,
        accounts=centre.accounts,
        meters=centre.meters,
        customers=centre.customers,
        registered=centre.registered,
        registered_percent=answers.percent(centre.registered_ppm),
        paper=CentrePaperAnswer(
            ended=centre.paper_ended_ms is not None,
            ended_at=answers.instant(centre.paper_ended_ms),
            requested=centre.paper_requested,
        ),
        as_of=format_instant(now_ms),
    )


def _act_answer(act: LoggedAct) -> ActAnswer:
    return ActAnswer(
        id=str(act.id),
        at=format_instant(act.at_ms),
        who=act.who,
        role=act.role,
        action=act.action,
        subject=act.subject,
        centre=act.centre,
        reason=act.reason,
        before=None if act.before is None else answers.spoken(act.before),
        after=None if act.after is None else answers.spoken(act.after),
    )
