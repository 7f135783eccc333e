"""`prepaid outage`: where supply or connection is away, and what a meter is behind."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

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
    with connected(Settings()) as conn:
        for meter in meters:
            if gateway is not None:
                outages.place_behind(conn, meter, "gateway", gateway or None)
            if transformer is not None:
                outages.place_behind(conn, meter, "transformer", transformer or None)
    sys.stdout.write(f"placed {len(meters)}\n")
