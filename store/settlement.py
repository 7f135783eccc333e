"""Brings accounts up to date inside one database transaction: facts in, ledger rows out.

The caller holds the lock of the accounts' state rows. In the common case - a reading after all
others, nothing else since the anchor - an account costs no query here. Otherwise the facts since
a stored position are rated again, and the difference to what is posted is posted: nothing in the
ledger is edited. The ledger must then agree with the engine to the micro-unit, or the transaction
fails (SettlementError): a wrong balance is never committed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from credit_engine.engine import advance
from credit_engine.facts import (
    Exchange,
    Fact,
    Reading,
)
from credit_engine.outcome import Outcome, Supply
from credit_engine.position import Position, genesis
from credit_engine.settlement import settle
from credit_engine.terms import Terms
from schemas.quantities import format_instant
from store.binary import Bools, Column, Int8s, Texts
from store.errors import SettlementError
from store.facts import Place, installations, stored_facts
from store.ledger import LedgerRow, Recorded, recorded_from, rows_to_write, write_ledger
from store.positions import (
    PositionCache,
    drop_positions_after,
    keep_positions,
    positions_before,
    worth_keeping,
)
from store.sql import query
from store.terms import TermsCache

# Accounts whose stored facts are held in memory at once: of each perhaps a day, minute by minute.
LATE_AT_ONCE = 250


@dataclass(frozen=True, slots=True)
class AccountState:
    """The row of `account_state`: what the engine knows at the anchor and what follows from it."""

    account_id: int
    position: Position
    anchor_ms: int
    opened_ms: int
    newest_reading_ms: int
    has_tail: bool
    settled_until_ms: int
    due_ms: int
    balance_micro: int
    debt_micro: int
    supply: Supply
    emergency_in_use: bool
    terms_revision: int
    # what store.decisions keeps: the threshold of the warning, and on which side the account is
    low_credit_micro: int
    low_credit: bool
    decided_supply: Supply
    decisions: int
    # warned too when the balance lasts so many days: what they are expected to cost, and until when
    # that stands (store.forecasts)
    low_credit_days: int | None
    expected_micro: int
    expected_until_ms: int
    # by replayed readings alone, which are no cause to tell it: what is settled next does
    zero_waits: bool
    emergency_waits: bool


@dataclass(frozen=True, slots=True)
class News:
    """What is to be rated of one account, in any order.

    `readings` are new and not in the tables yet. Facts of other kinds are in the tables already:
    `touched_from_ms` is the earliest instant that they touch. Time alone needs neither. `gap`: some
    readings before these did not come; they may still, and will be late.
    """

    state: AccountState
    readings: Sequence[Reading] = ()
    touched_from_ms: int | None = None
    gap: bool = False

    def in_order(self) -> bool:
        """Whether all of it comes after everything that is rated."""
        state = self.state
        newest_ms = max(state.newest_reading_ms, state.anchor_ms)
        return (
            self.touched_from_ms is None
            and not state.has_tail
            and all(reading.at_ms > newest_ms for reading in self.readings)
        )

    def earliest_ms(self) -> int | None:
        """The earliest instant that anything new touches."""
        touched = [reading.at_ms for reading in self.readings]
        if self.touched_from_ms is not None:
            touched.append(self.touched_from_ms)
        return min(touched, default=None)


@dataclass(frozen=True, slots=True)
class Settled:
    """The answer for one account: its new state and what has to be written for it."""

    before: AccountState
    state: AccountState
    outcome: Outcome
    terms: Terms
    rows: tuple[LedgerRow, ...]
    verdicts: Mapping[Place, str]
    # readings that were stored with another verdict than they have now
    judged_otherwise: Mapping[Place, str]
    # checkpoints after this one are overtaken by a late fact
    rated_from: Position
    # positions that late facts may be rated from
    kept: tuple[Position, ...]


def lock_accounts(
    conn: Connection, account_ids: Iterable[int], positions: PositionCache | None = None
) -> dict[int, AccountState]:
    """Lock and read the states of these accounts; the lock lasts until the transaction ends."""
    wanted = {"accounts": Int8s(sorted(account_ids))}
    rows = conn.execute(query("lock_accounts"), wanted).fetchall()
    kept = positions or PositionCache()
    return {row[0]: state_of(row, kept) for row in rows}


def lock_due_accounts(conn: Connection, now_ms: int, limit: int) -> dict[int, AccountState]:
    """Lock accounts whose schedule is due; those locked by others are left to them."""
    rows = conn.execute(query("lock_due_accounts"), {"now_ms": now_ms, "limit": limit}).fetchall()
    kept = PositionCache()
    return {row[0]: state_of(row, kept) for row in rows}


def read_account(conn: Connection, account_id: int) -> AccountState | None:
    """The state of one account without its lock, for looking only."""
    row = conn.execute(query("read_account_state"), {"account": account_id}).fetchone()
    return None if row is None else state_of(row, PositionCache())


# Places among the columns that follow the numbers.
_ANCHOR, _BALANCE = 0, 6


def state_of(row: Sequence[Any], positions: PositionCache) -> AccountState:
    """The columns of `account_state`: id, position, numbers, then the fields in their order."""
    account_id, stored, numbers, *rest = row
    position = positions.get(account_id, stored)
    if numbers is not None:
        position = position.moved(rest[_ANCHOR], rest[_BALANCE], numbers)
    return AccountState(account_id, position, *rest)


def settle_account(
    conn: Connection,
    terms: TermsCache,
    state: AccountState,
    readings: Sequence[Reading],
    now_ms: int,
    *,
    touched_from_ms: int | None = None,
) -> Settled:
    """Rate what is new of one account up to now; see `News`."""
    return settle_accounts(conn, terms, [News(state, readings, touched_from_ms)], now_ms)[0]


def settle_accounts(
    conn: Connection, terms: TermsCache, news: Sequence[News], now_ms: int
) -> list[Settled]:
    """Rate what is new of these accounts up to now. Where that is late, what is stored of them is
    read for many at once.
    """
    terms.prepare(conn, {each.state.account_id: each.state.terms_revision for each in news})
    settled: dict[int, Settled] = {}
    late: list[News] = []
    for each in news:
        state = each.state
        if not each.in_order():
            late.append(each)
            continue
        agreed = terms.get(conn, state.account_id, state.terms_revision)
        until_ms = _until(state, each.readings, now_ms)
        outcome = advance(agreed, state.position, each.readings, until_ms)
        settled[state.account_id] = _conclude(
            each, agreed, each.readings, outcome, Recorded(), {}, state.position
        )
    for first in range(0, len(late), LATE_AT_ONCE):
        settled |= _settle_late(conn, terms, late[first : first + LATE_AT_ONCE], now_ms)
    return [settled[each.state.account_id] for each in news]


def _settle_late(
    conn: Connection, terms: TermsCache, news: Sequence[News], now_ms: int
) -> dict[int, Settled]:
    starts = _starts(conn, [(each.state, each.earliest_ms()) for each in news])
    anchors = {account: start.at_ms for account, start in starts.items()}
    stored = stored_facts(conn, anchors)
    recorded = recorded_from(conn, anchors)
    settled: dict[int, Settled] = {}
    for each in news:
        account = each.state.account_id
        agreed = terms.get(conn, account, each.state.terms_revision)
        start, (of_old, known) = starts[account], stored[account]
        # Readings before exchanges: a closing value that a reading says, too, is that reading.
        facts: list[Fact] = [*each.readings, *of_old]
        until_ms = _until(each.state, facts, now_ms)
        keep_at = worth_keeping(facts, each.earliest_ms() or until_ms)
        outcome = advance(agreed, start, facts, until_ms, keep_at=keep_at)
        settled[account] = _conclude(each, agreed, facts, outcome, recorded[account], known, start)
    return settled


def _until(state: AccountState, facts: Iterable[Fact], now_ms: int) -> int:
    return max([now_ms, state.settled_until_ms, *(fact.at_ms for fact in facts)])


def look(conn: Connection, terms: TermsCache, state: AccountState, at_ms: int) -> Outcome:
    """The account as of an instant not before its last settlement, without writing anything."""
    agreed = terms.get(conn, state.account_id, state.terms_revision)
    facts: list[Fact] = []
    if state.has_tail:
        account = state.account_id
        facts = stored_facts(conn, {account: state.position.at_ms})[account].facts
    until_ms = _until(state, facts, at_ms)
    return advance(agreed, state.position, facts, until_ms)


def rate_from_books(
    conn: Connection,
    terms: TermsCache,
    state: AccountState,
    until_ms: int,
    *,
    from_genesis: bool = False,
) -> Outcome:
    """The account at any instant, from all facts since the nearest stored position before it."""
    account = state.account_id
    agreed = terms.get(conn, account, state.terms_revision)
    if from_genesis:
        start = genesis(agreed, installations(conn, [account])[account][0][0])
    else:
        start = position_before(conn, state, until_ms)
    facts = stored_facts(conn, {account: start.at_ms})[account].facts
    return advance(agreed, start, facts, until_ms)


def position_before(conn: Connection, state: AccountState, earliest_ms: int | None) -> Position:
    """The newest stored position before an instant; None: the newest of all."""
    return _starts(conn, [(state, earliest_ms)])[state.account_id]


def _starts(
    conn: Connection, wanted: Iterable[tuple[AccountState, int | None]]
) -> dict[int, Position]:
    """By account; see `position_before`."""
    starts: dict[int, Position] = {}
    older: dict[int, int] = {}
    for state, earliest_ms in wanted:
        if earliest_ms is None or earliest_ms > state.anchor_ms:
            starts[state.account_id] = state.position
        else:
            older[state.account_id] = earliest_ms
    starts |= positions_before(conn, older)
    for account, earliest_ms in older.items():
        if account not in starts:
            raise SettlementError(
                account,
                f"nothing is kept to rate again from before {format_instant(earliest_ms)}: enter "
                "what is owed as an adjustment",
            )
    return starts


def _conclude(
    news: News,
    terms: Terms,
    facts: Sequence[Fact],
    outcome: Outcome,
    recorded: Recorded,
    known: Mapping[Place, str | None],
    start: Position,
) -> Settled:
    state = news.state
    rows = rows_to_write(
        state.account_id, state.balance_micro, settle(recorded.posted, outcome.postings), recorded
    )
    status, position = outcome.status, outcome.position
    balance_micro = rows[-1].balance_micro if rows else state.balance_micro
    if balance_micro != status.balance_micro:
        raise SettlementError(
            state.account_id,
            f"the ledger comes to {balance_micro} µ, the engine to {status.balance_micro}",
        )
    verdicts: dict[Place, str] = {
        (verdict.meter_id, verdict.at_ms): verdict.judgement
        for verdict in outcome.verdicts
        if isinstance(verdict.fact, Reading) and verdict.judgement not in {"duplicate", "conflict"}
    }
    newest_reading_ms = max(
        (fact.at_ms for fact in facts if isinstance(fact, Reading)), default=state.newest_reading_ms
    )
    return Settled(
        before=state,
        state=AccountState(
            account_id=state.account_id,
            position=position,
            anchor_ms=position.at_ms,
            opened_ms=state.opened_ms,
            newest_reading_ms=max(state.newest_reading_ms, newest_reading_ms),
            has_tail=has_tail(facts, outcome),
            settled_until_ms=status.at_ms,
            due_ms=NEVER_MS if status.next_change_ms is None else status.next_change_ms,
            balance_micro=status.balance_micro,
            debt_micro=status.debt_outstanding_micro,
            supply=status.supply,
            emergency_in_use=status.emergency_in_use,
            terms_revision=state.terms_revision,
            low_credit_micro=state.low_credit_micro,
            low_credit=state.low_credit,
            decided_supply=state.decided_supply,
            decisions=state.decisions,
            low_credit_days=state.low_credit_days,
            expected_micro=state.expected_micro,
            expected_until_ms=state.expected_until_ms,
            zero_waits=state.zero_waits,
            emergency_waits=state.emergency_waits,
        ),
        outcome=outcome,
        terms=terms,
        rows=rows,
        verdicts=verdicts,
        judged_otherwise={
            place: word
            for place, word in verdicts.items()
            if place in known and known[place] != word
        },
        rated_from=start,
        kept=(start, *outcome.checkpoints) if news.gap else outcome.checkpoints,
    )


def has_tail(facts: Sequence[Fact], outcome: Outcome) -> bool:
    """Whether something at or after the new anchor must be rated with the next reading."""
    anchor_ms = outcome.position.at_ms
    return any(
        fact.at_ms > anchor_ms
        or (fact.at_ms == anchor_ms and not isinstance(fact, Reading | Exchange))
        for fact in facts
    ) or any(
        posting.at_ms > anchor_ms or (posting.at_ms == anchor_ms and posting.kind != "energy")
        for posting in outcome.postings
    )


# The largest instant of the database's bigint column: time alone changes nothing any more.
NEVER_MS = 2**62


def write(
    conn: Connection, settled: Sequence[Settled], now_ms: int, positions: PositionCache
) -> None:
    """Write what settling gave, for a whole batch: ledger, states, checkpoints, verdicts.

    Only `store.decisions.record` calls this: a settlement and what it decides are one.
    """
    rows = [row for each in settled for row in each.rows]
    if rows:
        write_ledger(conn, rows, now_ms)
    if settled:
        _write_states(conn, settled, positions)
    _write_checkpoints(conn, settled)
    changed = {place: word for each in settled for place, word in each.judged_otherwise.items()}
    if changed:
        conn.execute(
            query("update_verdicts"),
            {
                "meters": [number for number, _ in changed],
                "ts": [ts_ms for _, ts_ms in changed],
                "verdicts": list(changed.values()),
                "first_ms": min(ts_ms for _, ts_ms in changed),
                "last_ms": max(ts_ms for _, ts_ms in changed),
            },
            prepare=False,
        )


_STATE_COLUMNS: dict[type[Column[Any]], tuple[str, ...]] = {
    Int8s: (
        "account_id",
        "anchor_ms",
        "newest_reading_ms",
        "settled_until_ms",
        "due_ms",
        "balance_micro",
        "debt_micro",
        "decisions",
    ),
    Texts: ("supply", "decided_supply"),
    Bools: ("has_tail", "emergency_in_use", "low_credit", "zero_waits", "emergency_waits"),
}


def _write_states(conn: Connection, settled: Sequence[Settled], positions: PositionCache) -> None:
    states = [each.state for each in settled]
    columns: dict[str, Column[Any]] = {
        name: kind([getattr(state, name) for state in states])
        for kind, names in _STATE_COLUMNS.items()
        for name in names
    }
    columns["position"] = Texts(
        [positions.text(state.account_id, state.position) for state in states]
    )
    conn.execute(query("update_accounts"), columns)


def _write_checkpoints(conn: Connection, settled: Sequence[Settled]) -> None:
    overtaken = {
        each.state.account_id: each.rated_from.at_ms
        for each in settled
        if each.rated_from.at_ms != each.before.position.at_ms
    }
    drop_positions_after(conn, overtaken)
    keep_positions(
        conn, ((each.state.account_id, point) for each in settled for point in each.kept)
    )
