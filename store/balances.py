"""Balances of the many who ask at once: one statement on one connection of an event loop.

What comes while a statement is under way goes with the next one, so the more ask, the less each
costs; nobody waits for a thread. Only what is plain is answered here: a caller who may see the
account, terms that are known, no facts beside the account's state. For everything else, and when
the database does not answer, there is no balance, and the caller asks `store.reads` instead, which
also says why something is refused.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
import structlog
from psycopg import AsyncConnection

from credit_engine.days import DAY_MS
from credit_engine.engine import advance
from credit_engine.terms import Terms
from schemas.errors import DomainError
from store.customer_sessions import IDLE_MS, SEEN_EVERY_MS
from store.day_costs import DayCosts, Finished
from store.forecasts import finished_days
from store.pool import CONNECT_TIMEOUT_S, STATEMENT_TIMEOUT_MS
from store.positions import PositionCache
from store.reads import MAY, Access, Balance, Principal, Supply, balance_of
from store.session import NOTICE_SILENCE, POINT_LOOKUPS
from store.settlement import AccountState, state_of
from store.sql import query
from store.terms import TermsCache

log = structlog.get_logger()

# In one statement; more would keep the first of them waiting for the last.
MOST_AT_ONCE = 64
# After a failure others find out whether the database is back.
PAUSE_S = 1.0
# Readings are kept for forty days at the least: until then the last one is that of the position.
READING_KEPT_MS = 30 * DAY_MS
# Columns of the statement: the asker, his part, the account, its state, newest entry, supply.
_PRINCIPAL = slice(1, 10)
_ACCESS = 10
_ACCOUNT = slice(11, 16)
_STATE = slice(16, 37)
_NEWEST = 37
_SUPPLY = slice(38, 44)


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
    state: AccountState
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
        self._conn: AsyncConnection[Any] | None = None
        self._waiting: list[_Waiting] = []
        self._work: asyncio.Task[None] | None = None
        self._away_until_s = 0.0

    async def find(self, asked: Asked) -> SeenBalance | None:
        """A balance; None where there is none to be had in this way."""
        if time.monotonic() < self._away_until_s:
            return None
        answer: asyncio.Future[SeenBalance | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if self._work is None:
            self._work = asyncio.create_task(self._answer_all())
        return await answer

    async def close(self) -> None:
        """Let what is under way end, and close the connection."""
        if self._work is not None:
            await self._work
        await self._drop()

    async def _answer_all(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[:MOST_AT_ONCE]
                del self._waiting[:MOST_AT_ONCE]
                try:
                    await self._answer_batch(batch)
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
        plain = [
            _plain(self._terms, rows.get(place), asked)
            for place, (asked, _) in enumerate(batch, start=1)
        ]
        await self._learn_costs([each.finished for each in plain if each is not None])
        idle: dict[int, int] = {}
        for each, (asked, answer) in zip(plain, batch, strict=True):
            # Whoever went away meanwhile has taken back what he asked.
            if answer.done():
                continue
            seen = None if each is None else _seen(each, self._costs.of(each.finished), asked)
            answer.set_result(seen)
            if seen is not None and _is_to_be_touched(seen.caller, asked.wall_ms):
                idle[seen.caller.session_id or 0] = asked.wall_ms
        if idle:
            await self._touch(idle)

    async def _rows(self, asked: Sequence[Asked]) -> dict[int, tuple[Any, ...]]:
        """By place from 1 on; empty when the database does not answer."""
        of = {
            "sha256s": [each.sha256 for each in asked],
            "numbers": [each.number for each in asked],
            "wall_ms": max(each.wall_ms for each in asked),
            "idle_ms": IDLE_MS,
        }
        # A connection that was lost while nobody used it is opened again once.
        for _ in range(2):
            fresh = self._conn is None
            try:
                conn = await self._connection()
                found = await conn.execute(
                    query("balances_asked_for"), of, prepare=True, binary=True
                )
                rows = await found.fetchall()
                await self._learn(conn, rows)
                return {row[0]: row for row in rows}
            except psycopg.Error:
                await self._drop()
                if fresh:
                    break
        self._away_until_s = time.monotonic() + PAUSE_S
        return {}

    async def _learn(self, conn: AsyncConnection[Any], rows: Sequence[tuple[Any, ...]]) -> None:
        """Load the tariffs that are not known yet, each with one account that has it."""
        unknown: dict[tuple[int, str], int] = {}
        for row in rows:
            _, _, tariff, edition, words = row[_ACCOUNT]
            if words is not None and not self._terms.knows(tariff, edition):
                unknown[tariff, edition] = row[_STATE][0]
        if unknown:
            of = {"accounts": list(unknown.values())}
            found = await conn.execute(query("terms_of_accounts"), of)
            self._terms.learn(await found.fetchall())

    async def _learn_costs(self, asked: Sequence[Finished]) -> None:
        """Sum the finished days of accounts of which they are not known as they are now."""
        unknown = {each.account_id: each for each in asked if self._costs.of(each) is None}
        if not unknown:
            return
        of = self._costs.missing(unknown.values())
        try:
            costs, conn = self._costs, await self._connection()
            found = await conn.execute(query("costs_of_days"), of, prepare=True, binary=True)
            costs.learn(unknown, await found.fetchall())
        except psycopg.Error:
            # They stay unknown, and are looked up the long way.
            await self._drop()

    async def _touch(self, sessions: Mapping[int, int]) -> None:
        """Sessions that are used again, after their answers: nobody waits for it."""
        of = {"sessions": list(sessions), "wall_ms": max(sessions.values())}
        try:
            conn = await self._connection()
            await conn.execute(query("touch_customer_sessions"), of, prepare=True)
        except psycopg.Error:
            # Found idle once more, they are noted with the next request.
            await self._drop()

    async def _connection(self) -> AsyncConnection[Any]:
        if self._conn is None:
            # Another server may have lost what this one told.
            self._costs = DayCosts()
            self._conn = await AsyncConnection.connect(
                self._url,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_S,
                application_name="prepaid-api",
                **NOTICE_SILENCE,
            )
            for setting in POINT_LOOKUPS:
                await self._conn.execute(setting)
            # The arguments say nothing of how to look them up: it is always by keys.
            for name, value in (
                ("plan_cache_mode", "force_generic_plan"),
                # Of what is written here, which sessions are in use, a crash may take the last.
                ("synchronous_commit", "off"),
                ("statement_timeout", f"{STATEMENT_TIMEOUT_MS}ms"),
            ):
                await self._conn.execute("SELECT set_config(%s, %s, false)", (name, value))
        return self._conn

    async def _drop(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            await conn.close()


def _is_to_be_touched(caller: Principal, wall_ms: int) -> bool:
    return caller.session_id is not None and wall_ms - caller.seen_ms >= SEEN_EVERY_MS


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
    state = state_of(row[_STATE], PositionCache())
    supply = _supply(state, row[_SUPPLY], asked.now_ms)
    if supply is None:
        return None
    days, _ = finished_days(agreed, state)
    finished = Finished(state.account_id, row[_NEWEST], days, agreed.tariff)
    return _Plain(caller, number, currency, agreed, state, finished, supply)


def _supply(state: AccountState, heard: Sequence[Any], now_ms: int) -> Supply | None:
    """The meter's side; None where its newest reading is not that of the position."""
    at, meter = state.position, state.position.installation
    number, desired, reported, reported_ms, online, seen_ms = heard
    if state.has_tail or at.register_at_ms != state.anchor_ms or number != meter.meter_id:
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
    until_ms = max(asked.now_ms, plain.state.settled_until_ms)
    try:
        outcome = advance(plain.agreed, plain.state.position, (), until_ms)
        found = balance_of(plain.agreed, outcome, costs, plain.supply)
    except DomainError:
        # Whoever asks the long way is told.
        return None
    return SeenBalance(plain.caller, plain.number, plain.currency, found)
