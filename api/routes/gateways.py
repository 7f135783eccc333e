"""Gateways: who speaks for which meters, whether it is heard, and what it has to carry."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query

from api import answers
from api.admission import KnownFirst
from api.answers import Answer, Instant
from api.dependencies import (
    PAGE_DEFAULT,
    Allowed,
    Around,
    CentreFilter,
    Cursor,
    Database,
    Limit,
    Operator,
    name_of,
)
from api.errors import RequestRefused
from api.numbers import cursor_id
from api.requests import GatewayRequest
from schemas.contacts import typed_digits
from schemas.identity import is_gateway_name
from schemas.quantities import format_instant
from store import gateways
from store.gateways import Gateway
from store.reads import Principal

router = APIRouter(prefix="/v1/gateways", tags=["operators"], route_class=KnownFirst)


class GatewayAnswer(Answer):
    """`online` and `seen_at` None: it never spoke. Meters and commands are those of the caller's
    centres: `queued` wait, the oldest since `oldest_queued_at`; `in_flight` went out and are not
    answered. `next_send_at`: its pace lets nothing go before. `outage`: why it is held for away.
    """

    name: str
    meters: int
    online: bool | None
    seen_at: Instant | None
    queued: int
    oldest_queued_at: Instant | None
    in_flight: int
    next_send_at: Instant | None
    outage: Literal["power_fail", "gateway_offline", "silence"] | None
    as_of: Instant


class GatewayPage(Answer):
    items: list[GatewayAnswer]
    next_cursor: str | None


@router.get("")
def list_gateways(
    conn: Database,
    around: Around,
    caller: Operator,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
    centre: CentreFilter = None,
    search: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=64,
            pattern=r"^[^\x00-\x1f]+$",
            description="The beginning of a name, in digits as typed.",
        ),
    ] = None,
) -> GatewayPage:
    """Gateways in the order of their registration; an operator of some centres sees those that
    speak for a meter there.
    """
    found = gateways.seen(
        conn,
        centres=caller.centres,
        after_id=cursor_id(cursor),
        limit=limit,
        centre=centre,
        search=None if search is None else typed_digits(search),
    )
    items, following = answers.page(found, limit, lambda each: str(each.id))
    now_ms = around.now_ms()
    return GatewayPage(
        items=[_gateway_answer(each, now_ms) for each in items], next_cursor=following
    )


@router.get("/{gateway}")
def show_gateway(
    conn: Database,
    around: Around,
    caller: Operator,
    gateway: Annotated[str, Path(max_length=64, pattern=r"^[!-~]+$")],
) -> GatewayAnswer:
    """One gateway; its meters are `GET /v1/meters?gateway=`."""
    return _gateway_answer(gateways.one(conn, gateway, caller.centres), around.now_ms())


@router.post("", status_code=201)
def register_gateway(
    conn: Database,
    around: Around,
    caller: Annotated[Principal, Depends(Allowed("supervisor", "admin", everywhere=True))],
    body: GatewayRequest,
) -> GatewayAnswer:
    """A gateway before any meter is behind it; a meter that names one registers it as well."""
    if is_gateway_name(body.name) is None:
        raise RequestRefused("bad_gateway", "Name the gateway in letters, digits, - or _.", "/name")
    now_ms = around.now_ms()
    gateways.register(conn, body.name, reason=body.reason, who=name_of(caller), now_ms=now_ms)
    return _gateway_answer(gateways.one(conn, body.name, caller.centres), now_ms)


def _gateway_answer(gateway: Gateway, now_ms: int) -> GatewayAnswer:
    return GatewayAnswer.model_validate(
        {
            "name": gateway.name,
            "meters": gateway.meters,
            "online": gateway.online,
            "seen_at": answers.instant(gateway.seen_ms),
            "queued": gateway.queued,
            "oldest_queued_at": answers.instant(gateway.oldest_queued_ms),
            "in_flight": gateway.in_flight,
            "next_send_at": answers.instant(gateway.next_send_ms or None),
            "outage": gateway.outage,
            "as_of": format_instant(now_ms),
        }
    )
