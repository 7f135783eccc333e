"""Where the supply or the way to it is away, so that nothing is decided against those behind it.

A last will is not "no supply": a meter says itself that the power fails, or most meters of one
gateway or transformer fall silent at once. The clockwork opens an outage and closes it (`check`);
`suppressed` tells a decision which of its meters are in one now.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from psycopg import Connection

from schemas.errors import DomainError
from schemas.identity import is_gateway_name
from store import audit_log
from store.errors import NotFound
from store.sql import query

Scope = Literal["gateway", "transformer"]

# How often groups are looked at, by whichever worker comes first.
CHECK_EVERY_MS = 60_000
# Of the time at most one in so many is spent on looks at all groups, and as much on those between
# them: a look at a million meters takes seconds.
CHECK_SHARE = 50
# Who was struck longer ago is looked at with all others.
SUSPECT_MS = 60 * 60_000
# Fewer meters than this are no group: two may well be away for reasons of their own.
LEAST_METERS = 3
# Of a group, more than this share silent at once is an outage.
SILENT_PERCENT = 50
# Two readings missed and a while for the way, where the reading interval is not known otherwise.
SILENT_INTERVALS_PERCENT = 250
USUAL_INTERVAL_S = 900
# Who was not heard for this long is no witness, unless its outage lasts since then.
WITNESS_MS = 7 * 24 * 3600 * 1000
# What was said before the supply failed may arrive after the word of it.
LAST_WORDS_MS = 2 * 60 * 1000
_LOOK, _LOOK_AT_ALL = "outages", "outages among all"
_PLACE: dict[Scope, str] = {
    "gateway": "place_behind_gateway",
    "transformer": "place_behind_transformer",
}


@dataclass(frozen=True, slots=True)
class Outage:
    """An outage; `started_ms` is when most of its silent meters were last heard."""

    id: int
    scope: str
    name: str
    cause: str
    started_ms: int
    opened_ms: int
    ended_ms: int | None
    meters: int
    silent: int


class Checked(NamedTuple):
    """What one look found new, as (scope, name)."""

    opened: list[tuple[str, str]]
    closed: list[tuple[str, str]]


def check(conn: Connection, now_ms: int) -> Checked:
    """Open and close outages; among several workers one does it, once per `CHECK_EVERY_MS`.

    All groups are looked at, unless that takes so long that it is not yet due (`CHECK_SHARE`): then
    those to which something happened. Missed readings, which take longer to tell, show at the next
    look at all.
    """
    with conn.transaction():
        if not _claim(conn, _LOOK, now_ms):
            return Checked([], [])
        # Not at points: a plan for these would walk the fleet meter by meter.
        conn.execute(query("plan_freely"))
        if _claim(conn, _LOOK_AT_ALL, now_ms):
            duty, gateways, transformers = _LOOK_AT_ALL, None, None
        else:
            since = {"since_ms": now_ms - SUSPECT_MS}
            suspects = conn.execute(query("suspect_groups"), since).fetchall()
            duty, (gateways, transformers) = _LOOK, suspects[0]
        groups = conn.execute(
            query("silent_groups"),
            {
                "gateways": gateways,
                "transformers": transformers,
                "now_ms": now_ms,
                "witness_ms": WITNESS_MS,
                "usual_interval_s": USUAL_INTERVAL_S,
                "intervals_percent": SILENT_INTERVALS_PERCENT,
                "last_words_ms": LAST_WORDS_MS,
                "least": LEAST_METERS,
                "percent": SILENT_PERCENT,
            },
        ).fetchall()
        names = ("scope", "name", "cause", "started_ms", "meters", "silent")
        columns = {name: [row[place] for row in groups] for place, name in enumerate(names)}
        opened = conn.execute(query("open_outages"), {"now_ms": now_ms} | columns).fetchall()
        still = {"scope": columns["scope"], "name": columns["name"], "now_ms": now_ms}
        closed = conn.execute(query("close_outages"), still).fetchall()
        conn.execute(query("note_duty"), {"name": duty})
    return Checked(opened, closed)


def _claim(conn: Connection, duty: str, now_ms: int) -> bool:
    of = {
        "name": duty,
        "now_ms": now_ms,
        "before_ms": now_ms - CHECK_EVERY_MS,
        "share": CHECK_SHARE,
    }
    return conn.execute(query("claim_duty"), of).fetchone() is not None


def suppressed(conn: Connection, meter_ids: Collection[int], now_ms: int) -> set[int]:
    """Of these meters, those in an outage: no cut and no alert may be decided for them now."""
    if not meter_ids:
        return set()
    of = {"meters": list(meter_ids), "now_ms": now_ms, "last_words_ms": LAST_WORDS_MS}
    return {row[0] for row in conn.execute(query("meters_in_outage"), of)}


def outages(conn: Connection, *, ended: bool = False, limit: int = 1000) -> list[Outage]:
    """Outages that last, and with `ended` those that are over, newest first."""
    of = {"ended": ended, "limit": limit}
    return [Outage(*row) for row in conn.execute(query("outages"), of)]


def place_behind(
    conn: Connection,
    number: str,
    scope: Scope,
    name: str | None,
    *,
    who: str,
    now_ms: int,
    reason: str | None = None,
    centres: Sequence[int] | None = None,
) -> None:
    """Say what a meter is behind; None: nothing known. The next look counts it there.

    `centres`: those that the operator has. Errors: NotFound (meter); DomainError `bad_name`.
    """
    if name is not None and is_gateway_name(name) is None:
        raise DomainError("bad_name", "Name it in up to 63 letters, digits, - and _.")
    with conn.transaction():
        of = {"number": number, "centres": None if centres is None else list(centres)}
        row = conn.execute(query("place_of_meter"), of).fetchone()
        if row is None:
            raise NotFound(f"Meter {number}")
        before = dict(zip(_PLACE, row, strict=True))[scope]
        if before == name:
            return
        if scope == "gateway" and name is not None:
            conn.execute(query("add_gateway"), {"number": name})
        conn.execute(query(_PLACE[scope]), {"number": number, "name": name})
        audit_log.record(
            conn,
            who,
            "meter.place",
            f"meter:{number}",
            now_ms,
            reason=reason,
            before={scope: before},
            after={scope: name},
            meter=number,
        )
