"""`prepaid outage`: where supply or connection is away, and what a meter is behind."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from prepaid.clock import Clock
from prepaid.database import connected
from prepaid.settings import Settings
from schemas.errors import DomainError
from schemas.quantities import format_instant
from store import outages

app = typer.Typer(no_args_is_help=True, help="Outages of gateways and transformers.")


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="outage")


@app.command("list")
def list_outages(
    ended: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Show outages: nothing is decided against a meter behind one while it lasts.

    power_fail: the meters said so. gateway_offline: its connection is gone. silence: most meters
    of the group missed their readings.
    """
    with connected(Settings()) as conn:
        found = outages.outages(conn, ended=ended)
    for each in found:
        if as_json:
            sys.stdout.write(json.dumps(asdict(each)) + "\n")
            continue
        until = "lasts" if each.ended_ms is None else f"until {format_instant(each.ended_ms)}"
        sys.stdout.write(
            f"{each.scope} {each.name}  {each.cause}  since {format_instant(each.started_ms)}, "
            f"{until}  {each.silent} of {each.meters} meters silent\n"
        )


@app.command()
def place(
    meters: Annotated[list[str], typer.Argument(help="Numbers of meters.")],
    by: Annotated[str, typer.Option("--by", help="Who says so; kept for ever.")],
    gateway: Annotated[
        str | None, typer.Option(help="The gateway that speaks for them; '' for none.")
    ] = None,
    transformer: Annotated[
        str | None, typer.Option(help="The transformer that feeds them; '' for not known.")
    ] = None,
) -> None:
    """Say what meters are behind: their silence together is an outage of it."""
    if gateway is None and transformer is None:
        raise DomainError("bad_option", "Give --gateway or --transformer.")
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    groups: list[tuple[outages.Scope, str | None]] = [
        ("gateway", gateway),
        ("transformer", transformer),
    ]
    with connected(settings) as conn:
        for meter in meters:
            for scope, name in groups:
                if name is not None:
                    outages.place_behind(conn, meter, scope, name or None, who=by, now_ms=now_ms)
    sys.stdout.write(f"placed {len(meters)}\n")
