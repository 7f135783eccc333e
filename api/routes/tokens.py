"""Operators and STS tokens: shown again, asked for and approved by two people, read."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path

from api import answers
from api.admission import KnownFirst
from api.answers import Answer, Instant
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
    Surroundings,
    answer_once,
    name_of,
)
from api.errors import RequestRefused
from api.numbers import cursor_id, meter_number
from api.requests import (
    DecodeRequest,
    EngineeringRequest,
    KeyChangeConfirmation,
    NoteRequest,
    ReasonRequest,
    ReprintRequest,
)
from schemas.quantities import format_instant
from store import engineering, issuing, key_changes, operations, worklists
from store.engineering import EngineeringToken, Work
from store.issuing import CREDIT_SUBCLASS, WH_PER_UNIT, Issued
from store.operations import MeterReport
from store.pool import Connection
from store.reads import Principal
from tokens import apdu, codec, numbers, tid
from tokens.apdu import Apdu
from tokens.credit import credit_of
from tokens.errors import TokenError
from tokens.keys import KeyAttributes
from tokens.slips import likely_slips

router = APIRouter(prefix="/v1", tags=["operators"], route_class=KnownFirst)

Desk = Annotated[Principal, Depends(Allowed("desk", "supervisor", "admin"))]
Working = Annotated[Principal, Depends(Allowed("desk", "field", "supervisor", "admin"))]
Approving = Annotated[Principal, Depends(Allowed("supervisor", "admin"))]
RequestId = RowId
# Refusals of a row of digits that a slip of the fingers explains.
MISTYPED = frozenset({"crc_error", "format_error", "unsupported_class"})


class ReprintAnswer(Answer):
    """`tokens` in the order of entry, as they were issued the first time."""

    top_up: str
    tokens: list[str]


class EngineeringAnswer(Answer):
    """`digits`: once approved; stars but for the last four to whoever may not enter them."""

    id: int
    meter: str
    work: Work
    fields: dict[str, int]
    reason: str
    requested_by: str
    requested_at: Instant
    decision: Literal["approved", "refused"] | None
    decided_by: str | None
    decided_at: Instant | None
    decision_reason: str | None
    digits: str | None


class EngineeringPage(Answer):
    items: list[EngineeringAnswer]
    next_cursor: str | None


class HeldKeyAnswer(Answer):
    """The key attributes that the meter holds now."""

    meter: str
    sgc: str
    krn: int
    ken: int
    ti: str
    base_date: int


class IssuedAnswer(Answer):
    """One time that these digits left us; `result`: what the meter said to them. `replaced_at`:
    when another token took their place.
    """

    issued_at: Instant
    meter: str
    receipt_number: str | None
    result: str | None
    answered_at: Instant | None
    replaced_at: Instant | None


class ReadTokenAnswer(Answer):
    """`minute` of issue and `energy_wh` where the class carries them."""

    digits: str
    token_class: int
    subclass: int
    minute: Instant | None
    energy_wh: int | None


class DecodeAnswer(Answer):
    """`read`: None where no meter was named or its key does not read the digits; then `problem`
    says why. `likely_meant`: tokens of that meter one slip of the fingers away.
    """

    token_class: int | None
    issued_by_us: list[IssuedAnswer]
    read: ReadTokenAnswer | None
    problem: str | None
    likely_meant: list[ReadTokenAnswer]


@router.post("/tokens/reprints", status_code=201)
def reprint(
    conn: Database, around: Around, caller: Desk, once: Once, body: ReprintRequest
) -> ReprintAnswer:
    """Shows the tokens of a top-up again, and keeps who asked and why."""
    now_ms = around.now_ms()
    worklists.reversible(conn, body.top_up, caller.centres)

    def work() -> ReprintAnswer:
        found = issuing.reprint(conn, body.top_up, name_of(caller), body.reason, now_ms)
        return ReprintAnswer(top_up=body.top_up, tokens=list(found))

    return answer_once(conn, caller, once, now_ms, work, ReprintAnswer)


@router.get("/tokens/engineering")
def list_engineering_tokens(
    conn: Database,
    caller: Operator,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
    waiting: bool = False,
) -> EngineeringPage:
    """Requests newest first; with `waiting` those that nobody decided."""
    found = worklists.engineering_tokens(
        conn, waiting=waiting, centres=caller.centres, before_id=cursor_id(cursor), limit=limit
    )
    items, following = answers.page(found, limit, lambda each: str(each.id))
    return EngineeringPage(
        items=[_engineering_answer(each, caller) for each in items], next_cursor=following
    )


@router.get("/tokens/engineering/{request}")
def show_engineering_token(
    conn: Database, caller: Operator, request: RequestId
) -> EngineeringAnswer:
    """One request and what became of it."""
    return _engineering_answer(worklists.engineering_token(conn, request, caller.centres), caller)


@router.post("/tokens/engineering", status_code=201)
def request_engineering_token(
    conn: Database, around: Around, caller: Working, once: Once, body: EngineeringRequest
) -> EngineeringAnswer:
    """Asks for a token for work on a meter; nothing is issued until another person approves."""
    now_ms = around.now_ms()
    meter = _meter(conn, body.meter, caller).number

    def work() -> EngineeringAnswer:
        number = engineering.request_engineering_token(
            conn,
            meter,
            body.work,
            body.fields,
            reason=body.reason,
            by=name_of(caller),
            now_ms=now_ms,
            daily_limit=around.settings.engineering_per_day.get(caller.role, 0),
        )
        return _engineering_answer(
            worklists.engineering_token(conn, number, caller.centres), caller
        )

    return answer_once(conn, caller, once, now_ms, work, EngineeringAnswer)


@router.post("/tokens/engineering/{request}/approval")
def approve_engineering_token(
    conn: Database,
    around: Around,
    caller: Approving,
    once: Once,
    request: RequestId,
    body: ReasonRequest | None = None,
) -> EngineeringAnswer:
    """Issues the token, as another person than the one who asked."""
    worklists.engineering_token(conn, request, caller.centres)
    now_ms = around.now_ms()

    def work() -> EngineeringAnswer:
        engineering.approve_engineering_token(
            conn,
            around.security_module,
            request,
            name_of(caller),
            now_ms,
            reason=None if body is None else body.reason,
        )
        return _engineering_answer(
            worklists.engineering_token(conn, request, caller.centres), caller
        )

    return answer_once(conn, caller, once, now_ms, work, EngineeringAnswer)


@router.post("/tokens/engineering/{request}/refusal")
def refuse_engineering_token(
    conn: Database, around: Around, caller: Approving, request: RequestId, body: NoteRequest
) -> EngineeringAnswer:
    """A no, with its reason."""
    worklists.engineering_token(conn, request, caller.centres)
    engineering.refuse_engineering_token(conn, request, name_of(caller), body.note, around.now_ms())
    return _engineering_answer(worklists.engineering_token(conn, request, caller.centres), caller)


@router.post("/meters/{number}/key-change/confirmation")
def confirm_key_change(
    conn: Database,
    around: Around,
    caller: Working,
    number: Annotated[str, Path(max_length=40)],
    body: KeyChangeConfirmation,
) -> HeldKeyAnswer:
    """Somebody saw the meter accept its key change set at the keypad: the new key is in force."""
    meter = _meter(conn, number, caller, "{number}").number
    held = key_changes.confirm_entry(conn, meter, name_of(caller), around.now_ms(), note=body.note)
    return HeldKeyAnswer(
        meter=meter,
        sgc=held.sgc,
        krn=held.krn,
        ken=held.ken,
        ti=held.ti,
        base_date=held.base_date,
    )


@router.post("/tokens/decode")
def decode(conn: Database, around: Around, caller: Working, body: DecodeRequest) -> DecodeAnswer:
    """What a row of digits is: whether we issued it, and what it says to a meter."""
    digits = numbers.compact(body.digits)
    token_class, problem = None, None
    issued: list[Issued] = []
    try:
        token_class, _ = codec.split(digits)
    except TokenError as error:
        problem = str(error)
    else:
        issued = worklists.issued(conn, digits, caller.centres)
    if body.meter is not None:
        return _read(around, _meter(conn, body.meter, caller), digits, token_class, issued)
    read = None
    if token_class == apdu.NON_METER_SPECIFIC:
        try:
            read = _read_answer(digits, codec.decode_clear(digits), None)
        except TokenError as error:
            problem = str(error)
    return _decoded(token_class, issued, read, problem)


def _read(
    around: Surroundings,
    meter: MeterReport,
    digits: str,
    token_class: int | None,
    issued: list[Issued],
) -> DecodeAnswer:
    """With the key that the meter holds."""
    pan, held = meter.meter_pan, _held(meter)
    if pan is None or held is None:
        raise RequestRefused("no_tokens", "This meter takes no tokens.", "/meter")

    def verify(row: str) -> Apdu:
        return around.security_module.verify(pan, held, row)

    try:
        return _decoded(token_class, issued, _read_answer(digits, verify(digits), held), None)
    except TokenError as error:
        if error.code not in MISTYPED:
            raise
        slips = [_read_answer(row, unit, held) for row, unit in likely_slips(digits, verify)]
        return _decoded(token_class, issued, None, str(error), slips)


def _decoded(
    token_class: int | None,
    issued: list[Issued],
    read: ReadTokenAnswer | None,
    problem: str | None,
    likely_meant: list[ReadTokenAnswer] | None = None,
) -> DecodeAnswer:
    return DecodeAnswer(
        token_class=token_class,
        issued_by_us=[
            IssuedAnswer(
                issued_at=format_instant(each.issued_ms),
                meter=each.meter,
                receipt_number=None if each.receipt_number is None else str(each.receipt_number),
                result=each.result,
                answered_at=answers.instant(each.answered_ms),
                replaced_at=answers.instant(each.replaced_ms),
            )
            for each in issued
        ],
        read=read,
        problem=problem,
        likely_meant=likely_meant or [],
    )


def _read_answer(digits: str, unit: Apdu, held: KeyAttributes | None) -> ReadTokenAnswer:
    """Sections of keys are not shown; neither is anything else that a meter alone needs."""
    minute, energy_wh = None, None
    if held is not None and "tid" in unit.fields:
        minute = format_instant(tid.tid_ms(unit.fields["tid"], held.base_date))
    if unit.cls == apdu.CREDIT and unit.subclass == CREDIT_SUBCLASS:
        energy_wh = credit_of(unit).amount * WH_PER_UNIT
    return ReadTokenAnswer(
        digits=digits,
        token_class=unit.cls,
        subclass=unit.subclass,
        minute=minute,
        energy_wh=energy_wh,
    )


def _meter(conn: Connection, text: str, caller: Principal, place: str = "/meter") -> MeterReport:
    return operations.meter(conn, meter_number(text, place), caller.centres)


def _held(meter: MeterReport) -> KeyAttributes | None:
    values = (
        meter.sgc, meter.krn, meter.kt, meter.ken, meter.ti, meter.base_date, meter.ea, meter.dkga
    )  # fmt: skip
    if any(value is None for value in values):
        return None
    return KeyAttributes(*values)  # type: ignore[arg-type] # all or none are null, by a constraint


def _engineering_answer(token: EngineeringToken, caller: Principal) -> EngineeringAnswer:
    """Whoever asked for a token enters it at the meter, whatever the role."""
    digits = token.digits
    if digits is not None and not (
        caller.role in DIGITS_ROLES or token.requested_by == caller.name
    ):
        digits = answers.masked_digits(digits)
    return EngineeringAnswer.model_validate(
        {
            "id": token.id,
            "meter": token.meter,
            "work": token.work,
            "fields": dict(token.fields),
            "reason": token.reason,
            "requested_by": token.requested_by,
            "requested_at": format_instant(token.requested_ms),
            "decision": token.decision,
            "decided_by": token.decided_by,
            "decided_at": answers.instant(token.decided_ms),
            "decision_reason": token.decision_reason,
            "digits": digits,
        }
    )
