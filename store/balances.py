"""Balances of the many who ask at once: one statement on one connection of an event loop.

What comes while a statement is under way goes with the next one, so the more ask, the less each
costs; nobody waits for a thread. Only what is plain is answered here: a caller who may see the
account, terms that are known, no facts beside the account's state. For everything else, and when
the database does not answer, there is no balance, and the caller asks `store.reads` instead, which
also says why something is refused.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
import psycopg
import structlog

from credit_engine.days import DAY_MS
from credit_engine.engine import advance
from credit_engine.position import Position
from credit_engine.terms import Terms
from schemas.errors import DomainError
from store import binary
from store.customer_sessions import IDLE_MS, SEEN_EVERY_MS
from store.day_costs import DayCosts, Finished
from store.forecasts import finished_days
from store.loop_connection import LoopConnection
from store.pool import STATEMENT_TIMEOUT_MS
from store.reads import MAY, Access, Balance, Principal, Supply, balance_of
from store.session import POINT_LOOKUPS
from store.terms import TermsCache

log = structlog.get_logger()

# In one statement; more would keep the first of them waiting for the last.
MOST_AT_ONCE = 64
# After a failure others find out whether the database is back.
PAUSE_S = 1.0
# Sessions in use are noted so long after an answer, or when so many are due: each on its own would
# take as long as a balance.
NOTED_WITHIN_S = 1.0
NOTED_AT_ONCE = 64
_SETTINGS = (
    *POINT_LOOKUPS,
    # The arguments say nothing of how to look them up: it is always by keys.
    "SET plan_cache_mode = force_generic_plan",
    # Of what is written here, which sessions are in use, a crash may take the last.
    "SET synchronous_commit = off",
)
# Readings are kept for forty days at the least: until then the last one is that of the position.
READING_KEPT_MS = 30 * DAY_MS
# Columns of the statement: the asker, his part, the account, its state, newest entry, supply.
_PRINCIPAL = slice(1, 10)
_ACCESS = 10
_ACCOUNT = slice(11, 16)
_STATE = slice(16, 24)
_NEWEST = 24
_SUPPLY = slice(25, 31)


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose key has this digest asks for the account of this number."""

    sha256: bytes
    number: str
    now_ms: int
    wall_ms: int


@dataclass(frozen=True, slots=True)
class SeenBalance:
    """A balance with who sees it."""

    caller: Principal
    account: str
    currency: str
    balance: Balance


class _Plain(NamedTuple):
    """What one statement says of an account about which nothing is out of the ordinary."""

    caller: Principal
    number: str
    currency: str
    agreed: Terms
    position: Position
    settled_until_ms: int
    finished: Finished
    supply: Supply


# What is asked, and where the answer goes.
_Waiting = tuple[Asked, "asyncio.Future[SeenBalance | None]"]


