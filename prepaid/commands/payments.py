"""`prepaid payments`: customers' own payments that nobody waits for, or that a person must end."""

import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from payments.simulated.channel import Mischief
from payments.simulated.street import StreetAggregator, StreetBank, StreetWallet, methods_file
from prepaid.clock import Clock, wall_ms
from prepaid.database import connected
from prepaid.secrets_files import write_secret
from prepaid.security_modules import open_security_module
from prepaid.settings import Settings
from schemas.errors import DomainError
from schemas.quantities import format_instant, format_micro
from store import payment_attempts, payment_words
from store.payment_words import Ears
from store.terms import TermsCache

LISTED = 200
# What is asked about for so long is worth a look, though it is still asked about.
OLD_MS = 60 * 60 * 1000

Json = Annotated[bool, typer.Option("--json")]

app = typer.Typer(no_args_is_help=True, help="Customers' own payments by wallets and pages.")


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="payments")


@app.command()
def waiting(as_json: Json = False) -> None:
    """List attempts without an end that a person should look at, oldest first."""
    with connected(Settings()) as conn:
        found = payment_attempts.waiting(conn, wall_ms() - OLD_MS, LISTED)
        steps = payment_attempts.steps(conn, [each.id for each in found])
    newest = {each.attempt: each for each in steps}
    rows = [
        {
            "id": each.id,
            "method": each.method,
            "account": each.account,
            "amount": format_micro(each.amount_micro),
            "state": each.state,
            "since": format_instant(newest[each.id].at_ms),
            "word": newest[each.id].word,
            "asked_again": "no" if each.next_check_wall_ms is None else "yes",
        }
        for each in found
    ]
    _write(rows, as_json=as_json)


@app.command()
def decide(
    attempt: Annotated[str, typer.Argument(help="As `prepaid payments waiting` shows it.")],
    by: Annotated[str, typer.Option("--by", help="Who decides; kept for ever.")],
    reason: Annotated[str, typer.Option(help="Why; kept for ever.")],
    paid: Annotated[
        str | None, typer.Option(help="The channel's number of the payment, from its daily file.")
    ] = None,
    not_paid: Annotated[bool, typer.Option("--not-paid", help="The channel took nothing.")] = False,
) -> None:
    """End an attempt of which nobody knows: credit it, or say that nothing was taken."""
    if (paid is None) != not_paid:
        raise DomainError("bad_decision", "give either --paid NUMBER or --not-paid")
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms
    module = open_security_module(settings.sts)
    with connected(settings) as conn:
        ears = Ears(TermsCache(), module, now_ms, lambda: int(time.time() * 1000))
        after = payment_words.decide(conn, ears, attempt, reference=paid, who=by, reason=reason)
    sys.stdout.write(f"{after.state}\n")


@app.command()
def refusals(as_json: Json = False) -> None:
    """Count notifications that were not believed, by channel, reason and day."""
    with connected(Settings()) as conn:
        found = payment_attempts.refusals(conn, LISTED)
    rows = [
        {
            "day": format_instant(each.day_ms)[:10],
            "method": each.method,
            "reason": each.reason,
            "count": str(each.count),
        }
        for each in found
    ]
    _write(rows, as_json=as_json)


@app.command()
def simulated(
    file: Annotated[
        Path, typer.Argument(help="The file of methods, written for PREPAID_PAYMENTS__FILE.")
    ],
    api_url: Annotated[str, typer.Option(help="Where the API listens.")] = "http://127.0.0.1:8080",
    port: Annotated[
        int, typer.Option(help="Of the first of three channels; 0: any free ones.", max=65533)
    ] = 9100,
    odd: Annotated[int, typer.Option(min=0, max=100, help="Of 100 payments so many go wrong.")] = 0,
    seed: Annotated[int, typer.Option(help="Of what goes wrong.")] = 1,
) -> None:
    """Be a bank, a wallet and an aggregator on this machine, until SIGTERM or Ctrl-C.

    Writes the file of methods, prints where a payer does what, and needs nothing else.
    """
    stopping = _stopping()
    told = f"{api_url}/v1/payments"
    ports = (port, port + 1, port + 2) if port else (0, 0, 0)
    with (
        StreetBank(Mischief(seed, odd), port=ports[0]) as bank,
        StreetWallet(f"{told}/masrvi/notifications", Mischief(seed + 1), port=ports[1]) as wallet,
        StreetAggregator(
            f"{told}/muamla/notifications", Mischief(seed + 2), port=ports[2]
        ) as aggregator,
    ):
        form = methods_file(api_url, bank, wallet, aggregator)
        write_secret(file, json.dumps(form, indent=1).encode())
        sys.stdout.write(
            f"passcode:  curl '{bank.url}/app/passcode?phone=36000001&amount=50'\n"
            f"SMS code:  curl '{wallet.url}/app/sms?purchaseref=TOP_UP'\n"
            f"confirm:   curl -d purchaseref=TOP_UP -d code=CODE {wallet.url}/online/confirm\n"
            f"invoice:   open the url of going_on\n"
            f"ready\n"
        )
        sys.stdout.flush()
        stopping.wait()


def _stopping() -> threading.Event:
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    return stopping


def _write(rows: list[dict[str, str]], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
    else:
        sys.stdout.writelines("  ".join(row.values()) + "\n" for row in rows)
