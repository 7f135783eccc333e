"""The general path: all facts after a position in the order of section 7, whatever they are.

Consumption is posted cell by cell up to each event; requests, top-ups, edges of windows and the
end never cut a segment: the balance inside one is worked out without posting it.
"""

from collections.abc import Collection, Iterable
from datetime import timedelta
from itertools import pairwise
from typing import NamedTuple

from credit_engine.consumption import Interval
from credit_engine.days import Day, cell_at, day_at, day_of
from credit_engine.errors import CreditError
from credit_engine.facts import Adjustment, EmergencyRequest, RecordedTopUp, Reversal, TopUp
from credit_engine.position import GENESIS_MS, Position
from credit_engine.rating import Books
from credit_engine.supply import SupplyState
from credit_engine.terms import Terms

# Order at one and the same instant (section 7, and adjustments after the reversals); consumption
# up to it comes before all.
ANCHOR, MIDNIGHT, TOP_UP, REVERSAL, ADJUSTMENT, OBSERVE = range(6)


class Event(NamedTuple):
    at_ms: int
    rank: int
    id: str
    content: Interval | Day | TopUp | Reversal | Adjustment | None


class Facts(NamedTuple):
    """Distinct facts after the position and up to `until`."""

    intervals: list[Interval]
    top_ups: dict[str, TopUp]
    reversals: dict[str, Reversal]
    requests: frozenset[int]
    adjustments: dict[str, Adjustment]


class Timeline:
    """One run over the facts after `position`."""

    def __init__(
        self,
        terms: Terms,
        position: Position,
        facts: Facts,
        until_ms: int,
        keep_at: Collection[int] = (),
    ) -> None:
        self.terms = terms
        self._keep_at = keep_at
        self.start = position
        self.facts = facts
        self.until_ms = until_ms
        self.books = Books(terms, position.totals)
        self.supply = SupplyState(terms, position)
        self.positions: list[Position] = []
        # How many of `positions`, from the first, begin a local day or are wanted.
        self.checkpoints = 0
        self._interval = 0
        self._cursor_ms = facts.intervals[0].start_ms if facts.intervals else until_ms

    def run(self) -> None:
        tariff = self.terms.tariff
        if self.start.at_ms == GENESIS_MS:
            self.books.open_debt(day_at(tariff, self.terms.activated_at_ms))
        for event in self._events():
            self._consume(event.at_ms)
            content = event.content
            if event.rank == ANCHOR:
                assert isinstance(content, Interval)
                self.positions.append(self._position(content))
            elif isinstance(content, Day):
                self.books.charge_standing(content)
                self.books.take_daily_debt(content)
            elif isinstance(content, TopUp):
                self.books.credit(content, day_at(tariff, content.at_ms))
            elif isinstance(content, Reversal):
                self.books.reverse(content, self._split(content), day_at(tariff, content.at_ms))
            elif isinstance(content, Adjustment):
                self.books.adjust(content, day_at(tariff, content.at_ms))
            else:
                requested = event.at_ms in self.facts.requests
                balance = self._balance_at(event.at_ms)
                self.supply.observe(event.at_ms, balance, requested=requested)

    def _events(self) -> list[Event]:
        anchors = self._anchors()
        events = [Event(each.end_ms, ANCHOR, "", each) for each in anchors]
        events += [Event(day.start_ms, MIDNIGHT, "", day) for day in self._midnights()]
        events += [Event(each.at_ms, TOP_UP, each.id, each) for each in self.facts.top_ups.values()]
        events += [
            Event(each.at_ms, REVERSAL, each.top_up_id, each)
            for each in self.facts.reversals.values()
        ]
        events += [
            Event(each.at_ms, ADJUSTMENT, each.id, each) for each in self.facts.adjustments.values()
        ]
        instants = self._observed(each.end_ms for each in anchors)
        events += [Event(at_ms, OBSERVE, "", None) for at_ms in instants]
        events.sort(key=lambda event: event[:3])
        return events

    def _anchors(self) -> list[Interval]:
        """The last interval, the first that ends in each local day, and those that are wanted."""
        anchors: list[Interval] = []
        tariff, keep_at = self.terms.tariff, self._keep_at
        end_ms = day_at(tariff, self.start.at_ms).end_ms if self.start.at_ms > GENESIS_MS else None
        for interval in self.facts.intervals:
            if end_ms is None or interval.end_ms >= end_ms or interval.end_ms in keep_at:
                anchors.append(interval)
                end_ms = day_at(tariff, interval.end_ms).end_ms
        self.checkpoints = len(anchors)
        if self.facts.intervals and anchors[-1:] != self.facts.intervals[-1:]:
            anchors.append(self.facts.intervals[-1])
        return anchors

    def _midnights(self) -> Iterable[Day]:
        """Days that begin at or after the position, after the activation and up to `until`."""
        standing = any(version.standing_micro for version in self.terms.tariff.versions)
        if not standing and not (self.terms.debt.daily_micro and self._debt_possible()):
            return
        from_ms = max(self.start.at_ms, self.terms.activated_at_ms + 1)
        day = day_at(self.terms.tariff, from_ms)
        while day.start_ms <= self.until_ms:
            # A date that the zone skipped has no midnight of its own.
            if day.start_ms >= from_ms and day.end_ms > day.start_ms:
                yield day
            day = day_of(self.terms.tariff, day.date + timedelta(days=1))

    def _debt_possible(self) -> bool:
        return (
            self.start.totals.debt_micro > 0
            or bool(self.facts.reversals)
            or any(each.to_debt for each in self.facts.adjustments.values())
        )

    def _observed(self, anchor_ends: Iterable[int]) -> set[int]:
        """The instants at which the supply must be judged; only `until` where no past decides."""
        terms, until_ms = self.terms, self.until_ms
        on_request = terms.emergency is not None and terms.emergency.on_request
        if terms.reconnect_at_micro is None and not on_request:
            return {until_ms}
        begins = {self.start.at_ms, terms.activated_at_ms, *anchor_ends, *self.facts.requests}
        begins.update(each.at_ms for each in self.facts.top_ups.values())
        begins.update(each.at_ms for each in self.facts.adjustments.values())
        # The position stands for all instants before its own.
        begins = {at_ms for at_ms in begins if self.start.at_ms <= at_ms <= until_ms}
        begins.discard(GENESIS_MS)
        observed = begins | {until_ms}
        if terms.reconnect_at_micro is not None:
            # Between them the balance only falls: the last open instant tells of them all.
            for begin, following in pairwise([*sorted(begins), until_ms]):
                begin_ms = max(begin, terms.activated_at_ms)
                last = self.supply.protection.last_open(begin_ms, following - 1)
                if last is not None:
                    observed.add(last)
        return observed

    def _consume(self, until_ms: int) -> None:
        """Post the segments that end at or before `until`."""
        intervals = self.facts.intervals
        while self._interval < len(intervals):
            interval = intervals[self._interval]
            while self._cursor_ms < interval.end_ms:
                cell = cell_at(self.terms.tariff, self._cursor_ms)
                end_ms = min(cell.end_ms, interval.end_ms)
                if end_ms > until_ms:
                    return
                energy = interval.energy_until(end_ms) - interval.energy_until(self._cursor_ms)
                self.books.charge_energy(cell, interval, self._cursor_ms, end_ms, energy)
                self._cursor_ms = end_ms
            self._interval += 1
            if self._interval < len(intervals):
                self._cursor_ms = intervals[self._interval].start_ms

    def _balance_at(self, at_ms: int) -> int:
        """After all postings of the instant, and the consumption of the running segment."""
        if self._interval == len(self.facts.intervals) or self._cursor_ms >= at_ms:
            return self.books.balance_micro
        interval = self.facts.intervals[self._interval]
        energy = interval.energy_until(at_ms) - interval.energy_until(self._cursor_ms)
        return self.books.balance_within(cell_at(self.terms.tariff, self._cursor_ms), energy)

    def _position(self, interval: Interval) -> Position:
        emergency = self.terms.emergency
        return Position(
            interval.end_ms,
            interval.installation,
            interval.register_at_ms,
            interval.register_wh,
            self.books.totals(day_at(self.terms.tariff, interval.end_ms)),
            emergency is not None and emergency.on_request and self.supply.in_use,
            self.supply.armed,
        )

    def _split(self, reversal: Reversal) -> RecordedTopUp:
        split = self.books.splits.get(reversal.top_up_id) or reversal.recorded
        assert split is not None
        return split


