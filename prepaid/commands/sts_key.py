"""`prepaid token key`: what one meter holds, should hold, and the set that leads there."""

from typing import Annotated

import typer

from prepaid.clock import Clock
from prepaid.commands import sts_report
from prepaid.database import connected
from prepaid.security_modules import open_security_module
from prepaid.settings import Settings
from store import issuing, key_changes, replacements

app = typer.Typer(
    no_args_is_help=True,
    help="""Change the key of one meter: want, issue, enter at the keypad, confirm.

    A purchase issues the set by itself; these are for the meter at hand. Many
    meters move by `prepaid token campaign`.
    """,
)

Meter = Annotated[str, typer.Argument(help="The meter's number.")]
By = Annotated[str, typer.Option(help="Who does this; it is kept.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")]


@app.command()
def want(
    meter: Meter,
    by: By,
    sgc: Annotated[str | None, typer.Option(help="Supply group code to move to.")] = None,
    ti: Annotated[str | None, typer.Option(help="Tariff index to move to.")] = None,
    as_json: Json = False,
) -> None:
    """Say which supply group or tariff index a meter should have; without either, show it."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        wanted = key_changes.want(conn, meter, now_ms, by=by, sgc=sgc, ti=ti)
    sts_report.write({"meter": meter, "wanted": sts_report.attributes(wanted)}, as_json=as_json)


@app.command()
def issue(meter: Meter, by: By, as_json: Json = False) -> None:
    """Issue the set that leads a meter to what it should hold, and print it in order of entry.

    A meter that was ever online is sent it, too. Asked again, it is the same set.
    """
    settings = Settings()
    module = open_security_module(settings.sts)
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        change = issuing.issue_set_of(conn, module, meter, by, now_ms)
    report = {
        "meter": meter,
        "to": sts_report.attributes(change.to),
        "tokens": list(change.digits),
    }
    sts_report.write(report, as_json=as_json)


@app.command()
def confirm(meter: Meter, by: By, as_json: Json = False) -> None:
    """Confirm that a meter took its whole set at the keypad.

    Says how many credit tokens it cannot read any more: `prepaid token replace` gives them again.
    """
    settings = Settings()
    with connected(settings) as conn:
        held = key_changes.confirm_entry(conn, meter, by, Clock.parse(settings.clock).now_ms())
        left = len(replacements.stranded(conn, meter))
    report = {"meter": meter, "held": sts_report.attributes(held), "unreadable_credit": left}
    sts_report.write(report, as_json=as_json)


@app.command()
def abandon(
    meter: Meter,
    by: By,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
) -> None:
    """Take back an open set that never reached its meter, and that no credit waits behind."""
    settings = Settings()
    with connected(settings) as conn:
        key_changes.abandon(conn, meter, by, reason, Clock.parse(settings.clock).now_ms())
    typer.echo(f"meter {meter}: the open set is taken back")
