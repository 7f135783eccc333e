"""Who else has a part in an account: one who sees and pays, or one who may pay and see nothing."""

from fastapi import APIRouter

from api import answers
from api.admission import KnownFirst
from api.answers import Answer, Instant
from api.dependencies import (
    PAGE_DEFAULT,
    Around,
    Caller,
    Cursor,
    Database,
    Limit,
    ManagedAccount,
    ReasonText,
    RowId,
    actor_of,
    demand_fresh,
)
from api.numbers import cursor_id, phone_number
from api.requests import Body, Name, Number
from schemas.quantities import format_instant
from store import grants
from store.grants import Grant, GrantRole

router = APIRouter(prefix="/v1/accounts", tags=["customers"], route_class=KnownFirst)


class GrantRequest(Body):
    """To whoever signs in with this phone, known before or not."""

    phone: Number
    role: GrantRole
    reason: Name | None = None


class GrantAnswer(Answer):
    """`phone` is None once erased. `withdrawn_at` None: it stands."""

    id: str
    account: str
    phone: str | None
    role: GrantRole
    given_at: Instant
    given_by: str
    withdrawn_at: Instant | None
    withdrawn_by: str | None


class GrantPage(Answer):
    items: list[GrantAnswer]
    next_cursor: str | None


@router.get("/{account}/grants")
def list_grants(
    conn: Database, account: ManagedAccount, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None
) -> GrantPage:
    """Who else has a part in the account, newest first, those withdrawn included."""
    found = grants.of_account(conn, account.id, before_id=cursor_id(cursor), limit=limit)
    items, following = answers.page(found, limit, lambda each: str(each.id))
    return GrantPage(
        items=[_grant_answer(account.number, each) for each in items], next_cursor=following
    )


@router.post("/{account}/grants", status_code=201)
def give_grant(
    conn: Database, around: Around, caller: Caller, account: ManagedAccount, body: GrantRequest
) -> GrantAnswer:
    """Gives a part to a phone; another role replaces the one before. The answer does not tell
    whether that phone is known.
    """
    demand_fresh(caller, around.wall_ms())
    phone = phone_number(body.phone, around.settings.phone_plan, "/phone")
    by = actor_of(caller, reason=body.reason)
    made = grants.give(conn, account.id, phone, body.role, by=by, now_ms=around.now_ms())
    return _grant_answer(account.number, made)


@router.delete("/{account}/grants/{grant}", status_code=204)
def withdraw_grant(
    conn: Database,
    around: Around,
    caller: Caller,
    account: ManagedAccount,
    grant: RowId,
    reason: ReasonText = None,
) -> None:
    """Ends a part in the account, at once; a repeat is answered alike."""
    by = actor_of(caller, reason=reason)
    grants.withdraw(conn, account.id, grant, by=by, now_ms=around.now_ms())


def _grant_answer(account: str, grant: Grant) -> GrantAnswer:
    return GrantAnswer(
        id=str(grant.id),
        account=account,
        phone=grant.phone,
        role=grant.role,
        given_at=format_instant(grant.given_ms),
        given_by=grant.given_by,
        withdrawn_at=answers.instant(grant.withdrawn_ms),
        withdrawn_by=grant.withdrawn_by,
    )
