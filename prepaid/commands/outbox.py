"""`prepaid outbox`: commands on their way, and those that were given up."""

import json
import sys
from collections.abc import Mapping
from typing import Annotated

import typer

from prepaid.clock import Clock
from prepaid.database import connected
from prepaid.settings import Settings
from schemas.quantities import format_instant
from store import dead_letters, outbox, supply
from store.dead_letters import DeadLetter

Who = Annotated[str, typer.Option("--by", help="Who does this; kept for ever.")]
Note = Annotated[str, typer.Option(help="Why; kept for ever.")]
Limit = Annotated[int, typer.Option(min=1, max=1000)]
Json = Annotated[bool, typer.Option("--json", help="A JSON object a line.")]

app = typer.Typer(
    no_args_is_help=True, help="Commands to meters: what waits, and what was given up and why."
)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="outbox")


@app.command("list")
def list_queued(limit: Limit = 50, as_json: Json = False) -> None:
    """Show the commands that wait to be sent, oldest first; never their arguments."""
    with connected(Settings()) as conn:
        found = supply.queued_commands(conn, limit)
    for each in found:
        form = {
            "cmd": each.command.cmd,
            "meter": each.meter,
            "gateway": each.gateway,
            "type": each.command.type,
            "ctr": each.command.ctr,
            "issued_at": format_instant(each.command.issued_ms),
            "expires_at": format_instant(each.command.expires_ms),
        }
        _write(form, as_json=as_json)


@app.command("dead-letters")
def list_dead_letters(
    every: Annotated[bool, typer.Option("--all", help="Also those that were decided.")] = False,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Show the commands that nobody tries any more, newest first, each with the reason."""
    with connected(Settings()) as conn:
        found = dead_letters.dead_letters(conn, all_states=every, limit=limit)
    for each in found:
        _write(_form(each), as_json=as_json)


@app.command()
def reopen(letter: int, by: Who, note: Note) -> None:
    """Try a dead letter again; a relay only if it is still to be switched and no guard stands."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        outbox.reopen(conn, letter, by=by, note=note, now_ms=now_ms)
    sys.stdout.write("reopened\n")


@app.command()
def close(letter: int, by: Who, note: Note) -> None:
    """Close a dead letter: nothing more is to be done about it."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        dead_letters.close(conn, letter, by=by, note=note, now_ms=now_ms)
    sys.stdout.write("closed\n")


def _form(each: DeadLetter) -> dict[str, object]:
    return {
        "id": each.id,
        "meter": each.meter,
        "type": each.type,
        "ended": each.command_state,
        "reason": each.reason,
        "attempt": each.attempt,
        "first_issued_at": format_instant(each.first_issued_ms),
        "recorded_at": format_instant(each.recorded_ms),
        "state": each.state,
        "decided_by": each.decided_by,
        "note": each.note,
        "cmd": each.cmd,
    }


def _write(form: Mapping[str, object], *, as_json: bool) -> None:
    text = "  ".join(f"{name}={value}" for name, value in form.items() if value is not None)
    sys.stdout.write((json.dumps(form) if as_json else text) + "\n")
