"""How often something was tried: a counter in the database, so that every process counts alike.

A window is fixed in time. It is counted before the try, so that many tries at once are all seen.
"""

import hashlib
from dataclasses import dataclass

from psycopg import Connection

from store.errors import TooManyAttempts
from store.sql import query

# Counters of windows that ended this long ago are swept.
KEPT_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Bound:
    """At most `tries` of what `subject` names in a window of `window_ms`."""

    subject: str
    tries: int
    window_ms: int


def count(conn: Connection, bound: Bound, wall_ms: int) -> None:
    """Count one try, in a transaction of its own: it counts also when what follows fails.

    Errors: TooManyAttempts, with the time until the window ends.
    """
    began_ms = wall_ms - wall_ms % bound.window_ms
    of = {"subject": _digest(bound.subject), "window_ms": began_ms}
    row = conn.execute(query("count_attempt"), of).fetchone()
    assert row is not None, "an upsert returns its row"
    if row[0] > bound.tries:
        raise TooManyAttempts((began_ms + bound.window_ms - wall_ms + 999) // 1000)


def forget(conn: Connection, subject: str) -> None:
    """What was tried has succeeded: counting begins anew."""
    conn.execute(query("forget_attempts"), {"subject": _digest(subject)})


def sweep(conn: Connection, wall_ms: int) -> None:
    """Drop counters that nobody asks for any more."""
    conn.execute(query("sweep_attempts"), {"until_ms": wall_ms - KEPT_MS})


def _digest(subject: str) -> bytes:
    return hashlib.sha256(subject.encode()).digest()