def _differing(top_up: TopUp, first: TopUp) -> list[str]:
    return [
        name
        for name, one, other in (
            ("time", top_up.at_ms, first.at_ms),
            ("amount", top_up.amount_micro, first.amount_micro),
            ("channel", top_up.channel, first.channel),
            ("rounding", top_up.rounding_micro, first.rounding_micro),
        )
        if one != other
    ]


def distinct(
    top_ups: Iterable[TopUp],
    reversals: Iterable[Reversal],
    requests: Iterable[EmergencyRequest],
    adjustments: Iterable[Adjustment],
    intervals: list[Interval],
) -> Facts:
    """Duplicates fold into one fact. Errors: top_up_conflict, reversal_conflict, unknown_top_up,
    adjustment_conflict; each carries the facts that it binds.
    """
    by_id: dict[str, TopUp] = {}
    for top_up in top_ups:
        first = by_id.setdefault(top_up.id, top_up)
        if first != top_up:
            raise CreditError(
                "top_up_conflict",
                f"top-up {top_up.id!r} was given before with other content: use a new id",
                (top_up, "id"),
                (first, "id"),
                *((top_up, name) for name in _differing(top_up, first)),
            )
    by_top_up: dict[str, Reversal] = {}
    for reversal in reversals:
        earlier = by_top_up.setdefault(reversal.top_up_id, reversal)
        if earlier.at_ms != reversal.at_ms:
            raise CreditError(
                "reversal_conflict",
                f"top-up {reversal.top_up_id!r} is already reversed at another time",
                (reversal, "time"),
                (earlier, "time"),
            )
        origin = by_id.get(reversal.top_up_id) or reversal.recorded
        if origin is None:
            raise CreditError(
                "unknown_top_up",
                f"top-up {reversal.top_up_id!r} is not among the facts: reverse one that is",
                (reversal, "top_up"),
            )
        if reversal.at_ms < origin.at_ms:
            raise CreditError(
                "reversal_conflict",
                f"top-up {reversal.top_up_id!r} cannot be reversed before its own time",
                (reversal, "time"),
                (origin, "time"),
            )
    asked = frozenset(each.at_ms for each in requests)
    return Facts(intervals, by_id, by_top_up, asked, _distinct_adjustments(adjustments))


def _distinct_adjustments(adjustments: Iterable[Adjustment]) -> dict[str, Adjustment]:
    by_id: dict[str, Adjustment] = {}
    for adjustment in adjustments:
        first = by_id.setdefault(adjustment.id, adjustment)
        if first != adjustment:
            raise CreditError(
                "adjustment_conflict",
                f"adjustment {adjustment.id!r} was given before with other content: use a new id",
                (adjustment, "id"),
                (first, "id"),
            )
    return by_id
