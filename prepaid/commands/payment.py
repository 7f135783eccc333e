"""`prepaid payment`: payments that wait for a person, cash, reversals and moves, for a desk."""

import hashlib
import json
import sys
from typing import Annotated

import typer

from prepaid.clock import Clock
from prepaid.database import connected
from prepaid.security_modules import open_security_module
from prepaid.settings import Settings
from schemas.quantities import format_instant, format_micro, in_coins, parse_micro
from store import reads, registry, reversals, suspects, vending
from store.terms import TermsCache
from store.vending import Payment

Who = Annotated[str, typer.Option("--by", help="Who does this; kept for ever.")]
Reason = Annotated[str, typer.Option(help="Why; kept for ever.")]
Channel = Annotated[str, typer.Argument(help="As in clearing:CHANNEL: the partner or the desk.")]
Number = Annotated[str, typer.Argument(help="The channel's own number of the payment.")]
LISTED = 200

app = typer.Typer(no_args_is_help=True, help="Payments: cash, those that wait, reversals, moves.")


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="payment")


@app.command()
def waiting(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List the payments that wait in suspense for a person, oldest first."""
    with connected(Settings()) as conn:
        found = suspects.waiting(conn, limit=LISTED)
    rows = [
        {
            "id": each.id,
            "channel": each.channel,
            "partner_txn_id": each.partner_txn_id,
            "meter": each.meter,
            "amount": format_micro(each.amount_micro),
            "held_at": format_instant(each.held_ms),
            "suspicion": each.suspicion,
            "detail": each.detail,
        }
        for each in found
    ]
    if as_json:
        sys.stdout.write(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
    else:
        sys.stdout.writelines("  ".join(row.values()) + "\n" for row in rows)


@app.command()
def credit(
    payment: Annotated[str, typer.Argument(help="As `prepaid payment waiting` shows it.")],
    meter: Annotated[str, typer.Argument(help="Whose account is credited.")],
    by: Who,
    reason: Reason,
) -> None:
    """Credit a waiting payment to the account of a meter; prints the top-up."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    module = open_security_module(settings.sts)
    with connected(settings) as conn:
        top_up = suspects.credit(
            conn, TermsCache(), module, payment, meter=meter, who=by, reason=reason, now_ms=now_ms
        )
    sys.stdout.write(f"{top_up}\n")


@app.command("return")
def send_back(
    payment: Annotated[str, typer.Argument(help="As `prepaid payment waiting` shows it.")],
    by: Who,
    reason: Reason,
) -> None:
    """Decide that a waiting payment goes back by its channel."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        done = suspects.send_back(conn, payment, who=by, reason=reason, now_ms=now_ms)
    sys.stdout.write("returned\n" if done else "was returned before\n")


@app.command()
def reverse(
    channel: Channel,
    number: Number,
    by: Who,
    reason: Reason,
    second: Annotated[str | None, typer.Option(help="A second person, for a large one.")] = None,
) -> None:
    """Take a payment back although its tokens are out; prints what was consumed and is debt now."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        to_debt = reversals.reverse_after_issue(
            conn, TermsCache(), channel, number, who=by, reason=reason, now_ms=now_ms, second=second
        )
    sys.stdout.write(f"{format_micro(to_debt)} became debt\n")


@app.command()
def move(
    channel: Channel,
    number: Number,
    meter: Annotated[str, typer.Argument(help="The meter that was meant.")],
    by: Who,
    reason: Reason,
) -> None:
    """Move an unspent payment without tokens to the meter that was meant; prints the new top-up."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    module = open_security_module(settings.sts)
    with connected(settings) as conn:
        moved = reversals.move(
            conn,
            TermsCache(),
            module,
            channel,
            number,
            to_meter=meter,
            who=by,
            reason=reason,
            now_ms=now_ms,
        )
    sys.stdout.write(f"{moved}\n")


@app.command()
def cash(
    desk: Annotated[str, typer.Argument(help="The till, as in clearing:DESK.")],
    receipt: Annotated[str, typer.Argument(help="The till's own number; once for ever.")],
    meter: str,
    amount: Annotated[str, typer.Argument(help="What is credited, as 50.13.")],
    counted: Annotated[
        str | None, typer.Option(help="Coins that were counted; the nearest to the amount without.")
    ] = None,
) -> None:
    """Take cash: credit the amount, count coins (PREPAID_CASH_COINS), print the receipt's lines."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    micro = parse_micro(amount)
    module = open_security_module(settings.sts)
    with connected(settings) as conn:
        coin = settings.coin_micro(registry.currency_of_meter(conn, meter))
        given = in_coins(micro, coin or 1) if counted is None else parse_micro(counted)
        payment = Payment(
            channel=desk,
            partner_txn_id=receipt,
            meter=meter,
            amount_micro=micro,
            paid_ms=now_ms,
            request_sha256=hashlib.sha256(f"{meter} {micro} {given}".encode()).digest(),
            counted_micro=given,
            coin_micro=coin,
        )
        top_up = vending.vend(conn, TermsCache(), module, payment, now_ms)
        for name, line_amount in reads.receipt_lines(conn, top_up):
            sys.stdout.write(f"{name}  {line_amount}\n")
    sys.stdout.write(f"counted  {format_micro(given)}\n")
