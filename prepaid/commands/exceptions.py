"""`prepaid exceptions`: meters whose own credit and tokens do not agree."""

import json
import sys
from typing import Annotated

import typer

from prepaid.clock import Clock
from prepaid.database import connected
from prepaid.settings import Settings
from schemas.quantities import format_instant
from store import credit_checks
from store.credit_checks import CreditException

app = typer.Typer(
    no_args_is_help=True,
    help="Credit exceptions: a meter's own credit against the tokens that it took. A token or a "
    "reading that is missing, or energy that was not counted. The ledger never changes by it.",
)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="exceptions")


@app.command("list")
def list_exceptions(
    every: Annotated[bool, typer.Option("--all", help="Also those that were closed.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
) -> None:
    """Show the open exceptions, newest first. `gap`: the meter has more (+) or less (-) credit."""
    with connected(Settings()) as conn:
        found = credit_checks.exceptions(conn, all_states=every, limit=limit)
    for each in found:
        sys.stdout.write((json.dumps(_form(each)) if as_json else _line(each)) + "\n")


@app.command()
def close(
    exception: int,
    by: Annotated[str, typer.Option("--by", help="Who looked at it; kept for ever.")],
    note: Annotated[str, typer.Option(help="What was found; kept for ever.")],
) -> None:
    """Close an exception: the meter's next reading is where both sides begin anew."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        credit_checks.close(conn, exception, by=by, note=note, now_ms=now_ms)
    sys.stdout.write("closed\n")


def _form(each: CreditException) -> dict[str, object]:
    return {
        "id": each.id,
        "meter": each.meter,
        "class": each.verdict,
        "gap_wh": each.gap_wh,
        "credit_wh": each.credit_wh,
        "read_at": format_instant(each.read_ms),
        "first_seen_at": format_instant(each.first_seen_ms),
        "closed_at": None if each.closed_ms is None else format_instant(each.closed_ms),
        "closed_by": each.closed_by,
        "note": each.note,
    }


def _line(each: CreditException) -> str:
    text = (
        f"{each.id}  {each.meter}  {each.verdict}  {each.gap_wh:+d} Wh  "
        f"since {format_instant(each.first_seen_ms)}"
    )
    return text if each.closed_by is None else f"{text}; {each.closed_by}: {each.note}"
