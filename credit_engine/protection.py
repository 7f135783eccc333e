"""Non-disconnection windows on the clock (section 8)."""

from collections.abc import Iterator
from datetime import date, timedelta
from functools import lru_cache

from credit_engine.days import MEMO_LIMIT, covers, day_at, day_of, wall_pieces, window_minutes
from credit_engine.terms import HOLIDAY, Tariff, Window

# Windows repeat by the week, so an edge that is not found within it needs a holiday.
WEEK_DAYS = 8


class Protection:
    """When one set of windows protects the supply. Holidays add here and take nothing away."""

    def __init__(self, tariff: Tariff, windows: tuple[Window, ...]) -> None:
        self._tariff = tariff
        self._windows = windows
        self._minutes = window_minutes(windows)
        self._days: dict[date, list[tuple[int, int, bool]]] = {}

    def holds(self, at_ms: int) -> bool:
        return bool(self._windows) and self._piece(at_ms)[2]

    def last_open(self, low_ms: int, high_ms: int) -> int | None:
        """The last instant of `[low, high]` outside the windows, or None."""
        if not self._windows:
            return high_ms if high_ms >= low_ms else None
        while high_ms >= low_ms:
            start, _, protected = self._piece(high_ms)
            if not protected:
                return high_ms
            high_ms = start - 1
        return None

    def next_edge(self, at_ms: int) -> int | None:
        """The next instant after `at_ms` at which protection begins or ends."""
        if not self._windows:
            return None
        holds = self.holds(at_ms)
        for day in self._days_with_edges(day_at(self._tariff, at_ms).date):
            for start, _, protected in self._pieces(day):
                if start > at_ms and protected != holds:
                    return start
        return None

    def _days_with_edges(self, today: date) -> Iterator[date]:
        for ahead in range(WEEK_DAYS + 1):
            yield today + timedelta(days=ahead)
        for holiday in sorted(self._tariff.holidays):
            if holiday > today:
                yield from (holiday - timedelta(days=1), holiday, holiday + timedelta(days=1))
                yield holiday + timedelta(days=2)

    def _matches(self, window: Window, began: date) -> bool:
        return began.weekday() in window.days or (
            HOLIDAY in window.days and began in self._tariff.holidays
        )

    def _covered(self, wall_date: date, minute: int) -> bool:
        return any(covers(window, wall_date, minute, self._matches) for window in self._windows)

    def _pieces(self, day: date) -> list[tuple[int, int, bool]]:
        pieces = self._days.get(day)
        if pieces is None:
            if len(self._days) >= MEMO_LIMIT:
                self._days.clear()
            known = day_of(self._tariff, day)
            pieces = self._days[day] = wall_pieces(
                self._tariff.zone, known.start_ms, known.end_ms, self._minutes, self._covered
            )
        return pieces

    def _piece(self, at_ms: int) -> tuple[int, int, bool]:
        day = day_at(self._tariff, at_ms).date
        return next(piece for piece in self._pieces(day) if piece[0] <= at_ms < piece[1])


@lru_cache(maxsize=1024)
def protection_of(tariff: Tariff, windows: tuple[Window, ...]) -> Protection:
    """Accounts of one tariff with the same windows share what was worked out."""
    return Protection(tariff, windows)
