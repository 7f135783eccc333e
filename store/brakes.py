"""The fleet brake: cuts of one centre in a short time beyond what its settings let go wait for a
person.

A wrong price, a wrong clock or a lost payment file cuts thousands at once. Cuts are counted per
centre and minute under the lock of the centre's row, so that workers side by side and a restart
count as one. A run that would go beyond the limit pulls the brake and makes no cut at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from psycopg import Connection

from store import audit_log
from store.centres import MINUTE_MS, CentreSettings
from store.errors import Conflict, NotFound
from store.sql import query


@dataclass(frozen=True, slots=True)
class Brake:
    """`cuts` were made within the span and `wanted` more asked for, as at most `most` may go.

    `withheld`: cuts that wait for this brake now. The last four are None while it is pulled;
    `free_until_ms` only of a release.
    """

    id: int
    centre: str
    pulled_ms: int
    cuts: int
    wanted: int
    most: int
    state: Literal["pulled", "released", "closed"]
    decided_by: str | None
    reason: str | None
    decided_ms: int | None
    free_until_ms: int | None
    withheld: int


def admit(
    conn: Connection,
    wanted: Mapping[int, int],
    settings: Mapping[int, CentreSettings],
    now_ms: int,
) -> dict[int, int]:
    """Count the cuts `wanted` per centre; returns the centres that may make none, each with its
    brake. The caller's transaction makes the others' cuts.
    """
    asked = sorted(centre for centre, count in wanted.items() if count)
    if not asked:
        return {}
    conn.execute(query("lock_centres"), {"centres": asked})
    pulled: dict[int, int] = {}
    for centre in asked:
        brake = _check(conn, centre, wanted[centre], settings[centre], now_ms)
        if brake is not None:
            pulled[centre] = brake
    return pulled


def _check(
    conn: Connection, centre: int, wanted: int, rules: CentreSettings, now_ms: int
) -> int | None:
    since_ms = now_ms - rules.brake_minutes * MINUTE_MS
    newest = conn.execute(query("newest_brake"), {"centre": centre}).fetchone()
    if newest is not None:
        brake, state, free_until_ms = newest
        if state == "pulled":
            return int(brake)
        if free_until_ms is not None and now_ms < free_until_ms:
            return None
    if rules.brake_percent is not None:
        of = {"centre": centre, "since_ms": since_ms - since_ms % MINUTE_MS}
        row = conn.execute(query("cuts_within"), of).fetchone()
        assert row is not None, "sums always come"
        cuts, accounts = row
        most = max(accounts * rules.brake_percent // 100, rules.brake_least)
        if cuts + wanted > most:
            pull = {"centre": centre, "now_ms": now_ms, "cuts": cuts, "wanted": wanted}
            pulled = conn.execute(query("pull_brake"), pull | {"most": most}).fetchone()
            assert pulled is not None, "an insert returns its row"
            return int(pulled[0])
    minute = {"centre": centre, "minute_ms": now_ms - now_ms % MINUTE_MS, "cuts": wanted}
    conn.execute(query("count_cuts"), minute)
    return None


def brakes(conn: Connection, *, all_states: bool, limit: int) -> Sequence[Brake]:
    """The pulled brakes, or all of them, newest first."""
    rows = conn.execute(query("brakes"), {"all": all_states, "limit": limit})
    return [Brake(*row) for row in rows]


def release(
    conn: Connection, brake: int, *, free_minutes: int, by: str, reason: str, now_ms: int
) -> int:
    """Let the cuts go on, and for `free_minutes` whatever more comes; returns how many accounts
    are decided again. Not inside a transaction. Errors: NotFound; Conflict `brake_decided`,
    `reason_missing`.
    """
    return _decide(
        conn, brake, "released", by=by, reason=reason, now_ms=now_ms,
        free_until_ms=now_ms + free_minutes * MINUTE_MS,
    )  # fmt: skip


def close(conn: Connection, brake: int, *, by: str, reason: str, now_ms: int) -> int:
    """The cause is put right: decide the accounts again, counting from now, so that a run that is
    still too large pulls the brake again. Returns how many; errors as for `release`.
    """
    return _decide(conn, brake, "closed", by=by, reason=reason, now_ms=now_ms, free_until_ms=None)


def _decide(
    conn: Connection,
    brake: int,
    state: str,
    *,
    by: str,
    reason: str,
    now_ms: int,
    free_until_ms: int | None,
) -> int:
    if not by.strip() or not reason.strip():
        raise Conflict("reason_missing", "say who decides about the brake and why: both are kept")
    of = {"brake": brake, "state": state, "by": by, "reason": reason, "now_ms": now_ms}
    with conn.transaction():
        found = conn.execute(query("centre_of_brake"), {"brake": brake}).fetchone()
        if found is None:
            raise NotFound("The brake")
        # Whoever withholds a cut for this brake has the centre locked: it ends before we go on.
        conn.execute(query("lock_centres"), {"centres": [found[0]]})
        decided = conn.execute(query("decide_brake"), of | {"free_until_ms": free_until_ms})
        if decided.fetchone() is None:
            raise Conflict("brake_decided", f"brake {brake} was released or closed before")
        conn.execute(query("forget_cuts"), {"centre": found[0]})
        done = {"released": "brake.release", "closed": "brake.close"}[state]
        after = {"free_until_ms": free_until_ms}
        audit_log.record(conn, by, done, f"brake:{brake}", now_ms, reason=reason, after=after)
    # Of its own: accounts are locked before centres, never after.
    with conn.transaction():
        again = {"guard": f"brake:{brake}", "now_ms": now_ms}
        return len(conn.execute(query("decide_withheld_again"), again).fetchall())
