"""A run: round after round one fault, what recovery took, and whether every law holds."""

import asyncio
import math
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

from prepaid.faults.kinds import Kind
from prepaid.faults.laws import Breach, Span, Truth, latest
from prepaid.faults.load import Load
from prepaid.faults.processes import tail
from prepaid.faults.system import System
from store.audit import audit
from store.errors import Unavailable
from store.holdings import Holdings, holdings, newest_entry, readings_since

# A round that has not recovered after this long has failed: far above any back-off of ours, and
# above the ten minutes (of the system's time) after which a meter is asked for what is missing.
DEADLINE_S = 60.0
# Asking costs the database something, too.
POLL_S = 0.15
LAWS_POLL_S = 0.7
# Everything older than this must have arrived: links drop and readings are held back on any day.
CUT_MS = 5 * 60_000
# Beside a round's own readings, those that a gap may bring of the rounds before.
LOOK_BACK_MS = 15 * 60_000
# Before a fault, and how many payments come spread over the round.
CALM_S = (0.3, 1.2)
SALES = 8
SALES_OVER_S = 4.0
AUDIT_EVERY = 10
BREACHES_TOLD = 20
# A reading that a wrong clock dated lies as far off as that clock did.
WRONG_BY_MS = 25 * 60_000


@dataclass(slots=True)
class Round:
    """One round. Seconds are from the lifting of the fault: to the first commit after it
    (`first_s`), until all that waited was committed (`drained_s`), until every law held
    (`lawful_s`); None where that never came.
    """

    number: int
    kind: str
    did: str = ""
    first_s: float | None = None
    drained_s: float | None = None
    lawful_s: float | None = None
    readings: int = 0
    payments: int = 0
    died: int = 0
    audited: bool = False
    breaches: list[Breach] = field(default_factory=list)
    last_words: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not self.breaches


def plan(kinds: Sequence[Kind], rounds: int, seed: int) -> list[tuple[int, Kind]]:
    """(number from 1, kind) of each round: every kind as often as the others, in a mixed order."""
    random = Random(f"{seed}/plan")  # noqa: S311  (to be repeated, no secret)
    planned: list[Kind] = []
    while len(planned) < rounds:
        planned += random.sample(kinds, len(kinds))
    return list(enumerate(planned[:rounds], start=1))


Hook = Callable[[System], Awaitable[None]]


async def unmeddled(_: System) -> None:
    """Nobody meddles."""


