"""Gateways as operators see them: who is connected, for how many meters, with what to carry."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import Connection

from store import audit_log
from store.errors import Conflict, NotFound
from store.sql import like_text, query


@dataclass(frozen=True, slots=True)
class Gateway:
    """`online` and `seen_ms` are None before it spoke. Meters and commands are those of some
    centres: `queued` wait to be sent, the oldest since `oldest_queued_ms`; `in_flight` were sent
    and are not answered yet. `next_send_ms`: its pace lets nothing go before. `outage`: the cause
    of one that lasts.
    """

    id: int
    name: str
    online: bool | None
    seen_ms: int | None
    next_send_ms: int
    meters: int
    queued: int
    oldest_queued_ms: int | None
    in_flight: int
    outage: str | None


def seen(
    conn: Connection,
    *,
    centres: Sequence[int] | None,
    after_id: int | None,
    limit: int,
    centre: str | None = None,
    search: str | None = None,
    name: str | None = None,
) -> list[Gateway]:
    """In the order of registration; one more than `limit` when there is a next page.

    `centres`: only those that speak for a meter of these. `centre`: for a meter of this one, by its
    code. `search`: the beginning of a name; `name`: the whole of it.
    """
    of = {
        "centres": None if centres is None else list(centres),
        "centre": centre,
        "like": like_text(search),
        "number": name,
        "after": after_id,
        "limit": limit + 1,
    }
    return [Gateway(*row) for row in conn.execute(query("gateways_seen"), of)]


def one(conn: Connection, name: str, centres: Sequence[int] | None) -> Gateway:
    """One by its name. Errors: NotFound, also for one of other centres alone."""
    found = seen(conn, centres=centres, after_id=None, limit=1, name=name)
    if not found:
        raise NotFound("The gateway")
    return found[0]


def register(conn: Connection, name: str, *, reason: str | None, who: str, now_ms: int) -> None:
    """A gateway that speaks for no meter yet. Errors: Conflict `gateway_exists`."""
    with conn.transaction():
        if conn.execute(query("insert_gateway"), {"number": name}).fetchone() is None:
            raise Conflict("gateway_exists", f"gateway {name} is registered already")
        subject = f"gateway:{name}"
        audit_log.record(
            conn, who, "gateway.register", subject, now_ms, reason=reason, after={"name": name}
        )
