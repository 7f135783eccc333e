"""Files from elsewhere, row by row: meters of a roll-out, corrections worked out outside."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import ValidationError

from api import csv_rows
from api.answers import Answer, Instant
from api.csv_rows import Line
from api.dependencies import (
    Allowed,
    Around,
    Database,
    Once,
    ReasonText,
    Surroundings,
    answer_once,
    name_of,
)
from api.errors import pointer
from api.numbers import check_currency, signed_micro
from api.requests import AdjustmentRequest, NewAccount, NewMeterRequest, StsAttributes
from api.routes.operators import new_supply
from schemas.contacts import typed_digits
from schemas.errors import DomainError
from schemas.identity import command_id
from schemas.quantities import format_instant
from store import adjustments, operations, reads
from store.errors import Conflict, NotFound, StoreError, Unavailable
from store.pool import Connection
from store.reads import Principal
from store.settlement import lock_accounts

router = APIRouter(prefix="/v1/imports", tags=["operators"])

# A row takes some milliseconds, and somebody waits for the answer.
METERS_MOST = 2000
# These are one transaction, which holds its accounts meanwhile.
ADJUSTMENTS_MOST = 500
_STS = tuple(StsAttributes.model_fields)
_ACCOUNT = tuple(name for name in NewAccount.model_fields if name not in {"number", "terms"})
METER_COLUMNS = ("number", "centre", "gateway", *_STS, "account", *_ACCOUNT)
ADJUSTMENT_COLUMNS = ("account", "amount", "currency", "reason")
# Names of people; in all else digits are digits.
_NAMES = frozenset({"holder", "reason"})


async def csv_body(request: Request) -> bytes:
    """The body as sent, whatever its type says."""
    return await request.body()


CsvBody = Annotated[bytes, Depends(csv_body)]


class ImportedRow(Answer):
    """`line` counts from 1, the first line of the file. `code` and `detail` say why it was refused;
    a row that was `done` says what else is to know: `known`, the same is there already;
    `requested`, it waits for a second person.
    """

    line: int
    subject: str | None
    state: Literal["done", "refused"]
    code: str | None
    detail: str | None


class ImportAnswer(Answer):
    done: int
    refused: int
    rows: list[ImportedRow]
    as_of: Instant


def _described(columns: tuple[str, ...], example: str) -> dict[str, Any]:
    """A body of CSV, as OpenAPI says it."""
    schema = {
        "type": "string",
        "description": f"A first line of names, of these: {', '.join(columns)}.",
        "examples": [example],
    }
    return {"requestBody": {"required": True, "content": {"text/csv": {"schema": schema}}}}


@router.post(
    "/meters",
    openapi_extra=_described(
        METER_COLUMNS,
        "number,centre,account,holder,tariff\n37000000017,TVZ-1,MINE,Me,household\n",
    ),
)
def import_meters(
    conn: Database,
    around: Around,
    caller: Annotated[Principal, Depends(Allowed("desk", "supervisor", "admin"))],
    body: CsvBody,
    reason: ReasonText = None,
) -> ImportAnswer:
    """Registers the meter of each row and, with `account`, opens its supply point, as `POST
    /v1/meters` does; each row by itself. The same file again finds its rows `known`.
    """
    who, centres = name_of(caller), caller.centres
    return enter_meters(conn, body, who=who, centres=centres, reason=reason, now_ms=around.now_ms())


@router.post(
    "/adjustments",
    openapi_extra=_described(
        ADJUSTMENT_COLUMNS, "account,amount,reason\nMINE,12.50,a bill of last year\n"
    ),
)
def import_adjustments(
    conn: Database,
    around: Around,
    caller: Annotated[Principal, Depends(Allowed("finance", "supervisor", "admin"))],
    once: Once,
    body: CsvBody,
) -> ImportAnswer:
    """Enters the correction of each row, as `POST /v1/adjustments` does; above the limit it waits
    for a second person. The file is entered once under its key, refused rows left out.
    """
    needed = ("account", "amount", "reason")
    rows = list(csv_rows.read(body, ADJUSTMENT_COLUMNS, needed, ADJUSTMENTS_MOST))
    now_ms = around.now_ms()

    def work() -> ImportAnswer:
        # In the order in which everybody locks accounts; the rows come in any.
        lock_accounts(conn, _accounts(conn, caller, rows))

        def enter(line: Line) -> str | None:
            # Of this file alone: its number makes each row once, whoever sends it how often.
            told = f"{caller.operator_id}\0{once.key}\0{line.number}".encode()
            number = command_id(now_ms, hashlib.sha256(told).digest()[:10])
            return _enter_adjustment(conn, around, caller, line, number)

        return _answer([_row(line, "account", enter) for line in rows], now_ms)

    return answer_once(conn, caller, once, now_ms, work, ImportAnswer)


def enter_meters(
    conn: Connection,
    body: bytes,
    *,
    who: str,
    centres: Sequence[int] | None,
    reason: str | None,
    now_ms: int,
    most: int = METERS_MOST,
) -> ImportAnswer:
    """The meters of a file, each row by itself; `centres`: those of who enters them, None: all."""
    rows = csv_rows.read(body, METER_COLUMNS, ("number", "centre"), most)

    def enter(line: Line) -> str | None:
        return _enter_meter(conn, line, who, centres, reason, now_ms)

    return _answer([_row(line, "number", enter) for line in rows], now_ms)


def _row(line: Line, subject: str, enter: Callable[[Line], str | None]) -> ImportedRow:
    """What became of a row; a refusal of it leaves the others alone."""
    code, detail = None, None
    state: Literal["done", "refused"] = "done"
    if line.fault is not None:
        state, code, detail = "refused", "bad_row", line.fault
    else:
        try:
            code = enter(line)
        except ValidationError as error:
            state, code, detail = "refused", "invalid_request", _faults(error)
        except Unavailable:
            raise
        except DomainError as error:
            if isinstance(error, StoreError) and not isinstance(error, Conflict | NotFound):
                raise
            state, code, detail = "refused", error.code, str(error)
    name = line.fields.get(subject)
    return ImportedRow(line=line.number, subject=name, state=state, code=code, detail=detail)


def _faults(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{pointer(('body', *each['loc'])).rpartition('/')[2]}: {each['msg']}" for each in faults
    )


def _answer(rows: list[ImportedRow], now_ms: int) -> ImportAnswer:
    done = sum(row.state == "done" for row in rows)
    return ImportAnswer(
        done=done, refused=len(rows) - done, rows=rows, as_of=format_instant(now_ms)
    )


def _typed(line: Line) -> dict[str, str]:
    return {
        name: value if name in _NAMES else typed_digits(value)
        for name, value in line.fields.items()
    }


def _enter_meter(
    conn: Connection,
    line: Line,
    who: str,
    centres: Sequence[int] | None,
    reason: str | None,
    now_ms: int,
) -> str | None:
    fields = _typed(line)
    form: dict[str, Any] = {
        name: fields[name] for name in ("number", "centre", "gateway") if name in fields
    }
    form |= {"reason": reason} if reason is not None else {}
    sts = {name: fields[name] for name in _STS if name in fields}
    account = {name: fields[name] for name in _ACCOUNT if name in fields}
    form |= {"sts": sts} if sts else {}
    if "account" in fields or account:
        number = {"number": fields["account"]} if "account" in fields else {}
        form |= {"account": number | account}
    new = new_supply(NewMeterRequest.model_validate_strings(form), now_ms)
    try:
        operations.register_supply(conn, new, now_ms, who=who, centres=centres, reason=reason)
    except Conflict as refusal:
        if refusal.code == "meter_exists" and operations.is_registered(conn, new, centres):
            return "known"
        raise
    return None


def _enter_adjustment(
    conn: Connection, around: Surroundings, caller: Principal, line: Line, number: str
) -> str | None:
    body = AdjustmentRequest.model_validate_strings(_typed(line))
    account = reads.account(conn, body.account, None, caller.centres)
    check_currency(body.currency, account.currency)
    # A savepoint: what a refused row began is undone, and the rows before it stay.
    with conn.transaction():
        state = adjustments.enter(
            conn,
            around.terms,
            adjustment=number,
            account_id=account.id,
            amount_micro=signed_micro(body.amount, "/amount"),
            reason=body.reason,
            who=name_of(caller),
            now_ms=around.now_ms(),
        )
    return "requested" if state == "requested" else None


def _accounts(conn: Connection, caller: Principal, rows: list[Line]) -> list[int]:
    numbers = {typed_digits(line.fields["account"]) for line in rows if "account" in line.fields}
    return reads.ids_of_accounts(conn, sorted(numbers), caller.centres)
