"""`prepaid gaps`: readings that never came, and what became of asking for them."""

import json
import sys
from typing import Annotated

import typer

from prepaid.database import connected
from prepaid.settings import Settings
from schemas.quantities import format_instant
from store import gaps as stored
from store.gaps import GapRow


def register(app: typer.Typer) -> None:
    app.command()(gaps)


def gaps(
    meter: Annotated[str | None, typer.Argument(help="Of one meter; of all without.")] = None,
    closed: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """List readings that meters made, by their own counters, and that never came.

    A gap lies between two readings that did. The clockwork asks for it (command `resend`) ten
    minutes after it was seen, once a day for eight days; a late reading fills it. Closed: `filled`;
    `not_kept`, the meter has no more; `not_supported`; `no_answer`. No energy is lost by a gap: the
    next register counts it, placed evenly over the time between.
    """
    with connected(Settings()) as conn:
        found = stored.gaps(conn, meter=meter, closed=closed, limit=limit)
    for each in found:
        sys.stdout.write((json.dumps(_form(each)) if as_json else _line(each)) + "\n")


def _form(gap: GapRow) -> dict[str, object]:
    ends = {
        name: {"boot": place.boot, "seq": place.seq, "ts": format_instant(place.ts_ms)}
        for name, place in (("after", gap.after), ("before", gap.before))
    }
    return {
        "id": gap.id,
        "meter": gap.meter,
        **ends,
        "opened_at": format_instant(gap.opened_ms),
        "asks": gap.asks,
        "asked_at": None if gap.asked_ms is None else format_instant(gap.asked_ms),
        "closed_at": None if gap.closed_ms is None else format_instant(gap.closed_ms),
        "reason": gap.reason,
    }


def _line(gap: GapRow) -> str:
    state = gap.reason or (f"asked {gap.asks} times" if gap.asks else "not asked yet")
    return (
        f"{gap.meter}  after {gap.after.boot}/{gap.after.seq} {format_instant(gap.after.ts_ms)}  "
        f"before {gap.before.boot}/{gap.before.seq} {format_instant(gap.before.ts_ms)}  {state}"
    )
