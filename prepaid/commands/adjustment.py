"""`prepaid adjustment`: correct a balance, with a reason; a large one needs a second person."""

import sys
from typing import Annotated

import typer

from prepaid.clock import Clock
from prepaid.database import connected
from prepaid.settings import Settings
from schemas.quantities import parse_micro
from store import adjustments, reads
from store.terms import TermsCache

Who = Annotated[str, typer.Option("--by", help="Who does this; kept for ever.")]

app = typer.Typer(no_args_is_help=True, help="Corrections of balances by operators.")


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="adjustment")


# A debit is an amount with a minus sign, which is no option.
@app.command(context_settings={"ignore_unknown_options": True})
def enter(
    number: Annotated[str, typer.Argument(help="Your own number for it; once for ever.")],
    account: str,
    amount: Annotated[str, typer.Argument(help="12.50 credits, -12.50 debits.")],
    by: Who,
    reason: Annotated[str, typer.Option(help="Why; the customer can read it.")],
) -> None:
    """Credit or debit an account; prints `posted`, or `requested` where a second person decides."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        state = adjustments.enter(
            conn,
            TermsCache(),
            adjustment=number,
            account_id=reads.account(conn, account, None).id,
            amount_micro=parse_micro(amount),
            reason=reason,
            who=by,
            now_ms=now_ms,
        )
    sys.stdout.write(f"{state}\n")


@app.command()
def approve(number: str, by: Who) -> None:
    """Post a requested adjustment, as another person than the one who asked."""
    _decide(number, by, post=True)


@app.command()
def refuse(number: str, by: Who) -> None:
    """Refuse a requested adjustment, as another person than the one who asked."""
    _decide(number, by, post=False)


def _decide(number: str, by: str, *, post: bool) -> None:
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    decide = adjustments.approve if post else adjustments.refuse
    with connected(settings) as conn:
        decide(conn, TermsCache(), number, who=by, now_ms=now_ms)
        sys.stdout.write(f"{adjustments.by_id(conn, number).state}\n")
