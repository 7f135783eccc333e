"""Whole lists as CSV, for other systems and for those who look over the books."""

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from api import csv_rows
from api.answers import Answer
from api.dependencies import (
    Allowed,
    AllowedBriefly,
    Around,
    CentreFilter,
    ReasonText,
    Surroundings,
    name_of,
)
from api.errors import Forbidden, RequestRefused
from api.numbers import instant_ms
from credit_engine.days import DAY_MS
from store import exports
from store.exports import EXPORTS, Exported, Wanted
from store.pool import borrow
from store.reads import Principal

router = APIRouter(prefix="/v1/exports", tags=["operators"])

# A month where nobody says from when, and two years at once.
USUAL_RANGE_MS = 31 * DAY_MS
MAX_RANGE_MS = 800 * DAY_MS
InstantText = Annotated[str | None, Query(max_length=40, description="RFC 3339 instant.")]


class ExportAnswer(Answer):
    """`timed`: of a time, `?from=&to=`, the last 31 days where nobody says."""

    what: Exported
    columns: list[str]
    timed: bool


class ExportList(Answer):
    items: list[ExportAnswer]


@router.get("")
def list_exports(
    caller: Annotated[Principal, Depends(Allowed("finance", "auditor", "admin"))],
) -> ExportList:
    """The lists that the caller may take, with their columns."""
    return ExportList(
        items=[
            ExportAnswer(what=what, columns=csv_rows.heading(export.columns), timed=export.timed)
            for what, export in EXPORTS.items()
            if caller.role in export.roles
        ]
    )


@router.get(
    "/{what}",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def take_export(
    around: Around,
    caller: Annotated[Principal, Depends(AllowedBriefly("finance", "auditor", "admin"))],
    what: Exported,
    centre: CentreFilter = None,
    from_: Annotated[InstantText, Query(alias="from")] = None,
    to: InstantText = None,
    reason: ReasonText = None,
) -> StreamingResponse:
    """One list as CSV with a first line of names, all rows of the caller's centres; an answer that
    breaks off is not whole. That it was taken stands in the audit log.
    """
    if caller.role not in EXPORTS[what].roles:
        raise Forbidden(
            "role_refused",
            f"This is for {', '.join(sorted(EXPORTS[what].roles))}: you are {caller.role}.",
        )
    now_ms = around.now_ms()
    from_ms, to_ms = time_range(what, from_, to, now_ms)
    wanted = Wanted(what, caller.centres, centre, from_ms, to_ms)
    with borrow(around.pool) as conn:
        exports.record(conn, wanted, who=name_of(caller), reason=reason, now_ms=now_ms)
        first = exports.portion(conn, wanted, None)
    return StreamingResponse(
        _lines(around, wanted, first),
        media_type="text/csv",
        headers={"Content-Disposition": f'attachment; filename="{what}.csv"'},
    )


def _lines(around: Surroundings, wanted: Wanted, rows: list[tuple[Any, ...]]) -> Iterator[str]:
    """In a thread of its own, with a connection for each portion alone."""
    columns = EXPORTS[wanted.what].columns
    yield csv_rows.head_line(columns)
    while rows:
        yield csv_rows.written(columns, [row[1:] for row in rows])
        if len(rows) < exports.PORTION:
            return
        with borrow(around.pool) as conn:
            rows = exports.portion(conn, wanted, rows[-1][0])


def time_range(what: Exported, from_: str | None, to: str | None, now_ms: int) -> tuple[int, int]:
    """What a timed list is of, from and to. Errors: RequestRefused `range_refused`."""
    if not EXPORTS[what].timed and (from_, to) != (None, None):
        raise RequestRefused(
            "range_refused", "This list is of now: leave from and to out.", "?from"
        )
    to_ms = now_ms + 1 if to is None else instant_ms(to, "?to")
    from_ms = to_ms - USUAL_RANGE_MS if from_ is None else instant_ms(from_, "?from")
    if not from_ms < to_ms:
        raise RequestRefused("range_refused", "Let from lie before to.", "?from")
    if to_ms - from_ms > MAX_RANGE_MS:
        raise RequestRefused("range_refused", "Ask for at most 800 days at once.", "?from")
    return from_ms, to_ms
