"""Brings accounts up to date inside one database transaction: facts in, ledger rows out.

The caller holds the lock of the accounts' state rows. In the common case - a reading after all
others, nothing else since the anchor - an account costs no query here. Otherwise the facts since
a stored position are rated again, and the difference to what is posted is posted: nothing in the
ledger is edited. The ledger must then agree with the engine to the micro-unit, or the transaction
fails (SettlementError): a wrong balance is never committed.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson
from psycopg import Connection

from credit_engine.engine import Outcome, advance, open_account
from credit_engine.facts import (
    EmergencyRequest,
    Exchange,
    Fact,
    Installation,
    Reading,
    Reversal,
    TopUp,
)
from credit_engine.position import Position
from credit_engine.settlement import Entry, Posted, settle
from credit_engine.tariff import parse_terms
from credit_engine.terms import Terms
from store.errors import StoreError
from store.sql import query

ACCEPTED = "accepted"


class SettlementError(StoreError):
    """The ledger and the engine disagree about an account: a defect of ours, never of the input."""

    def __init__(self, account_id: int, message: str) -> None:
        super().__init__("settlement", f"account {account_id}: {message}")


@dataclass(frozen=True, slots=True)
class AccountState:
    """The row of `account_state`: what the engine knows at the anchor and what follows from it."""

    account_id: int
    position: Position
    anchor_ms: int
    newest_reading_ms: int
    has_tail: bool
    settled_until_ms: int
    due_ms: int
    balance_micro: int
    debt_micro: int
    supply: str
    emergency_in_use: bool
    terms_revision: int


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One transaction to be recorded."""

    account_id: int
    entry: Entry
    revision: int
    balance_micro: int


@dataclass(frozen=True, slots=True)
class Settled:
    """The answer for one account: its new state and what has to be written for it."""

    before: AccountState
    state: AccountState
    outcome: Outcome
    rows: tuple[LedgerRow, ...]
    # verdicts of the readings rated now, by (meter number, time)
    verdicts: Mapping[tuple[str, int], str]
    # verdicts as stored before, where readings were loaded
    known_verdicts: Mapping[tuple[str, int], str | None]
    rerated_from_ms: int | None


@dataclass(slots=True)
class TermsCache:
    """Parsed terms by account, kept by a worker until the account's revision moves on."""

    limit: int = 100_000
    _kept: dict[int, tuple[int, Terms]] = field(default_factory=dict)

    def get(self, conn: Connection, account_id: int, revision: int) -> Terms:
        kept = self._kept.get(account_id)
        if kept is not None and kept[0] == revision:
            return kept[1]
        terms = load_terms(conn, account_id)
        if len(self._kept) >= self.limit:
            self._kept.clear()
        self._kept[account_id] = (revision, terms)
        return terms


def load_terms(conn: Connection, account_id: int) -> Terms:
    """The terms of one account, as the engine reads them."""
    row = conn.execute(query("terms_of_account"), {"account": account_id}).fetchone()
    if row is None:
        raise SettlementError(account_id, "it has no terms")
    timezone, currency, holidays, account, versions = row
    return parse_terms(
        {
            "timezone": timezone,
            "currency": currency,
            "holidays": holidays,
            "tariff": {"versions": versions or []},
            "account": account,
        }
    )


def lock_accounts(conn: Connection, account_ids: Iterable[int]) -> dict[int, AccountState]:
    """Lock and read the states of these accounts; the lock lasts until the transaction ends."""
    rows = conn.execute(query("lock_accounts"), {"accounts": sorted(account_ids)}).fetchall()
    return {row[0]: _state(row) for row in rows}


def lock_due_accounts(conn: Connection, now_ms: int, limit: int) -> dict[int, AccountState]:
    """Lock accounts whose schedule is due; those locked by others are left to them."""
    rows = conn.execute(
        query("lock_due_accounts"), {"now_ms": now_ms, "limit": limit}
    ).fetchall()
    return {row[0]: _state(row) for row in rows}


def _state(row: Sequence[object]) -> AccountState:
    account_id, position, *rest = row
    return AccountState(account_id, Position.from_json(position), *rest)  # type: ignore[arg-type] # a database row


