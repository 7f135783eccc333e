"""The facts of accounts as the tables hold them, in the engine's words."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from psycopg import Connection

from credit_engine.facts import (
    Adjustment,
    EmergencyRequest,
    Exchange,
    Fact,
    Reading,
    RecordedTopUp,
    Reversal,
    TopUp,
)
from credit_engine.terms import Installation
from store.binary import Int8s
from store.ledger import ledger_codes
from store.sql import query

ACCEPTED = "accepted"
# Places of a reading: (meter number, instant in ms).
Place = tuple[str, int]


class Stored(NamedTuple):
    """Facts of an account from an anchor on, and the stored verdict of each reading among them."""

    facts: list[Fact]
    known: dict[Place, str | None]


def stored_facts(conn: Connection, anchors: Mapping[int, int]) -> dict[int, Stored]:
    """By account: all its stored facts from its anchor (an instant in ms) on."""
    stored = {account: Stored([], {}) for account in anchors}
    series = installations(conn, list(anchors))
    # Before the first installation there is nothing to bill.
    after = {
        account: max(anchor_ms, series[account][0][0].opened_at_ms)
        for account, anchor_ms in anchors.items()
    }
    _add_readings(conn, after, stored)
    since = {"accounts": Int8s(list(anchors)), "from": Int8s(list(anchors.values()))}
    for account, *top_up in conn.execute(query("top_ups_from"), since):
        stored[account].facts.append(TopUp(*top_up))
    for account, top_up, at_ms, credited_ms, channel in conn.execute(
        query("reversals_from"), since
    ).fetchall():
        split = None
        if credited_ms < anchors[account]:
            split = recorded_split(conn, account, top_up, credited_ms, channel)
        stored[account].facts.append(Reversal(top_up, at_ms, split))
    for account, at_ms in conn.execute(query("emergency_requests_from"), since):
        stored[account].facts.append(EmergencyRequest(at_ms))
    for account, *adjustment in conn.execute(query("adjustments_from"), since):
        stored[account].facts.append(Adjustment(*adjustment))
    for account, anchor_ms in anchors.items():
        stored[account].facts.extend(
            Exchange(closing_wh or 0, meter)
            for meter, closing_wh in series[account][1:]
            if meter.opened_at_ms > anchor_ms
        )
    return stored


def _add_readings(conn: Connection, after: Mapping[int, int], stored: Mapping[int, Stored]) -> None:
    of = {
        "accounts": Int8s(list(after)),
        "after": Int8s(list(after.values())),
        "first_ms": min(after.values()),
    }
    # Not prepared: a plan for any instant visits every chunk of the history, and years have many.
    for account, number, ts_ms, value_wh, verdict in conn.execute(
        query("readings_after"), of, prepare=False
    ):
        facts, known = stored[account]
        facts.append(Reading(ts_ms, value_wh, number))
        known[number, ts_ms] = verdict


def recorded_split(
    conn: Connection, account_id: int, top_up: str, credited_ms: int, channel: str
) -> RecordedTopUp:
    """What the ledger holds for a top-up."""
    codes = ledger_codes(conn)
    net: dict[str, int] = {}
    key = {"account": account_id, "key": f"top_up:{top_up}"}
    for legs, amounts in conn.execute(query("posted_of_key"), key):
        for leg, amount in zip(legs, amounts, strict=True):
            net[codes[leg]] = net.get(codes[leg], 0) + amount
    split = (net.get(code, 0) for code in ("customer", "debt", "cash_rounding"))
    return RecordedTopUp(credited_ms, channel, *split)


def installations(
    conn: Connection, accounts: Sequence[int]
) -> dict[int, list[tuple[Installation, int | None]]]:
    """The meters of accounts in order, each with the closing value of the one before it."""
    series: dict[int, list[tuple[Installation, int | None]]] = {}
    of = {"accounts": Int8s(accounts)}
    for account, number, opened, opening, closing, power, modulus in conn.execute(
        query("installations_of_accounts"), of
    ):
        meter = Installation(number, modulus, opened, opening, power)
        series.setdefault(account, []).append((meter, closing))
    return series
