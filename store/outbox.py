"""The way of commands out: who sends what when, and again when it was in vain.

A dispatcher claims commands for a short time, one per meter, so that any number of dispatchers send
each command once and a meter's commands in the order of their counters. A claim that lapses, as
its dispatcher died, is taken by another: the same command goes twice, and the meter answers a
repeat with its stored result. Behind a gateway the pace of its radio counts (`Pacing`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import Connection

from store import dead_letters, issuing, supply
from store.sql import query
from store.supply import Queued, in_order

# Long enough for a broker's acknowledgement; after it another dispatcher may send the same.
CLAIM_MS = 30 * 1000


@dataclass(frozen=True, slots=True)
class Pacing:
    """The pace of each gateway: `at_once` commands that its meters have not answered yet, each
    counted for `answer_ms`, and `spacing_ms` between two of them.
    """

    at_once: int = 5
    spacing_ms: int = 2000
    answer_ms: int = 60 * 1000


# Of a concentrator in the field; an operator sets another.
USUAL_PACING = Pacing()


@dataclass(frozen=True, slots=True)
class Standing:
    """Commands that wait to be sent, and when the oldest was issued; None where none waits."""

    commands: int
    oldest_ms: int | None


def standing(conn: Connection) -> Standing:
    """How far sending is behind deciding."""
    row = conn.execute(query("outbox_standing")).fetchone()
    assert row is not None, "a count always comes"
    return Standing(*row)


def claim(
    conn: Connection,
    now_ms: int,
    limit: int,
    pacing: Pacing,
    *,
    least_life_ms: int = 0,
    claim_ms: int = CLAIM_MS,
) -> list[Queued]:
    """Take commands to send now: (meter number, its gateway or None, command), oldest first.

    At most `limit` for meters of their own and as many gateways. Those that live no longer than
    `least_life_ms` are left to the clockwork.
    """
    of = {
        "now_ms": now_ms,
        "alive_ms": now_ms + least_life_ms,
        "until_ms": now_ms + claim_ms,
        "limit": limit,
    }
    paced = {
        "at_once": pacing.at_once,
        "spacing_ms": pacing.spacing_ms,
        "flying_since_ms": now_ms - pacing.answer_ms,
    }
    with conn.transaction():
        rows = conn.execute(query("claim_for_meters"), of).fetchall()
        rows += conn.execute(query("claim_for_gateways"), of | paced).fetchall()
    return in_order(rows)


def release_claims(conn: Connection, ids: Sequence[str]) -> None:
    """These may go again at once: their dispatcher does not know whether the broker has them."""
    conn.execute(query("release_claims"), {"ids": list(ids)})


def retry_due(conn: Connection, now_ms: int, limit: int) -> int:
    """Carry again what ended in vain and whose back-off is over; returns how many went."""
    of: dict[str, object] = {"now_ms": now_ms, "limit": limit}
    with conn.transaction():
        of["meters"] = supply.lock_meters(conn, conn.execute(query("meters_to_retry"), of))
        rows = conn.execute(query("retries_due"), of).fetchall()
        if not rows:
            return 0
        ids = [cmd for (cmd,) in rows]
        conn.execute(query("end_retries"), {"ids": ids})
        return issuing.deliver_again(conn, ids, now_ms)


def reopen(conn: Connection, letter: int, *, by: str, note: str, now_ms: int) -> None:
    """Try a dead letter again. A relay is ordered by the clockwork, if it is still desired and the
    guards allow; tokens that the meter still needs, and other commands, go at once.

    Errors: NotFound; Conflict `letter_decided`, `reason_missing`.
    """
    with conn.transaction():
        opened = dead_letters.take(conn, letter, by=by, note=note)
        if opened.type == "token":
            issuing.deliver_again(conn, [opened.cmd], now_ms, anew=True)
        elif opened.type not in {"relay", "arm"}:
            expires_ms = now_ms + opened.life_ms
            supply.queue(conn, opened.meter_id, opened.type, opened.args, now_ms, expires_ms)
        dead_letters.decide(conn, letter, "reopened", by=by, note=note, now_ms=now_ms)
