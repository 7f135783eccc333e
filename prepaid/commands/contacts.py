"""`prepaid contacts`: what is kept of people who are reached otherwise now."""

import sys
import time
from typing import Annotated

import typer

from credit_engine.days import DAY_MS
from prepaid.clock import Clock
from prepaid.database import connected
from prepaid.settings import Settings
from store import personal_data

app = typer.Typer(no_args_is_help=True, help="Contacts of customers: erase those long ended.")


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="contacts")


@app.callback()
def contacts() -> None:
    """Keeps the one command below a name of its own."""


@app.command()
def sweep(
    keep_days: Annotated[
        int | None,
        typer.Option(min=0, help="Days; else PREPAID_CUSTOMERS__KEEP_CONTACTS_DAYS."),
    ] = None,
) -> None:
    """Erase the addresses of contacts that ended so many days ago; run it once a day.

    Prints how many. What happened to a contact stays, without its address.
    """
    settings = Settings()
    days = settings.customers.keep_contacts_days if keep_days is None else keep_days
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        erased = personal_data.sweep(
            conn, now_ms - days * DAY_MS, now_ms, time.time_ns() // 1_000_000
        )
    sys.stdout.write(f"{erased} erased\n")
