"""The facts of an account as the tables hold them, in the engine's words."""

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
from store.ledger import ledger_codes
from store.sql import query

ACCEPTED = "accepted"
# Places of a reading: (meter number, instant in ms).
Place = tuple[str, int]


def stored_facts(
    conn: Connection, account_id: int, anchor_ms: int
) -> tuple[list[Fact], dict[Place, str | None]]:
    """All stored facts from an anchor on, and the stored verdict of each reading among them."""
    series = installations(conn, account_id)
    since = {"account": account_id, "from_ms": anchor_ms}
    facts: list[Fact] = []
    known: dict[Place, str | None] = {}
    after = {"account": account_id, "after_ms": max(anchor_ms, series[0][0].opened_at_ms)}
    # Not prepared: a plan for any instant visits every chunk of the history, and years have many.
    for number, ts_ms, value_wh, verdict in conn.execute(
        query("readings_after"), after, prepare=False
    ):
        facts.append(Reading(ts_ms, value_wh, number))
        known[number, ts_ms] = verdict
    facts.extend(TopUp(*row) for row in conn.execute(query("top_ups_from"), since))
    for top_up, at_ms, credited_ms, channel in conn.execute(query("reversals_from"), since):
        split = None
        if credited_ms < anchor_ms:
            split = recorded_split(conn, account_id, top_up, credited_ms, channel)
        facts.append(Reversal(top_up, at_ms, split))
    for (at_ms,) in conn.execute(query("emergency_requests_from"), since):
        facts.append(EmergencyRequest(at_ms))
    facts.extend(Adjustment(*row) for row in conn.execute(query("adjustments_from"), since))
    facts.extend(
        Exchange(closing_wh or 0, meter)
        for meter, closing_wh in series[1:]
        if meter.opened_at_ms > anchor_ms
    )
    return facts, known


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


def installations(conn: Connection, account_id: int) -> list[tuple[Installation, int | None]]:
    """The meters of an account in order, each with the closing value of the one before it."""
    rows = conn.execute(query("installations_of_account"), {"account": account_id}).fetchall()
    return [
        (Installation(number, modulus, opened, opening, power), closing)
        for number, opened, opening, closing, power, modulus in rows
    ]
