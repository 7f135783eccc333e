"""Balances of the many who ask at once: one statement on one connection of an event loop.

What comes while a statement is under way goes with the next one, so the more ask, the less each
costs; nobody waits for a thread. Only what is plain is answered here: a caller who may see the
account, terms that are known, nothing but top-ups and midnights after the last reading. For
everything else, and when the database does not answer, there is no balance, and the caller asks
`store.reads` instead, which also says why something is refused.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
import psycopg
import structlog

from credit_engine.days import DAY_MS
from credit_engine.engine import advance
from credit_engine.facts import TopUp
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
_STATE = slice(16, 25)
_NEWEST = 25
_SUPPLY = slice(26, 32)


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
    has_tail: bool
    settled_until_ms: int
    finished: Finished
    supply: Supply


# What is asked, and where the answer goes.
_Waiting = tuple[Asked, "asyncio.Future[SeenBalance | None]"]


class _Open(NamedTuple):
    """Two connections to one server, and what it told of finished days: another one may have lost
    that. Balances are asked for on the one; what takes longer, on the other.
    """

    asking: LoopConnection
    aside: LoopConnection
    costs: DayCosts

    async def close(self) -> None:
        await self.asking.close()
        await self.aside.close()


class Balances:
    """Answers of one process; every call comes from one event loop."""

    def __init__(self, url: str, terms: TermsCache) -> None:
        self._url = url
        self._terms = terms
        self._opened: _Open | None = None
        self._waiting: list[_Waiting] = []
        self._work: asyncio.Task[None] | None = None
        # Balances of which more must be asked first; they keep nobody else waiting.
        self._unknown: list[tuple[_Plain, _Waiting]] = []
        self._work_aside: asyncio.Task[None] | None = None
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
        if self._work is None:
            self._work = asyncio.create_task(self._answer_all())
        return await answer

    async def close(self) -> None:
        """Let what is under way end, and close the connections."""
        while work := self._work or self._work_aside:
            await work
        if self._idle:
            await self._touch()
        if self._opened is not None:
            await self._drop(self._opened)

    async def _answer_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch = self._waiting[:MOST_AT_ONCE]
                del self._waiting[:MOST_AT_ONCE]
                with _nobody_left_waiting(batch):
                    rows = await self._rows([asked for asked, _ in batch])
                    # As soon as the next statement is on its way: the database need not wait.
                    loop.call_soon(self._answer_batch, batch, rows)
        finally:
            self._work = None

    def _answer_batch(self, batch: Sequence[_Waiting], rows: Mapping[int, tuple[Any, ...]]) -> None:
        with _nobody_left_waiting(batch):
            for place, waiting in enumerate(batch, start=1):
                plain = _plain(self._terms, rows.get(place), waiting[0])
                if plain is not None and (plain.has_tail or self._costs_of(plain) is None):
                    self._unknown.append((plain, waiting))
                else:
                    self._settle(waiting, plain, ())
            if self._unknown:
                self._begin_aside()

    def _begin_aside(self) -> None:
        if self._work_aside is None:
            self._work_aside = asyncio.create_task(self._do_aside())

    async def _do_aside(self) -> None:
        try:
            while self._unknown or self._notes_due:
                batch = self._unknown[:MOST_AT_ONCE]
                del self._unknown[:MOST_AT_ONCE]
                with _nobody_left_waiting([waiting for _, waiting in batch]):
                    plains = [plain for plain, _ in batch]
                    await self._learn_costs(
                        [each.finished for each in plains if self._costs_of(each) is None]
                    )
                    for (plain, waiting), tail in zip(
                        batch, await self._tails(plains), strict=True
                    ):
                        self._settle(waiting, plain, tail)
                    if self._notes_due:
                        await self._touch()
        finally:
            self._work_aside = None

    def _costs_of(self, plain: _Plain) -> Sequence[int] | None:
        return None if self._opened is None else self._opened.costs.of(plain.finished)

    def _settle(
        self, waiting: _Waiting, plain: _Plain | None, tail: Sequence[TopUp] | None
    ) -> None:
        asked, answer = waiting
        # Whoever went away meanwhile has taken back what he asked.
        if answer.done():
            return
        seen = None
        if plain is not None:
            seen = _seen(plain, self._costs_of(plain), tail, asked)
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
        # Connections that were lost while nobody used them are opened again once.
        for _ in range(2):
            opened, fresh = self._opened, self._opened is None
            try:
                if opened is None:
                    opened = self._opened = await self._open()
                rows = await opened.asking.rows("balances_asked_for", of)
                await self._learn(opened.asking, rows)
                return {row[0]: row for row in rows}
            except psycopg.Error:
                if opened is not None:
                    await self._drop(opened)
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
        opened, unknown = self._opened, {each.account_id: each for each in asked}
        # Where they stay unknown they are looked up the long way.
        if opened is None or not unknown:
            return
        try:
            of = opened.costs.missing(unknown.values())
            opened.costs.learn(unknown, await opened.aside.rows("costs_of_days", of))
        except psycopg.Error:
            await self._drop(opened)

    async def _tails(self, plains: Sequence[_Plain]) -> list[Sequence[TopUp] | None]:
        """What there is after the last reading of each; None where that is not known whole."""
        asked = [place for place, each in enumerate(plains) if each.has_tail]
        tails: list[Sequence[TopUp] | None] = [None if each.has_tail else () for each in plains]
        opened = self._opened
        if opened is None or not asked:
            return tails
        of = {
            "accounts": binary.int8_array([plains[each].finished.account_id for each in asked]),
            "from_ms": binary.int8_array([plains[each].position.at_ms for each in asked]),
        }
        try:
            rows = await opened.aside.rows("top_ups_since", of)
        except psycopg.Error:
            await self._drop(opened)
            return tails
        for nth, newest, *columns in rows:
            place = asked[nth - 1]
            # Posted to between two statements: whoever asks the long way is told of one instant.
            if newest == plains[place].finished.newest:
                found = zip(*columns, strict=True) if columns[0] else ()
                tails[place] = [TopUp(*each) for each in found]
        return tails

    def _note(self, caller: Principal, wall_ms: int) -> None:
        """That a session is used again, some time after the answer: nobody waits for it."""
        if caller.session_id is None or wall_ms - caller.seen_ms < SEEN_EVERY_MS:
            return
        if not self._idle:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(NOTED_WITHIN_S, self._note_now)
        self._idle[caller.session_id] = wall_ms
        if len(self._idle) >= NOTED_AT_ONCE:
            self._note_now()

    def _note_now(self) -> None:
        self._notes_due = True
        self._begin_aside()

    async def _touch(self) -> None:
        idle, self._idle, self._notes_due = self._idle, {}, False
        self._timer.cancel()
        of = {
            "sessions": binary.int8_array(list(idle)),
            "wall_ms": binary.bigint(max(idle.values())),
        }
        # Where it fails they are found idle once more, and noted with the next request.
        opened = self._opened
        if opened is None:
            return
        try:
            await opened.aside.rows("touch_customer_sessions", of)
        except psycopg.Error:
            await self._drop(opened)

    async def _open(self) -> _Open:
        """Errors: psycopg.Error."""
        asking = await self._connection()
        try:
            return _Open(asking, await self._connection(), DayCosts())
        except BaseException:
            await asking.close()
            raise

    async def _connection(self) -> LoopConnection:
        return await LoopConnection.open(self._url, "prepaid-api", _SETTINGS, STATEMENT_TIMEOUT_MS)

    async def _drop(self, opened: _Open) -> None:
        """Close what was lost; who uses its other connection meanwhile is told so."""
        if self._opened is opened:
            self._opened = None
        await opened.close()


@contextmanager
def _nobody_left_waiting(batch: Sequence[_Waiting]) -> Iterator[None]:
    """Who is not answered when something fails is told to ask the route."""
    try:
        yield
    except BaseException as error:
        for _, answer in batch:
            if not answer.done():
                answer.set_result(None)
        if not isinstance(error, Exception):
            raise
        # A defect of ours, which the route may not share.
        log.exception("balances_not_answered", asked=len(batch))


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
    opened_ms, has_tail, settled_until_ms, newest_reading_ms = rest
    position = Position.from_json(orjson.loads(stored))
    if numbers is not None:
        position = position.moved(anchor_ms, balance_micro, numbers)
    supply = _supply(position, anchor_ms, row[_SUPPLY], asked.now_ms)
    # A reading after it that moved nothing is a fact, too.
    if supply is None or newest_reading_ms > anchor_ms:
        return None
    days, _ = finished_days(agreed, position.register_at_ms, opened_ms)
    finished = Finished(account_id, row[_NEWEST], days, agreed.tariff)
    return _Plain(
        caller, number, currency, agreed, position, has_tail, settled_until_ms, finished, supply
    )


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


def _seen(
    plain: _Plain, costs: Sequence[int] | None, tail: Sequence[TopUp] | None, asked: Asked
) -> SeenBalance | None:
    if costs is None or tail is None:
        return None
    until_ms = max(asked.now_ms, plain.settled_until_ms, *(each.at_ms for each in tail))
    try:
        outcome = advance(plain.agreed, plain.position, tail, until_ms)
        found = balance_of(plain.agreed, outcome, costs, plain.supply)
    except DomainError:
        # Whoever asks the long way is told.
        return None
    return SeenBalance(plain.caller, plain.number, plain.currency, found)
