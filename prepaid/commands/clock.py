"""`prepaid clock`: readings of meters whose clock was lost, and what a person decides on them."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from prepaid.clock import Clock
from prepaid.database import connected
from prepaid.settings import Settings
from schemas.errors import DomainError
from schemas.quantities import format_instant, parse_instant_ms
from store import clocks
from store.clocks import LostReading
from store.terms import TermsCache

Who = Annotated[str, typer.Option("--by", help="Who decides; kept for ever.")]
Note = Annotated[str, typer.Option(help="Why; kept for ever.")]
At = Annotated[str | None, typer.Option(help="One reading, by the instant that the meter said.")]
Every = Annotated[bool, typer.Option("--all", help="All undecided readings of the meter.")]

app = typer.Typer(no_args_is_help=True, help="Readings with a lost clock: list, accept, discard.")


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="clock")


@app.command("list")
def list_lost(
    meter: Annotated[str | None, typer.Argument(help="One meter; all without.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Show readings that are stored and not billed because their meter's clock was lost.

    The proposed instant follows from how far the clock was off when it was found lost, or from
    what the meter said as it set its clock.
    """
    with connected(Settings()) as conn:
        found = clocks.lost_readings(conn, meter=meter)
    for each in found:
        if as_json:
            sys.stdout.write(json.dumps(asdict(each)) + "\n")
            continue
        proposed = "nothing" if each.proposed_ms is None else format_instant(each.proposed_ms)
        sys.stdout.write(
            f"{each.meter}  {each.register} {each.value_wh} Wh at {format_instant(each.ts_ms)}, "
            f"received {format_instant(each.received_ms)}, proposed {proposed}\n"
        )


@app.command()
def accept(
    meter: str,
    by: Who,
    note: Note,
    at: At = None,
    every: Every = False,
    corrected: Annotated[
        str | None, typer.Option(help="The true instant; the proposed one without.")
    ] = None,
) -> None:
    """Bill a reading at its true instant, or all of a meter at the proposed ones."""
    if every and corrected is not None:
        raise DomainError("bad_option", "Give --corrected for one reading, with --at.")
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    corrected_ms = None if corrected is None else parse_instant_ms(corrected)
    with connected(settings) as conn:
        chosen = _chosen(clocks.lost_readings(conn, meter=meter), at, every=every)
        terms = TermsCache()
        for each in chosen:
            clocks.accept(conn, terms, each, corrected_ms, by, note, now_ms)
    sys.stdout.write(f"accepted {len(chosen)}\n")


@app.command()
def discard(meter: str, by: Who, note: Note, at: At = None, every: Every = False) -> None:
    """Decide that a reading, or all undecided ones of a meter, count for nothing."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        chosen = _chosen(clocks.lost_readings(conn, meter=meter), at, every=every)
        for each in chosen:
            clocks.discard(conn, each, by, note, now_ms)
    sys.stdout.write(f"discarded {len(chosen)}\n")


def _chosen(found: list[LostReading], at: str | None, *, every: bool) -> list[LostReading]:
    if every == (at is not None):
        raise DomainError("bad_option", "Give --at INSTANT for one reading, or --all.")
    at_ms = None if at is None else parse_instant_ms(at)
    chosen = [each for each in found if every or each.ts_ms == at_ms]
    if not chosen:
        raise DomainError("nothing_lost", "That meter has no undecided reading there.")
    return chosen