@dataclass(slots=True)
class Run:
    """The rounds on one system. `meddle` is called before the laws are asked: tests plant damage
    there. `audit_every`: in so many rounds the laws of `prepaid audit` are asked, too.
    """

    system: System
    load: Load
    seed: int
    audit_every: int = AUDIT_EVERY
    deadline_s: float = DEADLINE_S
    meddle: Hook = unmeddled
    truth: Truth = field(init=False)
    _began_ms: int = field(init=False)
    _contradicted: int = 0
    _waited_for: set[tuple[str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.truth = Truth(self.system.households, self.load.sales)
        self._began_ms = self.system.true_clock.now_ms()

    async def warm_up(self) -> None:
        """Until what the meters said first is committed: programs that have just begun are slow."""
        end_s = time.monotonic() + self.deadline_s
        self._wait_for(self.system.true_clock.now_ms())
        while await self._waiting() and time.monotonic() < end_s:
            await asyncio.sleep(LAWS_POLL_S)

    async def play(self, number: int, kind: Kind, *, last: bool = False) -> Round:
        """One round; whatever goes wrong on the way is a breach of it."""
        found = Round(number, kind.name, audited=last or number % self.audit_every == 0)
        random = Random(f"{self.seed}/{number}")  # noqa: S311  (to be repeated, no secret)
        self._began_ms = self.system.true_clock.now_ms()
        selling = asyncio.create_task(self._sell(random), name="selling")
        before = self._measured()
        try:
            await asyncio.sleep(random.uniform(*CALM_S))
            entry = await self._entry()
            found.did = await kind.strike(self.system, random)
            lifted_s = time.monotonic()
            if kind.clocks:
                now_ms = self.system.true_clock.now_ms()
                span = Span(self._began_ms - WRONG_BY_MS, now_ms + WRONG_BY_MS)
                self.truth.wrong_clocks.append(span)
            await self._recover(found, entry, lifted_s)
            await selling
            await self.meddle(self.system)
            await self._prove(found, lifted_s)
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            where = traceback.format_exc(limit=-3)
            found.breaches.append(Breach("round_ends", "wrong", f"{told}\n{where}"))
        finally:
            selling.cancel()
            await asyncio.gather(selling, return_exceptions=True)
        found.readings = self._measured() - before
        found.payments = SALES
        self._look_around(found)
        if found.breaches:
            found.last_words = self._last_words()
        return found

    async def _sell(self, random: Random) -> None:
        habits = Random(random.getrandbits(64))  # noqa: S311  (habits, no secret)
        for _ in range(SALES):
            self.load.sell(self.system.households, habits)
            await asyncio.sleep(SALES_OVER_S / SALES)

    def _measured(self) -> int:
        return sum(len(each.meter.testimony.measured) for each in self.system.households)

    async def _entry(self) -> int:
        return await self.system.look(newest_entry)

    # --- recovery -----------------------------------------------------------------------------

    async def _recover(self, found: Round, entry: int, lifted_s: float) -> None:
        """Wait for the first new commit, then for all that waited. Errors: none; what never comes
        is told by the laws.
        """
        self._wait_for(self.system.true_clock.now_ms())
        entry = await self._now_or(entry)
        while time.monotonic() < lifted_s + self.deadline_s:
            try:
                if found.first_s is None:
                    if await self._entry() > entry:
                        found.first_s = time.monotonic() - lifted_s
                elif not await self._waiting():
                    found.drained_s = time.monotonic() - lifted_s
                    return
            except Unavailable:
                pass  # it is not back yet
            await asyncio.sleep(POLL_S)

    async def _now_or(self, entry: int) -> int:
        """The newest entry as the fault is lifted, where the database says it."""
        try:
            return await self._entry()
        except Unavailable:
            return entry

    def _wait_for(self, cut_ms: int) -> None:
        """Everything measured up to now that is not known to be held."""
        since_ms, book = self._since_ms(), self.truth.book
        self._waited_for = {
            (each.number, ts_ms)
            for each in self.system.households
            for ts_ms in latest(each.meter.testimony.measured, since_ms)
            if ts_ms <= cut_ms and not self.truth.settled((each.number, ts_ms), book)
        }

    async def _waiting(self) -> bool:
        """Whether anything that is waited for is not held yet."""
        if self._waited_for:
            since_ms = min(ts_ms for _, ts_ms in self._waited_for)
            held = await self.system.look(partial(readings_since, since_ms=since_ms))
            self._waited_for -= held.keys()
        return bool(self._waited_for)

    def _since_ms(self) -> int:
        return self._began_ms - LOOK_BACK_MS

    # --- laws ---------------------------------------------------------------------------------

    async def _prove(self, found: Round, lifted_s: float) -> None:
        """Ask until every law holds, or the time is over: then what is broken is broken."""
        cut_ms = self.system.true_clock.now_ms() - CUT_MS
        relays = {each.number for each in self.system.households}
        commands: set[str] | None = None
        end_s = max(lifted_s, time.monotonic() - self.deadline_s / 2) + self.deadline_s
        while True:
            try:
                held = await self._held(found)
            except Unavailable as error:
                broken = [Breach("database_serves", "wrong", str(error))]
            else:
                if commands is None:
                    commands = set(held.commands)
                relays -= self.truth.relays(held, relays)
                broken = self.truth.breaches(held, self._from_ms(found), cut_ms)
                broken += self.truth.unsettled(held, commands)
                broken += [
                    Breach("relays_known", "wrong", f"meter {number}: not as it says")
                    for number in sorted(relays)
                ]
            if not broken:
                found.lawful_s = time.monotonic() - lifted_s
                break
            if time.monotonic() > end_s:
                found.breaches += broken
                return
            await asyncio.sleep(LAWS_POLL_S)
        if found.audited:
            found.breaches += await self._audit()

    async def _held(self, found: Round) -> Holdings:
        self.system.system_ms()
        self.truth.until_ms = self.system.latest_ms
        since_ms = self._from_ms(found)
        self.truth.note()
        held = await self.system.look(partial(holdings, since_ms=since_ms, channel=self.load.bank))
        self.truth.take(held, since_ms)
        return held

    def _from_ms(self, found: Round) -> int:
        """From where on readings are compared one by one: all of them where the laws of
        `prepaid audit` are asked, too.
        """
        return 0 if found.audited else self._since_ms()

    async def _audit(self) -> list[Breach]:
        checks = await self.system.look(audit)
        # Counters and instants of issue cannot agree once the server's own clock ran back.
        excused = {"counters_grow"} if self.truth.wrong_clocks else set()
        return [
            Breach(f"audit: {check.name}", "wrong", f"{each.where}: {each.expected}, {each.found}")
            for check in checks
            if check.name not in excused
            for each in check.failures
        ]

    # --- beside the laws ----------------------------------------------------------------------

    def _look_around(self, found: Round) -> None:
        for program in self.system.programs:
            found.died += program.died
            program.died = 0
        told = self.load.contradictions[self._contradicted :]
        self._contradicted += len(told)
        found.breaches += [Breach("answers_agree", "double", each) for each in told]
        found.breaches += [
            Breach("meters_live", "wrong", each) for each in self.load.ended_meters()
        ]

    def _last_words(self) -> dict[str, str]:
        servers = {"PostgreSQL": self.system.postgres.log, "mosquitto": self.system.mosquitto.log}
        return self.system.last_words() | {name: tail(log) for name, log in servers.items()}


def worst(values: Iterable[float | None], percent: int) -> float | None:
    """The percentile by the nearest rank, where None is what never came: longer than all others.
    None where there are none.
    """
    ordered = sorted(values, key=lambda value: math.inf if value is None else value)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else None
