"""`prepaid brake`: cuts of a centre that wait because too many came at once."""

import json
import sys
from typing import Annotated

import typer

from prepaid.clock import Clock
from prepaid.database import connected
from prepaid.settings import Settings
from schemas.quantities import format_instant
from store import brakes
from store.brakes import Brake

Who = Annotated[str, typer.Option("--by", help="Who does this; kept for ever.")]
Reason = Annotated[str, typer.Option(help="Why; kept for ever.")]

app = typer.Typer(
    no_args_is_help=True,
    help="The fleet brake: a run that cuts too large a part of a centre waits for a person.",
)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="brake")


@app.command("list")
def list_brakes(
    every: Annotated[bool, typer.Option("--all", help="Also those that were decided.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
) -> None:
    """Show the brakes that are pulled, newest first, with how many cuts each withholds."""
    with connected(Settings()) as conn:
        found = brakes.brakes(conn, all_states=every, limit=limit)
    for each in found:
        sys.stdout.write((json.dumps(_form(each)) if as_json else _line(each)) + "\n")


@app.command()
def release(
    brake: int,
    by: Who,
    reason: Reason,
    free_minutes: Annotated[
        int, typer.Option(min=0, help="So long more cuts of the centre pull no brake.")
    ] = 60,
) -> None:
    """Let the withheld cuts go on: they are right."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        count = brakes.release(
            conn, brake, free_minutes=free_minutes, by=by, reason=reason, now_ms=now_ms
        )
    sys.stdout.write(f"released: {count} accounts are decided again\n")


@app.command()
def close(brake: int, by: Who, reason: Reason) -> None:
    """The cause is put right: decide the accounts again, with the brake counting from now."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        count = brakes.close(conn, brake, by=by, reason=reason, now_ms=now_ms)
    sys.stdout.write(f"closed: {count} accounts are decided again\n")


def _form(each: Brake) -> dict[str, object]:
    return {
        "id": each.id,
        "centre": each.centre,
        "pulled_at": format_instant(each.pulled_ms),
        "cuts": each.cuts,
        "wanted": each.wanted,
        "most": each.most,
        "withheld": each.withheld,
        "state": each.state,
        "decided_by": each.decided_by,
        "reason": each.reason,
        "decided_at": None if each.decided_ms is None else format_instant(each.decided_ms),
        "free_until": None if each.free_until_ms is None else format_instant(each.free_until_ms),
    }


def _line(each: Brake) -> str:
    text = (
        f"{each.id}  {each.centre}  {each.state}  {format_instant(each.pulled_ms)}  "
        f"{each.cuts} cuts and {each.wanted} more, at most {each.most}; withholds {each.withheld}"
    )
    return text if each.decided_by is None else f"{text}; {each.decided_by}: {each.reason}"
