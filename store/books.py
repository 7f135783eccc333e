"""The ledger read back as postings: what it holds under each key once corrections are counted."""

from dataclasses import dataclass, field

from psycopg import Connection

from credit_engine.outcome import Outcome, Posting
from credit_engine.quote import Quote, quote
from store.errors import NotFound
from store.ledger import ledger_codes
from store.settlement import rate_from_books, read_account
from store.sql import query
from store.supply import meter_of_account
from store.terms import TermsCache


@dataclass(slots=True)
class _Key:
    kind: str
    at_ms: int
    local_day: object
    band: str | None
    energy_wh: int = 0
    legs: dict[str, int] = field(default_factory=dict)
    explanation: dict[str, object] | None = None


def postings(conn: Connection, account_id: int) -> list[Posting]:
    """The net of every key that is not reversed, in order of time."""
    codes = ledger_codes(conn)
    keys: dict[str, _Key] = {}
    for row in conn.execute(query("rows_of_account"), {"account": account_id}):
        key, kind, at_ms, local_day, band, energy_wh, legs, amounts, correction, explanation = row
        held = keys.setdefault(key, _Key(kind, at_ms, local_day, band))
        held.energy_wh += energy_wh
        for leg, amount in zip(legs, amounts, strict=True):
            held.legs[codes[leg]] = held.legs.get(codes[leg], 0) + amount
        held.explanation = explanation if correction == 0 else explanation.get("now")
    net = [
        Posting(
            key=key,
            kind=held.kind,  # type: ignore[arg-type] # checked by the table
            at_ms=held.at_ms,
            local_day=held.local_day,  # type: ignore[arg-type] # a date of the database
            band=held.band,
            energy_wh=held.energy_wh,
            charge_micro=int(str(held.explanation.get("charge_micro", 0))),
            legs=tuple((code, amount) for code, amount in sorted(held.legs.items()) if amount),
            explanation=held.explanation,
        )
        for key, held in keys.items()
        if held.explanation is not None
    ]
    return sorted(net, key=lambda posting: posting.at_ms)


def quote_at(
    conn: Connection, terms: TermsCache, account_id: int, at_ms: int, amount_micro: int
) -> Quote:
    """What an amount would have bought at an instant of the past, on the facts up to it."""
    outcome = outcome_at(conn, terms, account_id, at_ms)
    state = read_account(conn, account_id)
    if state is None:
        raise NotFound("The account")
    agreed = terms.get(conn, account_id, state.terms_revision)
    return quote(agreed, outcome.totals, at_ms, amount_micro)


def outcome_at(
    conn: Connection,
    terms: TermsCache,
    account_id: int,
    at_ms: int,
    *,
    from_genesis: bool = False,
) -> Outcome:
    """The account as all facts of today give it for an instant: from the nearest checkpoint, or
    without any.
    """
    state = read_account(conn, account_id)
    if state is None:
        raise NotFound("The account")
    return rate_from_books(conn, terms, state, at_ms, from_genesis=from_genesis)


def account_of_entry(conn: Connection, entry_id: int) -> str:
    """The number of the account that a ledger entry belongs to. Errors: NotFound."""
    row = conn.execute(query("account_of_entry"), {"entry": entry_id}).fetchone()
    if row is None:
        raise NotFound(f"Entry {entry_id}")
    return str(row[0])


def current_meter(conn: Connection, account_id: int) -> str | None:
    """The number of the meter that serves an account now."""
    meter = meter_of_account(conn, account_id)
    return None if meter is None else meter.number


def readings_of_meters(
    conn: Connection, numbers: list[str]
) -> list[tuple[str, int, int, str | None]]:
    """(meter number, instant, Wh, verdict) of every stored billable reading, in order of time."""
    return conn.execute(query("readings_of_meters"), {"numbers": numbers}).fetchall()


def refused_messages(conn: Connection, numbers: list[str]) -> list[tuple[str, str, bytes]]:
    """(meter number, reason, payload) of what was refused on the topics of these meters."""
    rows = conn.execute(query("refused_readings_of_meters"), {"numbers": numbers}).fetchall()
    return [(number, reason, bytes(payload)) for number, reason, payload in rows]