def settle_account(
    conn: Connection,
    terms: TermsCache,
    state: AccountState,
    new: Sequence[Fact],
    now_ms: int,
    *,
    touched_from_ms: int | None = None,
) -> Settled:
    """Rate the new facts of one account, whatever their order.

    `new` are facts of this transaction that are not in the tables yet (readings) or already are
    (others: pass `touched_from_ms`, the earliest instant that they touch).
    """
    agreed = terms.get(conn, state.account_id, state.terms_revision)
    readings = [fact for fact in new if isinstance(fact, Reading)]
    times = [fact.time_ms for fact in new]
    until_ms = max([now_ms, state.settled_until_ms, *times])
    in_order = (
        touched_from_ms is None
        and not state.has_tail
        and all(fact.time_ms > state.newest_reading_ms for fact in readings)
        and len(readings) == len(new)
    )
    if in_order:
        outcome = advance(agreed, state.position, readings, until_ms)
        entries = settle((), outcome.postings)
        return _settled(state, outcome, entries, {}, {}, None, until_ms, readings)
    earliest = min([*times, *([] if touched_from_ms is None else [touched_from_ms])], default=None)
    start, rerated = _start(conn, state, earliest)
    facts, known = _facts_from(conn, state.account_id, start.anchor_ms)
    for reading in readings:
        if (reading.meter or "", reading.time_ms) not in known:
            facts.append(reading)
    until_ms = max([until_ms, *(fact.time_ms for fact in facts)])
    outcome = advance(agreed, start, facts, until_ms)
    posted, revisions = _posted_from(conn, state.account_id, start.anchor_ms)
    entries = settle(posted, outcome.postings)
    return _settled(state, outcome, entries, revisions, known, rerated, until_ms, readings)


def _start(
    conn: Connection, state: AccountState, earliest_ms: int | None
) -> tuple[Position, int | None]:
    """The newest position before the earliest new fact, and its anchor if it is an older one."""
    if earliest_ms is None or earliest_ms > state.anchor_ms:
        return state.position, None
    row = conn.execute(
        query("checkpoint_before"), {"account": state.account_id, "before_ms": earliest_ms}
    ).fetchone()
    if row is None:
        raise SettlementError(state.account_id, f"no stored position before {earliest_ms}")
    return Position.from_json(row[1]), row[0]


def _facts_from(
    conn: Connection, account_id: int, anchor_ms: int
) -> tuple[list[Fact], dict[tuple[str, int], str | None]]:
    """All stored facts from an anchor on, and the stored verdict of each reading among them."""
    of = {"account": account_id, "after_ms": anchor_ms, "from_ms": anchor_ms}
    facts: list[Fact] = []
    known: dict[tuple[str, int], str | None] = {}
    for number, ts_ms, value_wh, verdict in conn.execute(query("readings_after"), of):
        facts.append(Reading(time_ms=ts_ms, wh=value_wh, meter=number))
        known[number, ts_ms] = verdict
    facts.extend(
        TopUp(id=top_up, time_ms=at, amount_micro=amount, channel=channel)
        for top_up, at, amount, channel in conn.execute(query("top_ups_from"), of)
    )
    facts.extend(
        Reversal(top_up=top_up, time_ms=at)
        for top_up, at, _ in conn.execute(query("reversals_from"), of)
    )
    facts.extend(
        EmergencyRequest(time_ms=at)
        for (at,) in conn.execute(query("emergency_requests_from"), of)
    )
    facts.extend(
        exchange
        for exchange in exchanges(installations(conn, account_id))
        if exchange.time_ms > anchor_ms
    )
    return facts, known


def installations(conn: Connection, account_id: int) -> list[tuple[Installation, int | None]]:
    """The meters of an account in order, each with the closing value of the one before it."""
    rows = conn.execute(query("installations_of_account"), {"account": account_id}).fetchall()
    return [
        (
            Installation(
                meter=number,
                opened_at_ms=opened,
                opening_wh=opening,
                max_power_w=power,
                modulus_wh=modulus,
            ),
            closing,
        )
        for number, opened, opening, closing, power, modulus in rows
    ]


def exchanges(series: Sequence[tuple[Installation, int | None]]) -> list[Exchange]:
    """Every installation after the first, as the fact that put it there."""
    return [
        Exchange(time_ms=each.opened_at_ms, closing_wh=closing or 0, installation=each)
        for each, closing in series[1:]
    ]


def _posted_from(
    conn: Connection, account_id: int, anchor_ms: int
) -> tuple[list[Posted], dict[str, int]]:
    """Net legs per key as recorded from an anchor on, and the newest revision of each key."""
    codes = {number: code for code, number in conn.execute(query("ledger_accounts"))}
    first: dict[str, int] = {}
    net: dict[str, dict[str, int]] = {}
    revisions: dict[str, int] = {}
    for row_id, key, revision, legs, amounts in conn.execute(
        query("posted_from"), {"account": account_id, "anchor_ms": anchor_ms}
    ):
        first.setdefault(key, row_id)
        revisions[key] = max(revision, revisions.get(key, 0))
        sums = net.setdefault(key, {})
        for leg, amount in zip(legs, amounts, strict=True):
            sums[codes[leg]] = sums.get(codes[leg], 0) + amount
    posted = [
        Posted(transaction=first[key], key=key, legs=tuple(sorted(sums.items())))
        for key, sums in net.items()
    ]
    return posted, revisions
