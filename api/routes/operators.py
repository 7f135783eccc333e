"""Operators: a new meter, what was refused and why, what was said to meters."""

from typing import Annotated, Any

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
from api.numbers import LARGEST, cursor_id, meter_number
from api.requests import NewAccount, NewMeterRequest, NoteRequest, PlaceRequest, StsAttributes
from credit_engine.errors import CreditError
from credit_engine.terms import Installation
from schemas.commands import CommandState
from schemas.contacts import typed_digits
from schemas.identity import is_gateway_name
from schemas.quantities import format_instant
from schemas.wire import DesiredRelay, Relay
from store import operations, outages, registry
from store.operations import IssuedCommand, ListedMeter, MeterReport, NewSupply, Quarantined
from store.reads import Principal
from store.registry import NewMeter
from tokens.errors import TokenError
from tokens.keys import KeyAttributes
from tokens.numbers import validate_meter_pan

router = APIRouter(prefix="/v1", tags=["operators"], route_class=KnownFirst)

STS_NAMES = ("meter_pan", "sgc", "krn", "kt", "ken", "ti", "base_date", "ea", "dkga", "third_kct")


class RegisterAnswer(Answer):
    obis: str
    at: Instant
    wh: int


class StsAnswer(Answer):
    """IEC 62055-41 key attributes: what a token for this meter is made under."""

    meter_pan: str
    sgc: str
    krn: int
    kt: int
    ken: int
    ti: str
    base_date: int
    ea: int
    dkga: int
    third_kct: bool


class MeterAnswer(Answer):
    number: str
    centre: str
    gateway: str | None
    account: str | None
    sts: StsAnswer | None
    online: bool | None
    seen_at: Instant | None
    boot: int | None
    seq: int | None
    desired_relay: DesiredRelay
    reported_relay: Relay | None
    reported_at: Instant | None
    registers: list[RegisterAnswer]
    as_of: Instant


class ListedMeterAnswer(Answer):
    """A meter among others; `GET /v1/meters/{number}` says all of it."""

    number: str
    centre: str
    gateway: str | None
    account: str | None
    takes_tokens: bool
    online: bool | None
    seen_at: Instant | None
    desired_relay: DesiredRelay
    reported_relay: Relay | None
    reported_at: Instant | None


class MeterPage(Answer):
    items: list[ListedMeterAnswer]
    as_of: Instant
    next_cursor: str | None


class NewMeterAnswer(MeterAnswer):
    """`access_key` is the holder's and is shown this once; None where no account was opened."""

    access_key: str | None


class QuarantinedAnswer(Answer):
    """`id` closes it; `note` is what came of it."""

    id: str
    received_at: Instant
    reason: str
    detail: str
    topic: str
    meter: str | None
    at: Instant | None
    wh: int | None
    closed_by: str | None
    closed_at: Instant | None
    note: str | None


class QuarantinePage(Answer):
    items: list[QuarantinedAnswer]
    next_cursor: str | None


class CommandAnswer(Answer):
    """`args` is None for tokens: their digits are the customer's."""

    id: str
    meter: str
    type: str
    state: str
    ctr: int
    issued_at: Instant
    expires_at: Instant
    sent_at: Instant | None
    answered_at: Instant | None
    args: dict[str, Any] | None
    answer: dict[str, Any] | None


class CommandPage(Answer):
    items: list[CommandAnswer]
    as_of: Instant
    next_cursor: str | None


@router.post("/meters", status_code=201)
def register_meter(
    conn: Database,
    around: Around,
    caller: Annotated[Principal, Depends(Allowed("desk", "supervisor", "admin"))],
    body: NewMeterRequest,
) -> NewMeterAnswer:
    """Registers a meter and, with `account`, opens its supply point in the same transaction."""
    now_ms = around.now_ms()
    new = new_supply(body, now_ms)
    key = None
    try:
        with conn.transaction():
            holder = operations.register_supply(
                conn,
                new,
                now_ms,
                who=name_of(caller),
                centres=caller.centres,
                reason=body.reason,
            )
            if holder is not None:
                key = registry.add_access_key(conn, holder, now_ms)
    except CreditError as error:
        raise RequestRefused(error.code, str(error), "/account/terms") from None
    report = operations.meter(conn, new.meter.number)
    return NewMeterAnswer.model_validate(_meter_form(report, now_ms) | {"access_key": key})


def new_supply(body: NewMeterRequest, now_ms: int) -> NewSupply:
    """What is asked for, judged. Errors: RequestRefused."""
    number = meter_number(body.number, "/number")
    gateway = _gateway_name(body.gateway)
    new = NewSupply(meter=_meter(number, gateway, body.sts), centre=body.centre)
    return new if body.account is None else _with_account(new, body.account, now_ms)


