"""`prepaid flag`: meters that look like two, or whose counters ran back."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from prepaid.clock import Clock
from prepaid.database import connected
from prepaid.settings import Settings
from schemas.quantities import format_instant
from store import flags

app = typer.Typer(no_args_is_help=True, help="Meters that look like two: list, and clear.")


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="flag")


@app.command("list")
def list_flags(
    meter: Annotated[str | None, typer.Argument(help="One meter; all without.")] = None,
    cleared: Annotated[bool, typer.Option("--all", help="Also those that were cleared.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Show why each meter is suspect, since when and how often.

    seq_reused: its counter went back within a boot. boot_reused: an earlier boot spoke after a
    later one. take_over: connections that keep taking its name from each other.
    """
    with connected(Settings()) as conn:
        found = flags.flags(conn, meter=meter, cleared=cleared)
    for each in found:
        if as_json:
            sys.stdout.write(json.dumps(asdict(each)) + "\n")
            continue
        over = f"  cleared by {each.cleared_by}: {each.note}" if each.cleared_by else ""
        sys.stdout.write(
            f"{each.meter}  {each.kind}  {each.times} times, last {format_instant(each.last_ms)}  "
            f"{each.detail}{over}\n"
        )


@app.command()
def clear(
    meter: str,
    by: Annotated[str, typer.Option("--by", help="Who looked at the meter; kept for ever.")],
    note: Annotated[str, typer.Option(help="What was found; kept for ever.")],
) -> None:
    """End a meter's flags: its counters begin anew with its next reading.

    What was kept in quarantine meanwhile stays there; the next register counts the energy.
    """
    settings = Settings()
    with connected(settings) as conn:
        now_ms = Clock.parse(settings.clock).now_ms()
        count = flags.clear(conn, meter, by, note, now_ms)
    sys.stdout.write(f"cleared {count}\n")
