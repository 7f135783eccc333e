"""The clockwork loop: what time alone brings, caught up after any pause.

- Source: the durable schedule in the database; any number of workers share it.
- Bound: `ACCOUNTS_AT_ONCE` accounts per transaction, until none is due.
- On stop: the transaction at hand ends.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from meter_gateway.field import FieldDuties
from meter_gateway.metrics import GatewayMetrics
from meter_gateway.token_alarm import TokenAlarm
from schemas.quantities import format_instant
from store.campaigns import key_expiries
from store.clockwork import (
    close_overdue,
    drop_old_readings,
    end_holds,
    reconcile,
    settle_due,
    waiting_for_people,
)
from store.credit_checks import compare_credit
from store.errors import Unavailable
from store.outbox import standing
from store.session import Session
from store.terms import TermsCache

log = structlog.get_logger()

ACCOUNTS_AT_ONCE = 200
METERS_AT_ONCE = 200
ROUND_S = 0.5
DAY_MS = 24 * 3600 * 1000


async def run_clockwork(
    session: Session,
    now_ms: Callable[[], int],
    stopping: asyncio.Event,
    keep_days: int | None = None,
    alarm: TokenAlarm | None = None,
    metrics: GatewayMetrics | None = None,
) -> None:
    """Rounds until `stopping`. Readings older than `keep_days` are dropped; None keeps all."""
    terms = TermsCache()
    watch = _Watch(session, metrics)
    field = FieldDuties(now_ms)
    retention_due_ms = 0
    key_check_due_ms = 0
    while not stopping.is_set():
        try:
            while await session.run(
                partial(settle_due, terms=terms, now_ms=now_ms(), limit=ACCOUNTS_AT_ONCE)
            ):
                if stopping.is_set():
                    return
            ended = await session.run(
                partial(end_holds, terms=terms, now_ms=now_ms(), limit=ACCOUNTS_AT_ONCE)
            )
            if ended:
                log.info("holds_ended", count=ended)
            await _end_and_repeat(session, terms, now_ms)
            await session.run(partial(compare_credit, now_ms=now_ms()))
            await watch.look(now_ms())
            await field.round(session)
            if alarm is not None:
                await alarm.look(session, now_ms())
            if now_ms() >= key_check_due_ms:
                await _warn_of_ends(session, now_ms())
                key_check_due_ms = now_ms() + DAY_MS
            if keep_days is not None and now_ms() >= retention_due_ms:
                before_ms = now_ms() - keep_days * DAY_MS
                dropped = await session.run(partial(drop_old_readings, before_ms=before_ms))
                log.info("old_readings_dropped", chunks=dropped)
                retention_due_ms = now_ms() + DAY_MS
        except Unavailable as error:
            log.warning("database_away", reason=str(error))
        try:
            await asyncio.wait_for(stopping.wait(), ROUND_S)
        except TimeoutError:
            continue


async def _end_and_repeat(session: Session, terms: TermsCache, now_ms: Callable[[], int]) -> None:
    """Commands at their expiry, and orders that the meter did not carry out."""
    overdue = await session.run(partial(close_overdue, now_ms=now_ms()))
    if overdue.expired or overdue.delivered_again:
        log.info(
            "commands_overdue",
            expired=overdue.expired,
            read_first=overdue.read_first,
            delivered_again=overdue.delivered_again,
        )
    again = await session.run(
        partial(reconcile, terms=terms, now_ms=now_ms(), limit=METERS_AT_ONCE)
    )
    if again:
        log.info("relays_ordered_again", count=again)


class _Watch:
    """Tells of what waits for a person: a brake in a line of its own, the rest as numbers."""

    def __init__(self, session: Session, metrics: GatewayMetrics | None) -> None:
        self._session = session
        self._metrics = metrics
        self._told: set[int] = set()

    async def look(self, now_ms: int) -> None:
        waiting = await self._session.run(waiting_for_people)
        for brake in waiting.brakes:
            if brake.id not in self._told:
                self._told.add(brake.id)
                log.warning(
                    "brake_pulled",
                    brake=brake.id,
                    centre=brake.centre,
                    cuts=brake.cuts,
                    wanted=brake.wanted,
                    most=brake.most,
                )
        if self._metrics is not None:
            self._metrics.brakes.set(len(waiting.brakes))
            self._metrics.dead_letters.set(waiting.dead_letters)
            self._metrics.credit_exceptions.set(waiting.credit_exceptions)
            outbox = await self._session.run(standing)
            oldest_ms = now_ms if outbox.oldest_ms is None else outbox.oldest_ms
            self._metrics.outbox.set(outbox.commands)
            self._metrics.outbox_age.set(max(0, now_ms - oldest_ms) / 1000)


async def _warn_of_ends(session: Session, now_ms: int) -> None:
    """Once a day, years before: the vending keys in meters that end, and for how many."""
    for each in await session.run(partial(key_expiries, now_ms=now_ms)):
        log.warning(
            "vending_key_ends",
            sgc=each.sgc,
            krn=each.krn,
            cause=each.cause,
            level=each.level,
            ends=format_instant(each.ends_ms),
            meters=each.meters,
        )