def _gateway_name(given: str | None) -> str | None:
    if given is not None and is_gateway_name(given) is None:
        raise RequestRefused(
            "bad_gateway", "Name the gateway in letters, digits, - or _.", "/gateway"
        )
    return given


def _meter(number: str, gateway: str | None, sts: StsAttributes | None) -> NewMeter:
    if sts is None:
        return NewMeter(number, gateway=gateway)
    try:
        attributes = KeyAttributes(**sts.model_dump(exclude={"meter_pan", "third_kct"}))
        pan = validate_meter_pan(sts.meter_pan)
        return NewMeter(number, pan, attributes, gateway, third_kct=sts.third_kct)
    except TokenError as error:
        raise RequestRefused(error.code, str(error), "/sts") from None


def _with_account(new: NewSupply, account: NewAccount, now_ms: int) -> NewSupply:
    if account.opening_wh >= account.modulus_wh:
        raise RequestRefused(
            "opening_refused", "Let the opening value be below the modulus.", "/account/opening_wh"
        )
    at = format_instant(now_ms)
    return NewSupply(
        meter=new.meter,
        centre=new.centre,
        account=account.number,
        holder=account.holder,
        tariff=account.tariff,
        terms={"activated_at": at, **account.terms},
        installation=Installation(
            meter_id=new.meter.number,
            modulus_wh=account.modulus_wh,
            opened_at_ms=now_ms,
            opening_wh=account.opening_wh,
            max_power_w=account.max_power_w,
        ),
    )


@router.get("/meters")
def list_meters(
    conn: Database,
    around: Around,
    caller: Operator,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
    centre: CentreFilter = None,
    gateway: Annotated[str | None, Query(max_length=64, pattern=r"^[!-~]+$")] = None,
    search: Annotated[
        str | None,
        Query(
            min_length=2,
            max_length=64,
            pattern=r"^[^\x00-\x1f]+$",
            description="The beginning of a meter's or an account's number, in digits as typed.",
        ),
    ] = None,
) -> MeterPage:
    """The meters of the caller's centres, in the order of their registration."""
    found = operations.meters(
        conn,
        centres=caller.centres,
        after_id=cursor_id(cursor),
        limit=limit,
        centre=centre,
        gateway=gateway,
        search=None if search is None else typed_digits(search),
    )
    items, following = answers.page(found, limit, lambda each: str(each.id))
    return MeterPage(
        items=[_listed_meter(each) for each in items],
        as_of=format_instant(around.now_ms()),
        next_cursor=following,
    )


@router.put("/meters/{number}/gateway")
def place_meter(
    conn: Database,
    around: Around,
    caller: Annotated[Principal, Depends(Allowed("supervisor", "field", "admin"))],
    number: Annotated[str, Path(max_length=40)],
    body: PlaceRequest,
) -> MeterAnswer:
    """Says which gateway speaks for a meter, and names the gateway where it is new."""
    outages.place_behind(
        conn,
        meter_number(number, "{number}"),
        "gateway",
        _gateway_name(body.gateway),
        who=name_of(caller),
        now_ms=around.now_ms(),
        reason=body.reason,
        centres=caller.centres,
    )
    return show_meter(conn, around, caller, number)


@router.get("/meters/{number}")
def show_meter(
    conn: Database,
    around: Around,
    caller: Operator,
    number: Annotated[str, Path(max_length=40)],
) -> MeterAnswer:
    """A meter as registered and as it last spoke."""
    report = operations.meter(conn, meter_number(number, "{number}"), caller.centres)
    return MeterAnswer.model_validate(_meter_form(report, around.now_ms()))


@router.get("/quarantine")
def list_quarantine(
    conn: Database,
    caller: Operator,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
    reason: Annotated[str | None, Query(max_length=64, pattern=r"^[a-z0-9_]+$")] = None,
    closed: bool | None = None,
) -> QuarantinePage:
    """Refused messages and readings that charge nothing, newest first, with the reason."""
    until_ms, skip = _quarantine_place(cursor)
    found = operations.quarantined(
        conn,
        reason=reason,
        until_ms=until_ms,
        skip=skip,
        limit=limit,
        centres=caller.centres,
        closed=closed,
    )
    items = found[:limit]
    following = None
    if len(found) > limit:
        # Rows of one batch share their instant: the place among them is part of the cursor.
        last_ms = items[-1].received_ms
        same = sum(item.received_ms == last_ms for item in items)
        following = f"{last_ms}-{same + (skip if last_ms == until_ms else 0)}"
    return QuarantinePage(
        items=[_quarantined_answer(item) for item in items], next_cursor=following
    )


