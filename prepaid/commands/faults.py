"""`prepaid faults`: the whole system under load, one fault a round, its laws after each."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from prepaid import logs
from prepaid.faults import quota
from prepaid.faults.kinds import KINDS, Kind, chosen
from prepaid.faults.playing import Course, play, progress
from prepaid.faults.report import Played, line, repeat, table, write_page
from prepaid.faults.report import form as form_of
from prepaid.faults.rounds import AUDIT_EVERY, DEADLINE_S, Round, plan
from prepaid.faults.system import Wanted


def register(app: typer.Typer) -> None:
    app.command()(faults)


def faults(
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds, one fault in each.")] = 23,
    seed: Annotated[int, typer.Option(help="The same seed gives the same faults.")] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="These kinds or groups of kinds (may be repeated)."),
    ] = None,
    alone: Annotated[
        int | None, typer.Option("--round", min=1, help="Only this round of the seed.")
    ] = None,
    meters: Annotated[int, typer.Option(min=3, max=1000, help="A reading a second of each.")] = 80,
    audit_every: Annotated[
        int, typer.Option(min=1, help="The laws of `prepaid audit` in so many rounds, and last.")
    ] = AUDIT_EVERY,
    deadline_s: Annotated[
        float, typer.Option(min=5, help="A round that has not recovered by then has failed.")
    ] = DEADLINE_S,
    listing: Annotated[bool, typer.Option("--list", help="Say which faults there are.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the result as a page in Markdown.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Kill, pause, restart, cut off and fill up every part of the system, and prove its laws.

    On a private database and broker of its own, which are removed at the end. Progress goes to
    standard error; exit status 1 if a law broke, with the command that repeats that round alone.
    """
    if listing:
        width = max(map(len, KINDS)) + 2
        sys.stdout.writelines(f"{name:<{width}}{each.happens}.\n" for name, each in KINDS.items())
        return
    wanted = chosen(only or [])
    skipped: dict[str, str] = {}
    bounded = any(kind.bounded for kind in wanted)
    if bounded and not quota.inside():
        reason = quota.unavailable()
        if reason is None:
            quota.run_inside()
        skipped = {kind.name: reason or "" for kind in wanted if kind.bounded}
        bounded = False
    logs.configure(as_json=False, level="critical")
    able = [kind for kind in wanted if kind.name not in skipped]
    # The plan is that of all kinds wanted, so that a round alone is the same everywhere.
    planned = _planned(wanted, able, rounds, seed, alone)
    course = Course(planned, audit_every, deadline_s)
    found = asyncio.run(play(Wanted(meters, seed, bounded), course, _tell))
    played = Played(wanted, found, seed, meters, audit_every, deadline_s, skipped)
    if as_json:
        sys.stdout.write(json.dumps(form_of(played), ensure_ascii=False, indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{each}\n" for each in table(played))
    for each in found:
        if not each.passed:
            progress(f"round {each.number} failed; again: {repeat(played, each)}")
    if out is not None:
        write_page(played, out)
    raise typer.Exit(0 if played.passed else 1)


def _planned(
    wanted: list[Kind], able: list[Kind], rounds: int, seed: int, alone: int | None
) -> list[tuple[int, Kind]]:
    if alone is not None:
        return plan(wanted, alone, seed)[-1:]
    return [(number, kind) for number, kind in plan(wanted, rounds, seed) if kind in able]


def _tell(result: Round) -> None:
    sys.stderr.write(line(result) + "\n")
    sys.stderr.flush()
