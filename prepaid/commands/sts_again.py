"""`prepaid token reprint`, `stranded`, `replace`: credit that was paid for, once more."""

import json
from typing import Annotated, Any

import typer

from prepaid.clock import Clock
from prepaid.database import connected
from prepaid.security_modules import open_security_module
from prepaid.settings import Settings
from schemas.quantities import format_instant
from store import issuing, replacements
from store.replacements import Stranded
from tokens.numbers import grouped

Meter = Annotated[str, typer.Argument(help="The number of the meter at the account now.")]
By = Annotated[str, typer.Option(help="Who does this; it is kept.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")]


def register(app: typer.Typer) -> None:
    for command in (reprint, stranded, replace):
        app.command()(command)


def reprint(
    top_up: Annotated[str, typer.Argument(help="Receipt number, or id of the top-up.")],
    by: By,
    reason: Reason,
    as_json: Json = False,
) -> None:
    """Show the stored tokens of a top-up again, in the order of entry. Nothing new is issued."""
    settings = Settings()
    with connected(settings) as conn:
        found = issuing.top_up_of_receipt(conn, int(top_up)) if top_up.isdecimal() else top_up
        shown = issuing.reprint(conn, found, by, reason, Clock.parse(settings.clock).now_ms())
    if as_json:
        typer.echo(json.dumps({"top_up": found, "tokens": list(shown)}))
        return
    for digits in shown:
        typer.echo(grouped(digits))


def stranded(meter: Meter, as_json: Json = False) -> None:
    """Credit of a meter's account that nobody accepted and this meter cannot read.

    It is under a key that the meter held before, or for the meter that it came for.
    """
    with connected(Settings()) as conn:
        found = replacements.stranded(conn, meter)
    rows = [_row(each) for each in found]
    if as_json:
        typer.echo(json.dumps({"stranded": rows}))
        return
    for row in rows:
        typer.echo(", ".join(f"{name} {value}" for name, value in row.items()))


def replace(
    meter: Meter,
    by: By,
    reason: Reason,
    not_entered: Annotated[
        bool,
        typer.Option(
            "--not-entered",
            help="Your word that nobody entered the old tokens; needed where no meter remembers.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Give stranded credit again, under the key that the meter holds now, and print it.

    On the same meter the new token has the minute of the old one, so that a meter which took the
    old one refuses the new one (UsedError). After a roll-over of the base date, or for a meter
    that was exchanged, nothing remembers: find out, then say --not-entered.
    """
    settings = Settings()
    module = open_security_module(settings.sts)
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        made = replacements.replace(
            conn, module, meter, by=by, reason=reason, not_entered=not_entered, now_ms=now_ms
        )
        left = len(replacements.stranded(conn, meter))
    if as_json:
        rows = [
            _row(each.replaced) | {"token": each.digits, "ground": each.ground} for each in made
        ]
        typer.echo(json.dumps({"replaced": rows, "left": left}))
        return
    for each in made:
        typer.echo(f"receipt {each.replaced.receipt_number}: {grouped(each.digits)}")
    if left:
        typer.echo(f"{left} more need your word: --not-entered", err=True)


def _row(each: Stranded) -> dict[str, Any]:
    return {
        "receipt": each.receipt_number,
        "issued": format_instant(each.issued_ms),
        "for_meter": each.meter,
        "kwh": f"{each.amount // 10}.{each.amount % 10}",
        "result": each.result,
    }