@router.post("/quarantine/{item}/closing")
def close_quarantined(
    conn: Database,
    around: Around,
    caller: Annotated[Principal, Depends(Allowed("desk", "supervisor", "field", "admin"))],
    item: Annotated[str, Path(max_length=64, pattern=r"^[!-~]+$")],
    body: NoteRequest,
) -> QuarantinedAnswer:
    """Says what came of an item; it stays where it is."""
    found = operations.close_quarantined(
        conn,
        item,
        body.note,
        centres=caller.centres,
        who=name_of(caller),
        now_ms=around.now_ms(),
    )
    return _quarantined_answer(found)


def _quarantine_place(cursor: str | None) -> tuple[int | None, int]:
    if cursor is None:
        return None, 0
    parts = cursor.split("-")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise RequestRefused("bad_cursor", "Send next_cursor of the page before.", "?cursor")
    until_ms, skip = map(int, parts)
    if until_ms > LATEST_MS or skip > LARGEST:
        raise RequestRefused("bad_cursor", "Send next_cursor of the page before.", "?cursor")
    return until_ms, skip


# The end of the year 9999: the last instant that this contract can write.
LATEST_MS = 253_402_300_799_999


@router.get("/commands")
def list_commands(
    conn: Database,
    around: Around,
    caller: Operator,
    limit: Limit = PAGE_DEFAULT,
    cursor: Annotated[str | None, Query(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")] = (
        None
    ),
    meter: Annotated[str | None, Query(max_length=40)] = None,
    state: CommandState | None = None,
    centre: CentreFilter = None,
) -> CommandPage:
    """Commands to meters, newest first, each with what the meter answered."""
    number = None if meter is None else meter_number(meter, "?meter")
    found = operations.commands(
        conn,
        meter=number,
        state=state,
        before_id=cursor,
        limit=limit,
        centres=caller.centres,
        centre=centre,
    )
    items, following = answers.page(found, limit, lambda command: command.id)
    return CommandPage(
        items=[_command_answer(item) for item in items],
        as_of=format_instant(around.now_ms()),
        next_cursor=following,
    )


def _listed_meter(meter: ListedMeter) -> ListedMeterAnswer:
    return ListedMeterAnswer.model_validate(
        {
            "number": meter.number,
            "centre": meter.centre,
            "gateway": meter.gateway,
            "account": meter.account,
            "takes_tokens": meter.takes_tokens,
            "online": meter.online,
            "seen_at": answers.instant(meter.seen_ms),
            "desired_relay": meter.desired_relay,
            "reported_relay": meter.reported_relay,
            "reported_at": answers.instant(meter.reported_ms),
        }
    )


def _meter_form(report: MeterReport, now_ms: int) -> dict[str, object]:
    sts = {name: getattr(report, name) for name in STS_NAMES}
    return {
        "number": report.number,
        "centre": report.centre,
        "gateway": report.gateway,
        "account": report.account,
        "sts": None if report.meter_pan is None else sts,
        "online": report.online,
        "seen_at": answers.instant(report.seen_ms),
        "boot": report.boot,
        "seq": report.seq,
        "desired_relay": report.desired_relay,
        "reported_relay": report.reported_relay,
        "reported_at": answers.instant(report.reported_ms),
        "registers": [
            {"obis": name, "at": format_instant(at_ms), "wh": wh}
            for name, at_ms, wh in report.registers or ()
        ],
        "as_of": format_instant(now_ms),
    }


def _quarantined_answer(item: Quarantined) -> QuarantinedAnswer:
    return QuarantinedAnswer(
        id=item.item,
        received_at=format_instant(item.received_ms),
        reason=item.reason,
        detail=item.detail,
        topic=item.topic,
        meter=item.meter,
        at=answers.instant(item.reading_ms),
        wh=item.reading_wh,
        closed_by=item.closed_by,
        closed_at=answers.instant(item.closed_ms),
        note=item.note,
    )


def _command_answer(command: IssuedCommand) -> CommandAnswer:
    return CommandAnswer.model_validate(
        {
            "id": command.id,
            "meter": command.meter,
            "type": command.type,
            "state": command.state,
            "ctr": command.ctr,
            "issued_at": format_instant(command.issued_ms),
            "expires_at": format_instant(command.expires_ms),
            "sent_at": answers.instant(command.sent_ms),
            "answered_at": answers.instant(command.answered_ms),
            "args": command.args,
            "answer": command.answer,
        }
    )
