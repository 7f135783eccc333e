"""Meters that look like two: a flag for people, and an event, beside what is kept in quarantine.

`seq_reused`: a counter that went back within one boot, or a count of two instants; `boot_reused`:
an earlier boot that speaks after a later one; `take_over`: connections that take the name from each
other. What such a meter says at instants that were counted already is kept in quarantine until a
person clears the flag; then its counters begin anew with its next reading.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from psycopg import Connection

from schemas.errors import DomainError
from store import audit_log, batch_meter
from store.binary import Texts
from store.errors import Conflict, NotFound
from store.sql import query

# Two devices of one name throw each other out within seconds; a bad link reconnects with pauses.
TAKE_OVERS = 10
TAKE_OVER_WINDOW_MS = 10 * 60 * 1000


class Raised(NamedTuple):
    """One suspicion of a batch."""

    meter_id: int
    kind: batch_meter.FlagKind
    detail: str


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag for people."""

    id: int
    meter: str
    kind: str
    detail: str
    first_ms: int
    last_ms: int
    times: int
    cleared_ms: int | None
    cleared_by: str | None
    note: str | None


def raise_flags(conn: Connection, raised: Sequence[Raised], now_ms: int) -> list[Raised]:
    """Open or count the flags of a batch, one per meter and kind; returns those that are new."""
    first = {(each.meter_id, each.kind): each for each in reversed(raised)}
    if not first:
        return []
    each_once = [each for _, each in sorted(first.items())]
    rows = conn.execute(
        query("raise_flags"),
        {
            "now_ms": now_ms,
            "meter_id": [each.meter_id for each in each_once],
            "kind": [each.kind for each in each_once],
            "detail": [each.detail for each in each_once],
        },
    )
    return [Raised(meter, kind, detail) for meter, kind, detail, times in rows if times == 1]


def count_hellos(conn: Connection, hellos: Sequence[int], now_ms: int) -> list[Raised]:
    """Count the connections of meters (an id per hello); those that come too often are suspect."""
    if not hellos:
        return []
    meters = sorted(set(hellos))
    rows = conn.execute(
        query("count_hellos"),
        {
            "meter_id": meters,
            "hellos": [hellos.count(meter) for meter in meters],
            "now_ms": now_ms,
            "since_ms": now_ms - TAKE_OVER_WINDOW_MS,
        },
    ).fetchall()
    minutes = TAKE_OVER_WINDOW_MS // 60_000
    return [
        Raised(meter, "take_over", f"{count} connections within {minutes} minutes.")
        for meter, count in rows
        if count >= TAKE_OVERS
    ]


def flags(
    conn: Connection, *, meter: str | None = None, cleared: bool = False, limit: int = 1000
) -> list[Flag]:
    """Open flags, and with `cleared` those that are over, newest first."""
    of = {"meter": meter, "cleared": cleared, "limit": limit}
    return [Flag(*row) for row in conn.execute(query("flags"), of)]


def clear(conn: Connection, meter: str, who: str, note: str, now_ms: int) -> int:
    """End a meter's flags, after somebody looked: its counters begin anew with its next reading.

    Returns how many flags there were. Errors: DomainError `no_reason` (nobody, or no note);
    NotFound (meter); Conflict `not_flagged`.
    """
    if not who.strip() or not note.strip():
        raise DomainError("no_reason", "Say who clears the flag, and why.")
    with conn.transaction():
        found = batch_meter.load(conn, Texts([meter])).get(meter)
        if found is None:
            raise NotFound(f"Meter {meter}")
        of = {"meter": found.id, "who": who, "note": note, "now_ms": now_ms}
        count = conn.execute(query("clear_flags"), of).rowcount
        if not count:
            raise Conflict("not_flagged", f"meter {meter} has no open flag")
        conn.execute(query("forget_counter"), {"meter": found.id})
        audit_log.record(
            conn,
            who,
            "flag.clear",
            f"meter:{meter}",
            now_ms,
            reason=note,
            before={"flags": count, "boot": found.boot, "seq": found.seq},
            after={"flags": 0, "boot": None, "seq": None},
            meter=meter,
        )
        return count
