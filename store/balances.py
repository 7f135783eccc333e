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
from datetime import date, timedelta
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection

from credit_engine.engine import advance
from schemas.errors import DomainError
from store.customer_sessions import IDLE_MS, SEEN_EVERY_MS
from store.forecasts import usage_among
from store.pool import CONNECT_TIMEOUT_S, STATEMENT_TIMEOUT_MS
from store.positions import PositionCache
from store.reads import MAY, Access, Balance, Principal, Supply, balance_of
from store.session import NOTICE_SILENCE, POINT_LOOKUPS
from store.settlement import state_of
from store.sql import query
from store.terms import TermsCache

log = structlog.get_logger()

# In one statement; more would keep the first of them waiting for the last.
MOST_AT_ONCE = 64
# After a failure others find out whether the database is back.
PAUSE_S = 1.0
_EPOCH = date(1970, 1, 1)
# Columns of the statement: the asker, his part, the account, its state, days, supply.
_PRINCIPAL = slice(1, 10)
_ACCESS = 10
_ACCOUNT = slice(11, 16)
_STATE = slice(16, 37)
_DAYS = slice(37, 40)
_SUPPLY = slice(40, 48)


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


# What is asked, and where the answer goes.
_Waiting = tuple[Asked, "asyncio.Future[SeenBalance | None]"]


class Balances:
    """Answers of one process; every call comes from one event loop."""

    def __init__(self, url: str, terms: TermsCache) -> None:
        self._url = url
        self._terms = terms
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
        idle: dict[int, int] = {}
        for place, (asked, answer) in enumerate(batch, start=1):
            # Whoever went away meanwhile has taken back what he asked.
            if not answer.done():
                seen = _settle(answer, self._terms, rows.get(place), asked)
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


def _settle(
    answer: "asyncio.Future[SeenBalance | None]",
    terms: TermsCache,
    row: tuple[Any, ...] | None,
    asked: Asked,
) -> SeenBalance | None:
    try:
        seen = None if row is None else _seen(terms, row, asked)
    except DomainError:
        # Whoever asks the long way is told.
        seen = None
    answer.set_result(seen)
    return seen


def _is_to_be_touched(caller: Principal, wall_ms: int) -> bool:
    return caller.session_id is not None and wall_ms - caller.seen_ms >= SEEN_EVERY_MS


def _seen(terms: TermsCache, row: tuple[Any, ...], asked: Asked) -> SeenBalance | None:
    caller = Principal(*row[_PRINCIPAL])
    access: Access | None = row[_ACCESS]
    if caller.person_id is not None and (access is None or "see" not in MAY[access]):
        return None
    number, currency, tariff, edition, words = row[_ACCOUNT]
    agreed = None if words is None else terms.agreed(tariff, edition, words)
    state = state_of(row[_STATE], PositionCache())
    if agreed is None or state.has_tail or state.position.register_at_ms != state.anchor_ms:
        return None
    outcome = advance(agreed, state.position, (), max(asked.now_ms, state.settled_until_ms))
    days, micros, whs = row[_DAYS]
    costs = {
        _EPOCH + timedelta(days=day): (micro, wh)
        for day, micro, wh in zip(days or (), micros or (), whs or (), strict=True)
    }
    supply = row[_SUPPLY]
    return SeenBalance(
        caller,
        number,
        currency,
        balance_of(
            agreed,
            outcome,
            usage_among(costs, agreed, state),
            None if supply[0] is None else Supply(*supply),
        ),
    )
