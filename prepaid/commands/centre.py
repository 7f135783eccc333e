"""`prepaid centre`: what an operator sets for a centre."""

import json
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from prepaid.clock import Clock
from prepaid.database import connected
from prepaid.settings import Settings
from schemas.errors import DomainError
from store import centres

app = typer.Typer(
    no_args_is_help=True,
    help="Settings of a centre: guards before a cut, the fleet brake, how supply comes back.",
)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="centre")


@app.command()
def settings(code: str) -> None:
    """Show the settings of a centre as JSON."""
    with connected(Settings()) as conn:
        found = centres.settings_of_code(conn, code)
    sys.stdout.write(json.dumps(asdict(found), indent=2) + "\n")


@app.command("set")
def set_settings(
    code: str,
    changes: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE...", help="null switches a rule off.")
    ],
    by: Annotated[str, typer.Option("--by", help="Who does this; kept for ever.")],
) -> None:
    """Set some settings, as reconnect=arm notice_hours=24; prints all of them."""
    configured = Settings()
    now_ms = Clock.parse(configured.clock).now_ms()
    with connected(configured) as conn:
        parsed = dict(_parsed(each) for each in changes)
        changed = centres.change(conn, code, parsed, by=by, now_ms=now_ms)
    sys.stdout.write(json.dumps(asdict(changed), indent=2) + "\n")


def _parsed(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise DomainError("bad_setting", f"{text}: give NAME=VALUE")
    if value == "null":
        return name, None
    return name, int(value) if value.isascii() and value.isdigit() else value
