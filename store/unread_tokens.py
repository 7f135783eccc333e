"""Meters that cannot read what they are sold: their record names another key than they hold, or
somebody guesses.
"""

from dataclasses import dataclass

from psycopg import Connection

from store.sql import query

# One such answer is a token for another meter, or one that came behind a key change. Three tokens
# of a day, each under the key that our record names, are the record's fault.
BURST_TOKENS = 3
BURST_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Unread:
    """A meter with `tokens` different tokens that it answered with AuthenticationError."""

    meter: str
    tokens: int
    newest_ms: int


def unread_tokens(conn: Connection, now_ms: int) -> list[Unread]:
    """Meters with a burst of such answers in the day before an instant, by number."""
    of = {"since_ms": now_ms - BURST_MS, "now_ms": now_ms, "least": BURST_TOKENS}
    return [Unread(*row) for row in conn.execute(query("meters_that_read_nothing"), of)]
