"""`prepaid account` and `prepaid explain`: what the API tells a customer, for people at a desk."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from api import answers
from prepaid.clock import Clock
from prepaid.database import connected
from prepaid.settings import Settings
from schemas.quantities import format_instant, format_micro
from store import adjustments, books, cuts, decisions, holds, reads
from store.terms import TermsCache

Json = Annotated[bool, typer.Option("--json", help="As JSON, in the form of the API.")]
# Lines of each list for people; --json has as many.
NEWEST = 10


def register(app: typer.Typer) -> None:
    app.command()(account)
    app.command()(explain)


def account(
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="Of the account.")],
    as_json: Json = False,
) -> None:
    """Show an account: balance, supply, newest entries, decisions, holds and adjustments."""
    settings = Settings()
    now_ms = Clock.parse(settings.clock).now_ms()
    with connected(settings) as conn:
        found = reads.account(conn, number, None)
        shown = answers.balance_answer(
            found, reads.balance(conn, TermsCache(), found.id, now_ms)
        ).model_dump(mode="json", by_alias=True)
        entries = reads.entries(conn, found.id, before_id=None, limit=NEWEST)[:NEWEST]
        shown["entries"] = [
            answers.entry_answer(each, found.currency).model_dump(mode="json", by_alias=True)
            for each in entries
        ]
        shown["decisions"] = [
            {
                "kind": each.kind,
                "at": format_instant(each.at_ms),
                "recorded_at": format_instant(each.recorded_ms),
                "balance": format_micro(each.balance_micro),
                "cause": each.cause,
                "guards": dict(each.guards),
            }
            for each in decisions.of_account(conn, found.id, limit=NEWEST)
        ]
        shown["withheld_cuts"] = [
            {
                "from": format_instant(each.from_ms),
                "standing": ", ".join(each.standing),
                "guards": dict(each.guards),
                "ended_at": answers.instant(each.ended_ms),
                "ended_by": each.ended_by,
            }
            for each in cuts.of_account(conn, found.id, limit=NEWEST)
        ]
        shown["holds"] = [
            {
                "id": each.id,
                "kind": each.kind,
                "from": format_instant(each.from_ms),
                "until": answers.instant(each.until_ms),
                "placed_by": each.placed_by,
                "reason": each.reason,
                "released_at": answers.instant(each.released_ms),
                "released_by": each.released_by,
                "release_reason": each.release_reason,
            }
            for each in holds.of_account(conn, found.id, limit=NEWEST)
        ]
        shown["adjustments"] = [
            {
                "id": each.id,
                "amount": format_micro(each.amount_micro),
                "reason": each.reason,
                "requested_by": each.requested_by,
                "state": each.state,
                "decided_by": each.decided_by,
                "at": answers.instant(each.adjusted_ms),
            }
            for each in adjustments.of_account(conn, found.id, limit=NEWEST)
        ]
    _print(shown, as_json=as_json)


def explain(
    entry: Annotated[int, typer.Argument(metavar="ENTRY", help="Number of a ledger entry.")],
    as_json: Json = False,
) -> None:
    """Open a ledger entry: registers, segment, band, blocks, prices, taxes, and its other side."""
    with connected(Settings()) as conn:
        found = reads.account(conn, books.account_of_entry(conn, entry), None)
        opened = reads.entry(conn, found.id, entry)
    shown = answers.opened_entry_answer(opened, found.currency)
    _print(shown.model_dump(mode="json", by_alias=True), as_json=as_json)


def _print(shown: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(shown, ensure_ascii=False, indent=2) + "\n")
    else:
        sys.stdout.writelines(line + "\n" for line in lines(shown))


def lines(shown: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """An answer for people: a field a line, a list of objects as one line each.

    What is empty or not known is left out.
    """
    for name, value in shown.items():
        label = f"{indent}{name.replace('_', ' ')}"
        if value is None or value in ([], {}):
            continue
        if isinstance(value, Mapping) and value.keys() != {"amount", "currency"}:
            yield f"{label}:"
            yield from lines(value, indent + "  ")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield f"{label}:"
            yield from (f"{indent}  - {_flat(item)}" for item in value)
        else:
            yield f"{label}: {_flat(value)}"


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        if value.keys() == {"amount", "currency"}:
            return f"{value['amount']} {value['currency']}"
        return ", ".join(
            f"{name.replace('_', ' ')} {_flat(each)}"
            for name, each in value.items()
            if each is not None and each not in ([], {})
        )
    return str(value)
