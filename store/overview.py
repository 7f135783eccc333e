"""An installation at a glance, for the live view."""

from typing import NamedTuple

from psycopg import Connection

from store.sql import query


class Counts(NamedTuple):
    """How many of what; `balance_micro` over all accounts."""

    accounts: int
    connected: int
    protected: int
    disconnected: int
    relays_open: int
    relays_closed: int
    online: int
    balance_micro: int
    tokens: int
    tokens_accepted: int
    tokens_refused: int
    commands_queued: int
    commands_sent: int
    top_ups: int
    quarantined_messages: int


class LowAccount(NamedTuple):
    """An account near the end of its credit."""

    account: str
    meter: str
    balance_micro: int
    supply: str
    desired_relay: str
    reported_relay: str | None


class RecentTopUp(NamedTuple):
    """A payment and the instants of its steps, in ms; None: not yet."""

    account: str
    meter: str
    amount_micro: int
    energy_wh: int
    token_issued_ms: int | None
    credited_ms: int
    delivered_ms: int | None
    accepted_ms: int | None
    rejected_ms: int | None
    on_supply_ms: int | None


class Reconnections(NamedTuple):
    """From payment to supply reported on, of the newest that found it off; None: none yet."""

    p50_ms: int | None
    p99_ms: int | None


class Overview(NamedTuple):
    counts: Counts
    quarantine: list[tuple[str, int]]
    lowest: list[LowAccount]
    top_ups: list[RecentTopUp]
    reconnections: Reconnections


def overview(conn: Connection, rows: int) -> Overview:
    """Everything the live view shows; `rows` bounds each list."""
    counts = conn.execute(query("overview_counts")).fetchone()
    assert counts is not None, "a row of counts always comes"
    reconnections = conn.execute(query("overview_reconnections")).fetchone()
    assert reconnections is not None, "percentiles always come"
    limit = {"limit": rows}
    return Overview(
        counts=Counts(*counts),
        quarantine=conn.execute(query("overview_quarantine")).fetchall(),
        lowest=[LowAccount(*row) for row in conn.execute(query("overview_accounts"), limit)],
        top_ups=[RecentTopUp(*row) for row in conn.execute(query("overview_top_ups"), limit)],
        reconnections=Reconnections(*reconnections),
    )
