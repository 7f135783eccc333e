"""What the server holds of all meters and accounts, read plainly for whoever knows the truth.

Stored rows and sums, nothing rated: an auditor compares them with what meters and payers did.
`store.books` does the same for one account.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from psycopg import Connection

from store.pool import snapshot
from store.sql import query


class HeldReading(NamedTuple):
    """Wh and verdict of a stored reading."""

    wh: int
    verdict: str | None


class HeldRefusal(NamedTuple):
    """A message or row of the quarantine."""

    id: int
    reason: str
    topic: str
    content_type: str | None
    payload: bytes


class HeldSums(NamedTuple):
    """Of one account: Wh and µ over its ledger rows, and its balance in µ."""

    energy_wh: int
    entries_micro: int
    balance_micro: int


class HeldToken(NamedTuple):
    """Whose token it is, and the meter's word on it."""

    meter: str
    result: str | None


class HeldCommand(NamedTuple):
    """Whose command it is, and how it stands."""

    meter: str
    type: str
    state: str


@dataclass(frozen=True, slots=True)
class Holdings:
    """`readings`: (meter, instant ms). `sums`: account number. `payments`: the channel's number ->
    (rows, µ). `tokens`: digits. `commands`: id. `relays`: meter -> as it last reported.
    """

    readings: Mapping[tuple[str, int], HeldReading]
    refusals: tuple[HeldRefusal, ...]
    sums: Mapping[str, HeldSums]
    payments: Mapping[str, tuple[int, int]]
    tokens: Mapping[str, HeldToken]
    commands: Mapping[str, HeldCommand]
    relays: Mapping[str, str | None]


def readings_since(conn: Connection, since_ms: int) -> dict[tuple[str, int], HeldReading]:
    """Stored billable readings of all meters from an instant on."""
    return {
        (number, at_ms): HeldReading(wh, verdict)
        for number, at_ms, wh, verdict in conn.execute(
            query("held_readings"), {"since_ms": since_ms}
        )
    }


def holdings(conn: Connection, *, since_ms: int, channel: str) -> Holdings:
    """Everything, at one instant of the database; readings only from `since_ms` on."""
    with snapshot(conn):
        return Holdings(
            readings_since(conn, since_ms),
            refusals_after(conn, 0),
            {number: HeldSums(*rest) for number, *rest in conn.execute(query("held_sums"))},
            {
                number: (rows, micro)
                for number, rows, micro in conn.execute(
                    query("held_payments"), {"channel": channel}
                )
            },
            {digits: HeldToken(*rest) for digits, *rest in conn.execute(query("held_tokens"))},
            {cmd: HeldCommand(*rest) for cmd, *rest in conn.execute(query("held_commands"))},
            dict(conn.execute(query("held_relays")).fetchall()),
        )


def refusals_after(conn: Connection, after: int) -> tuple[HeldRefusal, ...]:
    """The quarantine after one of its rows."""
    rows = conn.execute(query("held_refusals"), {"after": after})
    return tuple(
        HeldRefusal(row, reason, topic, content_type, bytes(payload))
        for row, reason, topic, content_type, payload in rows
    )


def newest_entry(conn: Connection) -> int:
    """The id of the newest row of the ledger, 0 without any."""
    row = conn.execute(query("newest_entry")).fetchone()
    assert row is not None, "a maximum always comes"
    return int(row[0])


def backends_of(conn: Connection, part: str) -> list[int]:
    """Process ids of the connections of a part, by the name that it gives (`prepaid-ingest`)."""
    return [pid for (pid,) in conn.execute(query("backends_of"), {"name": part})]


def end_backends(conn: Connection, part: str) -> int:
    """End the connections of a part of the system; returns how many there were."""
    return len(conn.execute(query("end_backends"), {"name": part}).fetchall())


def end_sessions(conn: Connection, database: str) -> None:
    """Send everybody away from another database."""
    conn.execute(query("end_sessions"), {"database": database})
