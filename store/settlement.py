"""Brings accounts up to date inside one database transaction: facts in, ledger rows out.

The caller holds the lock of the accounts' state rows. In the common case - a reading after all
others, nothing else since the anchor - an account costs no query here. Otherwise the facts since
a stored position are rated again, and the difference to what is posted is posted: nothing in the
ledger is edited. The ledger must then agree with the engine to the micro-unit, or the transaction
fails (SettlementError): a wrong balance is never committed.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
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
from credit_engine.tariff import parse_account, parse_tariff
from credit_engine.terms import Tariff, Terms
from schemas.quantities import format_instant
from store.binary import Bools, Column, Int8s, Texts
from store.errors import StoreError
from store.facts import Place, installations, stored_facts
from store.ledger import LedgerRow, Recorded, recorded_from, rows_to_write, write_ledger
from store.sql import query

# Where a late fact makes us rate more than so many facts again, a position is kept before the last
# readings, so that the next one need not: two days of quarters of an hour.
RATED_AGAIN_MAX = 192
# A reading that is late is rarely later than so many others.
LATE_READINGS = 48


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


@dataclass(slots=True)
class PositionCache:
    """Positions by the text that they are stored as: one that this worker wrote is not read anew.

    Equal texts are equal positions, so nothing that others write can make this wrong.
    """

    limit: int = 100_000
    _kept: dict[int, tuple[str, Position]] = field(default_factory=dict)

    def get(self, account_id: int, stored: str) -> Position:
        kept = self._kept.get(account_id)
        if kept is not None and kept[0] == stored:
            return kept[1]
        return Position.from_json(orjson.loads(stored))

    def text(self, account_id: int, position: Position) -> str:
        """The text to store, kept with what it says."""
        if len(self._kept) >= self.limit:
            self._kept.clear()
        stored = position_text(position)
        self._kept[account_id] = stored, position
        return stored


@dataclass(slots=True)
class TermsCache:
    """Parsed terms by account, kept by a worker until the account's revision moves on.

    Accounts whose tariffs read the same share one parsed tariff, and with it its worked-out days;
    those whose terms read the same share these, too.
    """

    limit: int = 200_000
    positions: PositionCache = field(default_factory=PositionCache)
    _terms: dict[int, tuple[int, Terms]] = field(default_factory=dict)
    _tariffs: dict[bytes, Tariff] = field(default_factory=dict)
    _agreed: dict[tuple[bytes, str], Terms] = field(default_factory=dict)
    # Digests by tariff and edition, as `terms_of_accounts` has them.
    _shared: dict[tuple[int, str], bytes] = field(default_factory=dict)

    def get(self, conn: Connection, account_id: int, revision: int) -> Terms:
        kept = self._terms.get(account_id)
        if kept is not None and kept[0] == revision:
            return kept[1]
        self._load(conn, {account_id: revision})
        return self._terms[account_id][1]

    def prepare(self, conn: Connection, states: Iterable[AccountState]) -> None:
        """Load what is not known of a batch's accounts at once."""
        missing = {
            state.account_id: state.terms_revision
            for state in states
            if self._terms.get(state.account_id, (None,))[0] != state.terms_revision
        }
        if missing:
            self._load(conn, missing)

    def knows(self, tariff: int, edition: str) -> bool:
        """Whether this edition of a tariff was learnt with any account."""
        return (tariff, edition) in self._shared

    def agreed(self, tariff: int, edition: str, terms: str) -> Terms | None:
        """The terms that read so under an edition of a tariff; None for an unknown one."""
        digest = self._shared.get((tariff, edition))
        return None if digest is None else self._parse(digest, terms)

    def _load(self, conn: Connection, revisions: Mapping[int, int]) -> None:
        found = conn.execute(
            query("terms_of_accounts"), {"accounts": Int8s(list(revisions))}
        ).fetchall()
        if len(found) != len(revisions):
            lost = revisions.keys() - {row[0] for row in found}
            raise SettlementError(min(lost), "it has no terms")
        if len(self._terms) + len(revisions) > self.limit:
            self._terms.clear()
        for account_id, agreed in self.learn(found).items():
            self._terms[account_id] = (revisions[account_id], agreed)

    def learn(self, found: Iterable[Sequence[Any]]) -> dict[int, Terms]:
        """The terms by account of rows of `terms_of_accounts`; what they share is kept."""
        parsed: dict[str, bytes] = {}
        learnt: dict[int, Terms] = {}
        for account_id, tariff, agreed, shared, edition in found:
            digest = parsed.get(tariff)
            if digest is None:
                digest = parsed[tariff] = self._parse_tariff(tariff)
            if shared is not None:
                self._shared[shared, edition] = digest
            learnt[account_id] = self._parse(digest, agreed)
        return learnt

    def _parse(self, digest: bytes, agreed: str) -> Terms:
        terms = self._agreed.get((digest, agreed))
        if terms is None:
            if len(self._agreed) >= self.limit:
                self._agreed.clear()
            terms = parse_account(orjson.loads(agreed), self._tariffs[digest])
            self._agreed[digest, agreed] = terms
        return terms

    def _parse_tariff(self, text: str) -> bytes:
        form = orjson.loads(text)
        digest = hashlib.sha256(orjson.dumps(form, option=orjson.OPT_SORT_KEYS)).digest()
        if digest not in self._tariffs:
            self._tariffs[digest] = parse_tariff(form)
        return digest


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
    """Rate new facts of one account up to now, whatever their order.

    `readings` are new and not in the tables yet. Facts of other kinds are in the tables already:
    `touched_from_ms` is the earliest instant that they touch. Time alone needs neither.
    """
    agreed = terms.get(conn, state.account_id, state.terms_revision)
    until_ms = max([now_ms, state.settled_until_ms, *(reading.at_ms for reading in readings)])
    in_order = (
        touched_from_ms is None
        and not state.has_tail
        and all(
            reading.at_ms > max(state.newest_reading_ms, state.anchor_ms) for reading in readings
        )
    )
    if in_order:
        outcome = advance(agreed, state.position, readings, until_ms)
        return _conclude(state, agreed, readings, outcome, Recorded(), {}, state.position)
    touched = [reading.at_ms for reading in readings]
    if touched_from_ms is not None:
        touched.append(touched_from_ms)
    start = position_before(conn, state, min(touched, default=None))
    stored, known = stored_facts(conn, state.account_id, start.at_ms)
    # Readings before exchanges: a closing value that a reading says, too, is that reading.
    facts: list[Fact] = [*readings, *stored]
    until_ms = max([until_ms, *(fact.at_ms for fact in facts)])
    outcome = advance(agreed, start, facts, until_ms, keep_at=_worth_keeping(facts))
    recorded = recorded_from(conn, state.account_id, start.at_ms)
    return _conclude(state, agreed, facts, outcome, recorded, known, start)


