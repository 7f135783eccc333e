"""`prepaid import` and `prepaid export`: rows in, and whole lists out, as CSV."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated

import typer

from api import csv_rows
from api.routes.exports import time_range
from api.routes.imports import METER_COLUMNS, enter_meters
from prepaid.clock import Clock
from prepaid.database import connected
from prepaid.settings import Settings
from schemas.errors import DomainError
from store import exports
from store.exports import EXPORTS, Exported, Wanted

# Who waits here sees how far it is; a file of a centre may be long.
METERS_MOST = 200_000


class Listed(StrEnum):
    """The lists of `store.exports`."""

    ACCOUNTS = "accounts"
    METERS = "meters"
    TOP_UPS = "top-ups"
    AUDIT_LOG = "audit-log"


Who = Annotated[str, typer.Option("--by", help="Who does this; kept for ever.")]
Why = Annotated[str | None, typer.Option("--reason", help="Why; kept for ever.")]


class Imported(StrEnum):
    """What comes in as rows."""

    METERS = "meters"


def register(app: typer.Typer) -> None:
    app.command("import")(import_rows)
    app.command("export")(export_list)


def import_rows(
    what: Imported,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|-",
            help=f"CSV in UTF-8 with a first line of names, of these: {', '.join(METER_COLUMNS)}.",
        ),
    ],
    by: Who,
    reason: Why = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The whole answer, for programs.")
    ] = False,
) -> None:
    """Register the meter of each row and, with `account`, open its supply point.

    Each row by itself: a line for each that was refused, with its reason. The same file again finds
    its rows known. Exit status 1: something was refused.
    """
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    body = _read(file)
    with connected(settings) as conn:
        answer = enter_meters(
            conn, body, who=by, centres=None, reason=reason, now_ms=now_ms, most=METERS_MOST
        )
    if as_json:
        sys.stdout.write(answer.model_dump_json() + "\n")
    else:
        for row in [each for each in answer.rows if each.state == "refused"]:
            name = row.subject or "-"
            sys.stdout.write(f"line {row.line}, {name}: {row.code}: {row.detail}\n")
        sys.stdout.write(f"{answer.done} done, {answer.refused} refused\n")
    raise typer.Exit(1 if answer.refused else 0)


def export_list(
    what: Listed,
    by: Who,
    reason: Why = None,
    centre: Annotated[str | None, typer.Option(help="Of this centre alone, by its code.")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="RFC 3339; of lists of a time, else 31 days ago.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="RFC 3339; else now.")] = None,
    out: Annotated[Path | None, typer.Option(help="Into this file instead.")] = None,
) -> None:
    """Write a whole list as CSV to standard output; that it was taken stands in the audit log."""
    name: Exported = next(each for each in EXPORTS if each == what.value)
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    wanted = Wanted(name, None, centre, *time_range(name, from_, to, now_ms))
    columns = EXPORTS[name].columns
    with connected(settings) as conn, _written(out) as file:
        exports.record(conn, wanted, who=by, reason=reason, now_ms=now_ms)
        file.write(csv_rows.head_line(columns))
        after = None
        while rows := exports.portion(conn, wanted, after):
            file.write(csv_rows.written(columns, [row[1:] for row in rows]))
            after = rows[-1][0]


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise DomainError("file_unreadable", f"{path}: {error.strerror}: name another") from None


@contextmanager
def _written(path: Path | None) -> Iterator[IO[str]]:
    if path is None:
        yield sys.stdout
        return
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise DomainError("file_unwritable", f"{path}: {error.strerror}: name another") from None
