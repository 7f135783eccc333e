"""`prepaid token campaign`: meters move to a new vending key, batch by batch."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from prepaid.clock import Clock
from prepaid.database import connected
from prepaid.security_modules import open_security_module
from prepaid.settings import Settings
from schemas.errors import DomainError
from schemas.quantities import parse_instant_ms
from store import campaigns, key_changes
from tokens.numbers import grouped

app = typer.Typer(
    no_args_is_help=True,
    help="""Move meters to a new vending key or base date, batch by batch.

    adopt the key, plan the campaign, issue a batch, print the slips of meters
    that are not online, confirm what was typed in (`prepaid token key
    confirm`), and look at the progress.
    A meter that buys meanwhile gets its set with the purchase.
    """,
)

By = Annotated[str, typer.Option(help="Who does this; it is kept.")]
Code = Annotated[str, typer.Argument(help="The campaign's code.")]
Batch = Annotated[int, typer.Option(min=1, help="Number of the batch.")]
Json = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]


@app.command()
def adopt(
    sgc: Annotated[str, typer.Option(help="Supply group code, six digits.")],
    krn: Annotated[int, typer.Option(help="Key revision number, 1 to 9.")],
    by: By,
    ken: Annotated[int, typer.Option(help="Key expiry number; 255 does not expire.")] = 255,
    base_date: Annotated[int, typer.Option(help="1993, 2014 or 2035.")] = 2014,
    dkga: Annotated[int, typer.Option(help="2 or 4.")] = 4,
    since: Annotated[
        str | None, typer.Option("--from", help="Instant from which it is the current key.")
    ] = None,
) -> None:
    """Record that a supply group uses a vending key of the security module from an instant on."""
    settings = Settings()
    module = open_security_module(settings.sts)
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        key = key_changes.adopt_vending_key(
            conn,
            module,
            sgc=sgc,
            krn=krn,
            ken=ken,
            base_date=base_date,
            dkga=dkga,
            from_ms=now_ms if since is None else _instant_ms(since),
            by=by,
            now_ms=now_ms,
        )
    typer.echo(f"SGC {key.sgc}: KRN {key.krn}, check value {key.check_value}")


@app.command("list")
def list_campaigns(as_json: Json = False) -> None:
    """Every campaign, newest first."""
    with connected(Settings()) as conn:
        _write((asdict(each) for each in campaigns.campaigns(conn)), as_json=as_json)


@app.command()
def plan(
    code: Code,
    sgc: Annotated[str, typer.Option(help="Supply group code, six digits.")],
    by: By,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Meters per batch.")] = 500,
    as_json: Json = False,
) -> None:
    """List the meters that hold another key than the group's current one, in batches by centre."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        campaigns.plan(conn, code, sgc, batch_size, by, reason, now_ms)
        _write((asdict(each) for each in campaigns.batches(conn, code)), as_json=as_json)


@app.command()
def issue(code: Code, batch: Batch, as_json: Json = False) -> None:
    """Issue the sets of a batch; a stop in the middle goes on next time."""
    settings = Settings()
    module = open_security_module(settings.sts)
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        done = campaigns.issue_batch(conn, module, code, batch, now_ms, _progress)
    _write([asdict(done)], as_json=as_json)


@app.command()
def progress(code: Code, as_json: Json = False) -> None:
    """How far each centre is: meters, sets issued, entered, confirmed, refused."""
    with connected(Settings()) as conn:
        _write((asdict(each) for each in campaigns.progress(conn, code)), as_json=as_json)


@app.command()
def slips(code: Code, batch: Batch, as_json: Json = False) -> None:
    """The sets of a batch that no meter has confirmed, to be typed in, in this order."""
    with connected(Settings()) as conn:
        found = campaigns.slips(conn, code, batch)
    if as_json:
        _write((asdict(each) for each in found), as_json=True)
        return
    for slip in found:
        typer.echo(f"{slip.centre}, meter {slip.meter}")
        for digits in slip.digits:
            typer.echo(f"    {grouped(digits)}")


@app.command()
def expiry(as_json: Json = False) -> None:
    """Vending keys in meters that end within five years; exit status 1 if there are any."""
    settings = Settings()
    with connected(settings) as conn:
        found = campaigns.key_expiries(conn, Clock.parse(settings.clock).now_ms())
    if as_json:
        _write((asdict(each) for each in found), as_json=True)
    else:
        for each in found:
            typer.echo(f"{each.level}: {campaigns.advice(each)}")
    raise typer.Exit(1 if found else 0)


def _instant_ms(text: str) -> int:
    try:
        return parse_instant_ms(text)
    except (ValueError, DomainError):
        raise DomainError(
            "bad_option", f"--from {text!r} is no instant like 2026-03-01T10:15:00Z."
        ) from None


def _progress(meters: int) -> None:
    if meters % 100 == 0:
        sys.stderr.write(f"{meters} meters\n")


def _write(rows: Iterable[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(list(rows)))
        return
    for row in rows:
        typer.echo(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.items()))
