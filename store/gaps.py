"""Readings that never came: kept as gaps, asked for, and closed with the reason.

`store.sequence` says what is missing; here it is stored, in the transaction of the readings that
show it, and no receipt reaches beyond it (`promised`). The clockwork asks (`ask`): a gap that the
meter did not fill by itself within `GRACE_MS`, at most once a day and `MOST_ASKS` times, at most
`ASKS_PER_MINUTE` in all, as command `resend`. A meter that answered and sent less has no more:
`not_kept`. One that never answers: `no_answer`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from psycopg import Connection

from store import sequence, supply
from store.answers import Receipt
from store.batch_meter import BatchMeter
from store.errors import NotFound
from store.sequence import Gap, Place
from store.sql import query

# A meter that was away replays its buffer by itself; until then nothing is asked.
GRACE_MS = 10 * 60 * 1000
DAY_MS = 24 * 3600 * 1000
# As many days as a head-end re-reads, and no more.
MOST_ASKS = 8
# Over all meters: answers are replayed buffers, and must not crowd out live readings.
ASKS_PER_MINUTE = 60
# The longest outage that a meter's buffer bridges; what is older, nobody keeps.
KEPT_DAYS = 45
# An ask that waits longer in a broker's queue meets another day's.
RESEND_EXPIRY_MS = 6 * 3600 * 1000
# Rows that the answer promised may still be on their way behind it.
SETTLE_MS = 60 * 1000
# The meter's own words for what it does not have, and for a command that it does not know.
_NOT_SUPPORTED = "unknown_type"


@dataclass(frozen=True, slots=True)
class GapRow:
    """A gap for people: the meter, the two readings around it, and how far asking has come."""

    id: int
    meter: str
    after: Place
    before: Place
    opened_ms: int
    asks: int
    asked_ms: int | None
    closed_ms: int | None
    reason: str | None


class Round(NamedTuple):
    """What one round of the clockwork did."""

    asked: int = 0
    closed: int = 0


def note(conn: Connection, meters: Iterable[BatchMeter], now_ms: int) -> None:
    """Open, fill and split the gaps of meters whose counters jumped or went back to fill."""
    moved = {meter.id: meter for meter in meters if meter.jumps or meter.late}
    if not moved:
        return
    known: dict[int, list[Gap]] = {}
    for meter_id, gap in _open_gaps(conn, list(moved)):
        known.setdefault(meter_id, []).append(gap)
    fresh: list[tuple[int, Gap]] = []
    moved_ends: list[Gap] = []
    filled: list[int] = []
    for meter_id, meter in sorted(moved.items()):
        before = known.get(meter_id, [])
        if not before and not meter.jumps:
            continue
        change = sequence.follow(before, meter.jumps, meter.late, now_ms, meter.interval_ms)
        filled += change.filled
        fresh += [(meter_id, gap) for gap in change.open if gap.id is None]
        stored = {gap.id: gap for gap in before}
        moved_ends += [
            gap for gap in change.open if gap.id is not None and stored.get(gap.id) != gap
        ]
    _write(conn, fresh, moved_ends, now_ms)
    if filled:
        close = {"gaps": filled, "reason": "filled", "now_ms": now_ms}
        conn.execute(query("close_gaps"), close)


def _write(
    conn: Connection, fresh: Sequence[tuple[int, Gap]], moved: Sequence[Gap], now_ms: int
) -> None:
    if moved:
        conn.execute(query("move_gaps"), {"id": [gap.id for gap in moved]} | _ends(moved))
    if fresh:
        gaps = [gap for _, gap in fresh]
        conn.execute(
            query("insert_gaps"),
            {
                "meter_id": [meter for meter, _ in fresh],
                "opened_ms": [gap.opened_ms for gap in gaps],
                "asks": [gap.asks for gap in gaps],
                "asked_ms": [gap.asked_ms for gap in gaps],
                # one text per gap: the database has no arrays of arrays of different lengths
                "requests": ["{" + ",".join(gap.requests) + "}" for gap in gaps],
            }
            | _ends(gaps),
        )


def _ends(gaps: Sequence[Gap]) -> dict[str, list[int]]:
    return {
        f"{end}_{part}": [getattr(getattr(gap, end), part) for gap in gaps]
        for end in ("after", "before")
        for part in ("boot", "seq", "ts_ms")
    }


def promised(
    conn: Connection, meters: Mapping[str, BatchMeter], receipts: Sequence[Receipt]
) -> list[Receipt]:
    """Receipts that promise no more than is held: of a meter with an open gap, up to that gap.

    What lies in it may be with another worker, or gone with a broker that had taken it; until it
    came, or the meter says that it has no more, the meter must keep it.
    """
    asking = sorted({meters[each.meter].id for each in receipts if each.meter in meters})
    if not asking:
        return list(receipts)
    first = {
        meter_id: (boot, seq)
        for meter_id, boot, seq in conn.execute(query("first_open_gaps"), {"meters": asking})
    }
    if not first:
        return list(receipts)
    capped: list[Receipt] = []
    for each in receipts:
        meter = meters.get(each.meter)
        end = None if meter is None else first.get(meter.id)
        capped.append(each if end is None else min(each, Receipt(each.meter, *end)))
    return capped


def _open_gaps(conn: Connection, meters: Sequence[int]) -> list[tuple[int, Gap]]:
    rows = conn.execute(query("open_gaps"), {"meters": list(meters)}).fetchall()
    return [
        (
            meter_id,
            Gap(Place(*ends[:3]), Place(*ends[3:]), gap, opened, asks, asked, tuple(requests)),
        )
        for meter_id, gap, *ends, opened, asks, asked, requests in rows
    ]


# --- the clockwork's part ---------------------------------------------------------------------


def ask(conn: Connection, now_ms: int, limit: int = ASKS_PER_MINUTE) -> Round:
    """Ask for gaps that are due and close those that cannot be filled.

    Any number of workers may call it: one works, the others find nothing to do. Errors: none of
    the input; a gap that is filled meanwhile is left alone.
    """
    with conn.transaction():
        if not _claimed(conn):
            return Round()
        closed = _close(conn, now_ms)
    # Apart from the above: ingest locks a meter before its gaps, and so does this.
    with conn.transaction():
        return Round(_ask_due(conn, now_ms, limit) if _claimed(conn) else 0, closed)


def _claimed(conn: Connection) -> bool:
    """Whether this worker is the one that asks, until the transaction ends."""
    row = conn.execute(query("claim_gap_round")).fetchone()
    return bool(row and row[0])


def _close(conn: Connection, now_ms: int) -> int:
    answered = conn.execute(
        query("close_answered_gaps"),
        {
            "now_ms": now_ms,
            "settled_ms": now_ms - SETTLE_MS,
            "asked_before_ms": now_ms - DAY_MS,
            "most_asks": MOST_ASKS,
            "not_supported": _NOT_SUPPORTED,
        },
    )
    given_up = conn.execute(
        query("give_up_gaps"), {"now_ms": now_ms, "opened_before_ms": now_ms - KEPT_DAYS * DAY_MS}
    )
    return answered.rowcount + given_up.rowcount


def _ask_due(conn: Connection, now_ms: int, limit: int) -> int:
    row = conn.execute(query("gaps_asked_since"), {"since_ms": now_ms - 60_000}).fetchone()
    due = conn.execute(
        query("gaps_due"),
        {
            "opened_before_ms": now_ms - GRACE_MS,
            "asked_before_ms": now_ms - DAY_MS,
            "most_asks": MOST_ASKS,
            "limit": max(limit - (row[0] if row else 0), 0),
        },
    ).fetchall()
    meters = sorted({meter for meter, _ in due})
    if not meters:
        return 0
    conn.execute(query("lock_meter_states"), {"meters": meters})
    # Looked up again after the locks: what was filled meanwhile is gone.
    wanted = {gap for _, gap in due}
    asked = [(meter, gap) for meter, gap in _open_gaps(conn, meters) if gap.id in wanted]
    for meter_id, gap in asked:
        _ask(conn, meter_id, gap, now_ms)
    return len(asked)


def _ask(conn: Connection, meter_id: int, gap: Gap, now_ms: int) -> None:
    expires_ms = now_ms + RESEND_EXPIRY_MS
    requests = [
        supply.queue(conn, meter_id, "resend", args, now_ms, expires_ms)
        for args in sequence.asks(gap)
    ]
    conn.execute(query("mark_gap_asked"), {"gap": gap.id, "requests": requests, "now_ms": now_ms})


# --- looking ----------------------------------------------------------------------------------


def gaps(
    conn: Connection, *, meter: str | None = None, closed: bool = False, limit: int = 1000
) -> list[GapRow]:
    """Open gaps, and with `closed` those that are over, newest first. Errors: NotFound (meter)."""
    if (
        meter is not None
        and conn.execute(query("find_meter"), {"number": meter}).fetchone() is None
    ):
        raise NotFound(f"Meter {meter}")
    rows = conn.execute(query("gaps"), {"meter": meter, "closed": closed, "limit": limit})
    return [
        GapRow(gap, number, Place(*rest[:3]), Place(*rest[3:6]), *rest[6:])
        for gap, number, *rest in rows
    ]