class Balances:
    """Answers of one process; every call comes from one event loop."""

    def __init__(self, url: str, terms: TermsCache) -> None:
        self._url = url
        self._terms = terms
        self._costs = DayCosts()
        self._conn: LoopConnection | None = None
        self._waiting: list[_Waiting] = []
        self._work: asyncio.Task[None] | None = None
        self._away_until_s = 0.0
        # Sessions that were found idle and are used again, and by when.
        self._idle: dict[int, int] = {}
        self._notes_due = False
        self._timer: asyncio.TimerHandle

    async def find(self, asked: Asked) -> SeenBalance | None:
        """A balance; None where there is none to be had in this way."""
        if time.monotonic() < self._away_until_s:
            return None
        answer: asyncio.Future[SeenBalance | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        self._begin()
        return await answer

    async def close(self) -> None:
        """Let what is under way end, and close the connection."""
        if self._work is not None:
            await self._work
        if self._idle:
            await self._touch()
        await self._drop()

    def _begin(self) -> None:
        if self._work is None:
            self._work = asyncio.create_task(self._answer_all())

    async def _answer_all(self) -> None:
        try:
            while self._waiting or self._notes_due:
                batch = self._waiting[:MOST_AT_ONCE]
                del self._waiting[:MOST_AT_ONCE]
                try:
                    if batch:
                        await self._answer_batch(batch)
                    if self._notes_due:
                        await self._touch()
                except Exception:
                    # A defect of ours, which the route may not share.
                    log.exception("balances_not_answered", asked=len(batch))
                finally:
                    # Nobody is left waiting, whatever happened.
                    for _, answer in batch:
                        if not answer.done():
                            answer.set_result(None)
        finally:
            self._work = None

    async def _answer_batch(self, batch: Sequence[_Waiting]) -> None:
        rows = await self._rows([asked for asked, _ in batch])
        unknown: list[tuple[_Plain, _Waiting]] = []
        for place, waiting in enumerate(batch, start=1):
            plain = _plain(self._terms, rows.get(place), waiting[0])
            if plain is None:
                self._settle(waiting, None)
            elif self._costs.of(plain.finished) is None:
                unknown.append((plain, waiting))
            else:
                self._settle(waiting, plain)
        if unknown:
            await self._learn_costs([plain.finished for plain, _ in unknown])
            for plain, waiting in unknown:
                self._settle(waiting, plain)

    def _settle(self, waiting: _Waiting, plain: _Plain | None) -> None:
        asked, answer = waiting
        # Whoever went away meanwhile has taken back what he asked.
        if answer.done():
            return
        seen = None if plain is None else _seen(plain, self._costs.of(plain.finished), asked)
        answer.set_result(seen)
        if seen is not None:
            self._note(seen.caller, asked.wall_ms)

    async def _rows(self, asked: Sequence[Asked]) -> dict[int, tuple[Any, ...]]:
        """By place from 1 on; empty when the database does not answer."""
        of = {
            "sha256s": binary.bytea_array([each.sha256 for each in asked]),
            "numbers": binary.text_array([each.number for each in asked]),
            "wall_ms": binary.bigint(max(each.wall_ms for each in asked)),
            "idle_ms": binary.bigint(IDLE_MS),
        }
        # A connection that was lost while nobody used it is opened again once.
        for _ in range(2):
            fresh = self._conn is None
            try:
                conn = await self._connection()
                rows = await conn.rows("balances_asked_for", of)
                await self._learn(conn, rows)
                return {row[0]: row for row in rows}
            except psycopg.Error:
                await self._drop()
                if fresh:
                    break
        self._away_until_s = time.monotonic() + PAUSE_S
        return {}

    async def _learn(self, conn: LoopConnection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Load the tariffs that are not known yet, each with one account that has it."""
        unknown: dict[tuple[int, str], int] = {}
        for row in rows:
            _, _, tariff, edition, words = row[_ACCOUNT]
            if words is not None and not self._terms.knows(tariff, edition):
                unknown[tariff, edition] = row[_STATE][0]
        if unknown:
            of = {"accounts": binary.int8_array(list(unknown.values()))}
            self._terms.learn(await conn.rows("terms_of_accounts", of))

    async def _learn_costs(self, asked: Sequence[Finished]) -> None:
        """Sum the finished days of accounts of which they are not known as they are now."""
        unknown = {each.account_id: each for each in asked}
        try:
            costs, conn = self._costs, await self._connection()
            of = costs.missing(unknown.values())
            costs.learn(unknown, await conn.rows("costs_of_days", of))
        except psycopg.Error:
            # They stay unknown, and are looked up the long way.
            await self._drop()

    def _note(self, caller: Principal, wall_ms: int) -> None:
        """That a session is used again, some time after the answer: nobody waits for it."""
        if caller.session_id is None or wall_ms - caller.seen_ms < SEEN_EVERY_MS:
            return
        if not self._idle:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(NOTED_WITHIN_S, self._note_now)
        self._idle[caller.session_id] = wall_ms
        self._notes_due |= len(self._idle) >= NOTED_AT_ONCE

    def _note_now(self) -> None:
        self._notes_due = True
        self._begin()

    async def _touch(self) -> None:
        idle, self._idle, self._notes_due = self._idle, {}, False
        self._timer.cancel()
        of = {
            "sessions": binary.int8_array(list(idle)),
            "wall_ms": binary.bigint(max(idle.values())),
        }
        try:
            conn = await self._connection()
            await conn.rows("touch_customer_sessions", of)
        except psycopg.Error:
            # Found idle once more, they are noted with the next request.
            await self._drop()

    async def _connection(self) -> LoopConnection:
        if self._conn is None:
            # Another server may have lost what this one told.
            self._costs = DayCosts()
            self._conn = await LoopConnection.open(
                self._url, "prepaid-api", _SETTINGS, STATEMENT_TIMEOUT_MS
            )
        return self._conn

    async def _drop(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            await conn.close()


def _plain(terms: TermsCache, row: tuple[Any, ...] | None, asked: Asked) -> _Plain | None:
    if row is None:
        return None
    caller = Principal(*row[_PRINCIPAL])
    access: Access | None = row[_ACCESS]
    if caller.person_id is not None and (access is None or "see" not in MAY[access]):
        return None
    number, currency, tariff, edition, words = row[_ACCOUNT]
    try:
        agreed = None if words is None else terms.agreed(tariff, edition, words)
    except DomainError:
        agreed = None
    if agreed is None:
        return None
    account_id, stored, numbers, anchor_ms, balance_micro, *rest = row[_STATE]
    opened_ms, has_tail, settled_until_ms = rest
    position = Position.from_json(orjson.loads(stored))
    if numbers is not None:
        position = position.moved(anchor_ms, balance_micro, numbers)
    # With facts after it the position does not say all.
    supply = None if has_tail else _supply(position, anchor_ms, row[_SUPPLY], asked.now_ms)
    if supply is None:
        return None
    days, _ = finished_days(agreed, position.register_at_ms, opened_ms)
    finished = Finished(account_id, row[_NEWEST], days, agreed.tariff)
    return _Plain(caller, number, currency, agreed, position, settled_until_ms, finished, supply)


def _supply(at: Position, anchor_ms: int, heard: Sequence[Any], now_ms: int) -> Supply | None:
    """The meter's side; None where its newest reading is not that of the position."""
    meter = at.installation
    number, desired, reported, reported_ms, online, seen_ms = heard
    if at.register_at_ms != anchor_ms or number != meter.meter_id:
        return None
    last: tuple[int, int] | tuple[None, None] = (None, None)
    if at.register_at_ms > meter.opened_at_ms:
        if at.register_at_ms < now_ms - READING_KEPT_MS:
            return None
        last = at.register_at_ms, at.register_wh
    return Supply(number, desired, reported, reported_ms, online, seen_ms, *last)


def _seen(plain: _Plain, costs: Sequence[int] | None, asked: Asked) -> SeenBalance | None:
    if costs is None:
        # Posted to between two statements: whoever asks the long way is told of one instant.
        return None
    until_ms = max(asked.now_ms, plain.settled_until_ms)
    try:
        outcome = advance(plain.agreed, plain.position, (), until_ms)
        found = balance_of(plain.agreed, outcome, costs, plain.supply)
    except DomainError:
        # Whoever asks the long way is told.
        return None
    return SeenBalance(plain.caller, plain.number, plain.currency, found)
