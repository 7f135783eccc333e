"""`prepaid token engineering`: tokens for work on a meter, by two people."""

import json
import re
from typing import Annotated, Any

import typer

from prepaid.clock import Clock
from prepaid.database import connected
from prepaid.security_modules import open_security_module
from prepaid.settings import Settings
from schemas.errors import DomainError
from schemas.quantities import format_instant
from store import engineering
from store.engineering import EngineeringToken, Work
from tokens.numbers import grouped

LISTED = 200
NUMBER = re.compile("[0-9]{1,20}|0x[0-9a-fA-F]{1,16}")

app = typer.Typer(
    no_args_is_help=True,
    help="""Tokens for work on a meter: one person asks with a reason, another approves.

    set_maximum_power_limit (--field mpl=WATTS), clear_credit (--field
    register=65535 for all), clear_tamper_condition, initiate_meter_test
    (--field control=N --field mfr_code=N).
    """,
)

Request = Annotated[int, typer.Argument(help="Number of the request.")]
By = Annotated[str, typer.Option(help="Who does this; it is kept.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept.")]
Json = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]


@app.command()
def request(
    meter: Annotated[str, typer.Argument(help="The meter's number.")],
    work: Annotated[Work, typer.Argument(help="What the token does.")],
    by: By,
    reason: Reason,
    field: Annotated[
        list[str] | None, typer.Option(help="NAME=NUMBER of the token; may be repeated.")
    ] = None,
) -> None:
    """Ask for a token; prints the request's number. Nothing is issued until another approves."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    fields = numbered_fields(field or [])
    with connected(settings) as conn:
        made = engineering.request_engineering_token(
            conn, meter, work, fields, reason=reason, by=by, now_ms=now_ms
        )
    typer.echo(made)


@app.command()
def approve(number: Request, by: By) -> None:
    """Approve a request of somebody else, and print its token; again, it is the same one."""
    settings = Settings()
    module = open_security_module(settings.sts)
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        digits = engineering.approve_engineering_token(conn, module, number, by, now_ms)
    typer.echo(grouped(digits))


@app.command()
def refuse(number: Request, by: By, reason: Reason) -> None:
    """Refuse a request, or take one's own back."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        engineering.refuse_engineering_token(conn, number, by, reason, now_ms)
    typer.echo(f"request {number} refused")


@app.command("list")
def list_requests(
    waiting: Annotated[bool, typer.Option("--waiting", help="Only what nobody decided.")] = False,
    as_json: Json = False,
) -> None:
    """The newest requests with what was decided; without their digits."""
    with connected(Settings()) as conn:
        found = engineering.engineering_tokens(
            conn, waiting=waiting, before_id=None, limit=LISTED - 1
        )
    rows = [_row(each) for each in found]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        typer.echo(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.items()))


def numbered_fields(pairs: list[str]) -> dict[str, int]:
    """NAME=NUMBER pairs, 0x... as sheets print control bits. Errors: DomainError `bad_option`."""
    fields: dict[str, int] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if NUMBER.fullmatch(value) is None:
            raise DomainError("bad_option", f"--field {pair!r} is not NAME=NUMBER.")
        fields[name] = int(value, 16 if value.startswith("0x") else 10)
    return fields


def _row(each: EngineeringToken) -> dict[str, Any]:
    return {
        "request": each.id,
        "meter": each.meter,
        "work": each.work.value,
        "fields": dict(each.fields),
        "reason": each.reason,
        "requested_by": each.requested_by,
        "requested": format_instant(each.requested_ms),
        "decision": each.decision,
        "decided_by": each.decided_by,
    }
