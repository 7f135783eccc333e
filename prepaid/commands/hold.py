"""`prepaid hold`: keep a supply from being cut, and let it go again."""

import sys
from typing import Annotated, cast, get_args

import typer

from prepaid.clock import Clock
from prepaid.database import connected
from prepaid.settings import Settings
from schemas.errors import DomainError
from schemas.quantities import parse_instant_ms, parse_micro
from store import holds, reads, registry
from store.holds import HoldKind
from store.terms import TermsCache

Who = Annotated[str, typer.Option("--by", help="Who does this; kept for ever.")]
Reason = Annotated[str, typer.Option(help="Why; kept for ever.")]

app = typer.Typer(no_args_is_help=True, help="Holds: a supply that must not be cut, and why.")


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="hold")


@app.command()
def place(
    account: str,
    kind: Annotated[str, typer.Option(help=", ".join(get_args(HoldKind)))],
    by: Who,
    reason: Reason,
    until: Annotated[str | None, typer.Option(help="An instant in UTC; open without.")] = None,
) -> None:
    """Protect the supply of an account from now on; prints the number of the hold."""
    if kind not in get_args(HoldKind):
        raise DomainError("bad_kind", f"--kind: give one of {', '.join(get_args(HoldKind))}")
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        number = holds.place(
            conn,
            reads.account(conn, account, None).id,
            kind=cast("HoldKind", kind),
            from_ms=now_ms,
            until_ms=None if until is None else parse_instant_ms(until),
            who=by,
            reason=reason,
            now_ms=now_ms,
        )
    sys.stdout.write(f"{number}\n")


@app.command()
def release(hold: int, by: Who, reason: Reason) -> None:
    """End a hold; the supply is decided again at once."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        ended = holds.release(conn, TermsCache(), hold, who=by, reason=reason, now_ms=now_ms)
    sys.stdout.write("released\n" if ended else "was released before\n")


@app.command("low-credit")
def low_credit(
    of: Annotated[str, typer.Argument(help="An account, or with --centre the code of a centre.")],
    amount: Annotated[str, typer.Argument(help="Warn at or below it, as 20.00.")],
    by: Who,
    days: Annotated[int | None, typer.Option(help="Warn too when it lasts so many days.")] = None,
    centre: Annotated[bool, typer.Option("--centre", help="All accounts of a centre.")] = False,
) -> None:
    """Warn an account of low credit, by amount and by the days that its credit lasts."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    micro = parse_micro(amount)
    with connected(settings) as conn:
        if centre:
            found = registry.find_centre(conn, of)
            changed = holds.set_low_credit_of_centre(conn, found, micro, now_ms, who=by, days=days)
            sys.stdout.write(f"{changed} accounts\n")
            return
        account = reads.account(conn, of, None)
        holds.set_low_credit(conn, TermsCache(), account.id, micro, now_ms, who=by, days=days)
    sys.stdout.write(f"warned at {amount} {account.currency}\n")
