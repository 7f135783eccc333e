"""`prepaid tariff`: propose a version, see what it would cost, approve it, assign tariffs."""

import json
import sys
from datetime import date
from typing import Annotated, Any

import typer

from credit_engine.form import Form
from prepaid.clock import Clock
from prepaid.commands.rate import read_scenario
from prepaid.database import connected
from prepaid.settings import Settings
from schemas.errors import DomainError
from schemas.quantities import format_kwh, format_micro
from store import reads, tariffs
from store.impact import Impact, prepare, simulate

Who = Annotated[str, typer.Option("--by", help="Who does this; kept for ever.")]
Version = Annotated[
    str, typer.Option("--version", metavar="FILE", help="A tariff version, YAML or JSON.")
]
# Accounts between two lines of progress.
PROGRESS_EVERY = 200

app = typer.Typer(no_args_is_help=True, help="Tariff versions: draft, impact, approval, accounts.")


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="tariff")


@app.command()
def draft(
    tariff: Annotated[str, typer.Option(help="Code of the tariff.")],
    version: Version,
    by: Who,
    note: Annotated[str, typer.Option(help="Why; kept for ever.")],
) -> None:
    """Propose a version from a local date on; prints the number of the draft."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        number = tariffs.draft(conn, tariff, _read(version), note=note, who=by, now_ms=now_ms)
    sys.stdout.write(f"{number}\n")


@app.command()
def approve(draft: int, by: Who) -> None:
    """Make a draft a version, as another person than its drafter."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        done = tariffs.approve(conn, draft, who=by, now_ms=now_ms)
    sys.stdout.write("approved\n" if done else "was approved before\n")


@app.command()
def withdraw(draft: int, by: Who) -> None:
    """Take a draft back."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        done = tariffs.withdraw(conn, draft, who=by, now_ms=now_ms)
    sys.stdout.write("withdrawn\n" if done else "was withdrawn before\n")


@app.command()
def assign(
    account: str,
    tariff: Annotated[str, typer.Option(help="Code of the tariff.")],
    from_day: Annotated[str, typer.Option("--from", help="Local date, tomorrow or later.")],
    by: Who,
    reason: Annotated[str, typer.Option(help="Why; kept for ever.")],
) -> None:
    """Price an account by another tariff from a local date on."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        done = tariffs.assign(
            conn,
            reads.account(conn, account, None).id,
            tariff,
            _day("--from", from_day),
            who=by,
            reason=reason,
            now_ms=now_ms,
        )
    sys.stdout.write("assigned\n" if done else "was assigned before\n")


@app.command()
def impact(
    tariff: Annotated[str, typer.Option(help="Code of the tariff.")],
    version: Version,
    from_day: Annotated[str, typer.Option("--from", help="First local date of the window.")],
    to_day: Annotated[str, typer.Option("--to", help="Local date that ends it, excluded.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="One object a line, totals last.")
    ] = False,
) -> None:
    """What a version would have cost each account on its real consumption; changes nothing."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    proposed = _read(version)
    first, last = _day("--from", from_day), _day("--to", to_day)
    total = Impact("total", 0, 0, 0)
    dearer = 0
    with connected(settings) as conn:
        simulation = prepare(conn, tariff, proposed, first, last, now_ms)
        if not as_json:
            sys.stdout.write(f"account\tkWh\told {simulation.currency}\tnew\tdifference\n")
        for count, one in enumerate(simulate(conn, simulation), start=1):
            sys.stdout.write(_line(one, as_json=as_json))
            dearer += one.difference_micro > 0
            total = Impact(
                "total",
                total.energy_wh + one.energy_wh,
                total.old_micro + one.old_micro,
                total.new_micro + one.new_micro,
            )
            if count % PROGRESS_EVERY == 0 or count == simulation.accounts:
                sys.stderr.write(f"{count} of {simulation.accounts} accounts\n")
    if as_json:
        summary = _form(total) | {"accounts": simulation.accounts, "dearer_for": dearer}
        sys.stdout.write(json.dumps(summary) + "\n")
    else:
        sys.stdout.write(_line(total, as_json=False))
        sys.stdout.write(f"dearer for {dearer} of {simulation.accounts} accounts\n")


def _line(one: Impact, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(_form(one)) + "\n"
    amounts = (one.old_micro, one.new_micro, one.difference_micro)
    return "\t".join((one.account, format_kwh(one.energy_wh), *map(format_micro, amounts))) + "\n"


def _form(one: Impact) -> dict[str, Any]:
    return {
        "account": one.account,
        "energy_wh": one.energy_wh,
        "old": format_micro(one.old_micro),
        "new": format_micro(one.new_micro),
        "difference": format_micro(one.difference_micro),
    }


def _read(source: str) -> dict[str, Any]:
    form = read_scenario(source)
    if not isinstance(form, dict):
        raise DomainError("bad_input", f"{source}: give one tariff version as a mapping")
    return form


def _day(name: str, text: str) -> date:
    return Form(name, text).day()