def _worth_keeping(facts: Sequence[Fact]) -> Collection[int]:
    """Where the next late fact may begin. A meter that speaks each minute says a thousand readings
    and more after the first of a day, and all would be rated again for each late one.
    """
    if len(facts) <= RATED_AGAIN_MAX:
        return ()
    instants = sorted(fact.at_ms for fact in facts if isinstance(fact, Reading))
    return instants[-LATE_READINGS:][:1]


def look(conn: Connection, terms: TermsCache, state: AccountState, at_ms: int) -> Outcome:
    """The account as of an instant not before its last settlement, without writing anything."""
    agreed = terms.get(conn, state.account_id, state.terms_revision)
    facts: list[Fact] = []
    if state.has_tail:
        facts, _ = stored_facts(conn, state.account_id, state.position.at_ms)
    until_ms = max([at_ms, state.settled_until_ms, *(fact.at_ms for fact in facts)])
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
    agreed = terms.get(conn, state.account_id, state.terms_revision)
    if from_genesis:
        start = genesis(agreed, installations(conn, state.account_id)[0][0])
    else:
        start = position_before(conn, state, until_ms)
    facts, _ = stored_facts(conn, state.account_id, start.at_ms)
    return advance(agreed, start, facts, until_ms)


def position_before(conn: Connection, state: AccountState, earliest_ms: int | None) -> Position:
    """The newest stored position before an instant; None: the newest of all."""
    if earliest_ms is None or earliest_ms > state.anchor_ms:
        return state.position
    row = conn.execute(
        query("checkpoint_before"), {"account": state.account_id, "before_ms": earliest_ms}
    ).fetchone()
    if row is None:
        raise SettlementError(
            state.account_id,
            f"nothing is kept to rate again from before {format_instant(earliest_ms)}: enter what "
            "is owed as an adjustment",
        )
    return Position.from_json(row[0])


def _conclude(
    state: AccountState,
    terms: Terms,
    facts: Sequence[Fact],
    outcome: Outcome,
    recorded: Recorded,
    known: Mapping[Place, str | None],
    start: Position,
) -> Settled:
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
    Bools: ("has_tail", "emergency_in_use", "low_credit"),
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
    for each in settled:
        if each.rated_from.at_ms != each.before.position.at_ms:
            conn.execute(
                query("drop_checkpoints_after"),
                {"account": each.state.account_id, "after_ms": each.rated_from.at_ms},
            )
    kept = [
        (each.state.account_id, point) for each in settled for point in each.outcome.checkpoints
    ]
    if kept:
        conn.execute(
            query("keep_checkpoints"),
            {
                "accounts": Int8s([account for account, _ in kept]),
                "anchors": Int8s([point.at_ms for _, point in kept]),
                "positions": Texts([position_text(point) for _, point in kept]),
            },
        )


def position_text(position: Position) -> str:
    """As it is stored: JSON, kept to the letter."""
    return orjson.dumps(position.to_json()).decode()
