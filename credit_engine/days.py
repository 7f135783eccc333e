"""Local days and the cells of a tariff: the stretches in which nothing of sections 3 and 4 changes.

Civil time is worked out once per day and remembered by the tariff. A day is the stretch between
two local midnights, the local midnight of a date being its first instant in the zone; where the
clock goes back across midnight, that keeps days, months and years in one piece.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache, partial
from typing import TypeVar
from zoneinfo import ZoneInfo

from credit_engine.terms import (
    HOLIDAY,
    MINUTES_PER_DAY,
    Band,
    Tariff,
    TariffVersion,
    Tax,
    Window,
)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MINUTE_MS = 60_000
# A memo that grew beyond this is dropped: a tariff lives as long as its process.
MEMO_LIMIT = 20_000
# Offsets are compared at this step: no zone changed its offset twice within it.
OFFSET_PROBE_MS = 3 * HOUR_MS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL = _EPOCH.toordinal()
_MILLISECOND = timedelta(milliseconds=1)

Kind = TypeVar("Kind")
Taxed = tuple[tuple[str, str, int, bool], Tax]


@dataclass(frozen=True, slots=True)
class Day:
    """`next_charge_ms`: the next local midnight after this day's at which a standing charge is
    due or another version begins. `version` is None before the first version.
    """

    date: date
    start_ms: int
    end_ms: int
    month: str
    year: str
    version: TariffVersion | None
    next_charge_ms: int | None
    standing_taxes: tuple[Taxed, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A stretch of one day in one band. `position_key`: where `c` of section 4 is counted."""

    start_ms: int
    end_ms: int
    day: Day
    version: TariffVersion
    band: Band
    month_key: tuple[str, str]
    year_key: tuple[str, str]
    position_key: tuple[str, str]
    energy_taxes: tuple[Taxed, ...]


def local_time(zone: ZoneInfo, at_ms: int) -> datetime:
    return (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone)


def local_date(zone: ZoneInfo, at_ms: int) -> date:
    """The date that a calendar in the zone shows at an instant."""
    whole = _date_of_hour(zone, at_ms // HOUR_MS)
    return local_time(zone, at_ms).date() if whole is None else whole


@lru_cache(maxsize=MEMO_LIMIT)
def _date_of_hour(zone: ZoneInfo, hour: int) -> date | None:
    """The one date of a whole hour since 1970; None where it has two, or where the clock is changed
    in it: that may go back across a midnight that is just over.
    """
    first, last = local_time(zone, hour * HOUR_MS), local_time(zone, (hour + 1) * HOUR_MS - 1)
    if first.date() != last.date() or first.utcoffset() != last.utcoffset():
        return None
    return first.date()


def _offset_ms(zone: ZoneInfo, at_ms: int) -> int:
    wall = local_time(zone, at_ms)
    return (wall.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND - at_ms


def _first(lower: int, upper: int, holds: Callable[[int], bool]) -> int:
    """The first instant in `(lower, upper]` from which on `holds` is true."""
    while upper - lower > 1:
        middle = (lower + upper) // 2
        lower, upper = (lower, middle) if holds(middle) else (middle, upper)
    return upper


def _offset_differs(zone: ZoneInfo, offset_ms: int, at_ms: int) -> bool:
    return _offset_ms(zone, at_ms) != offset_ms


def midnight_ms(zone: ZoneInfo, day: date) -> int:
    """The first instant of `day` in the zone, or of the day after where the zone skipped `day`."""
    wall = datetime(day.year, day.month, day.day, tzinfo=zone)
    at_ms = (wall - _EPOCH) // _MILLISECOND
    if local_time(zone, at_ms).replace(tzinfo=None, fold=0) == wall.replace(tzinfo=None):
        return at_ms
    # 00:00 does not exist: the clock jumps across it, less than a day before `at_ms`.
    return _first(at_ms - DAY_MS, at_ms, lambda ms: local_time(zone, ms).date() >= day)


def _offset_stretches(zone: ZoneInfo, start_ms: int, end_ms: int) -> Iterator[tuple[int, int, int]]:
    """`(from, to, offset)` with one UTC offset each."""
    cursor, offset = start_ms, _offset_ms(zone, start_ms)
    probe = start_ms
    while probe < end_ms:
        after = min(probe + OFFSET_PROBE_MS, end_ms)
        changed = _offset_ms(zone, after)
        if changed != offset:
            edge = _first(probe, after, partial(_offset_differs, zone, offset))
            if edge < end_ms:
                yield cursor, edge, offset
                cursor = edge
            offset = changed
        probe = after
    yield cursor, end_ms, _offset_ms(zone, cursor)


def wall_pieces(
    zone: ZoneInfo,
    start_ms: int,
    end_ms: int,
    minutes: Iterable[int],
    classify: Callable[[date, int], Kind],
) -> list[tuple[int, int, Kind]]:
    """Cut `[start, end)` where `classify(wall date, minute of the day)` changes; it may change only
    at `minutes` and at midnight.
    """
    edges = sorted({0, *minutes} - {MINUTES_PER_DAY})
    pieces: list[tuple[int, int, Kind]] = []
    for low, high, offset in _offset_stretches(zone, start_ms, end_ms):
        for wall_day in range((low + offset) // DAY_MS, (high + offset - 1) // DAY_MS + 1):
            day = date.fromordinal(_EPOCH_ORDINAL + wall_day)
            cuts = [wall_day * DAY_MS + minute * MINUTE_MS - offset for minute in edges]
            ends = [*cuts[1:], (wall_day + 1) * DAY_MS - offset]
            for minute, cut, following in zip(edges, cuts, ends, strict=True):
                begin, end = max(cut, low), min(following, high)
                if begin >= end:
                    continue
                kind = classify(day, minute)
                if pieces and pieces[-1][2] == kind:
                    begin = pieces.pop()[0]
                pieces.append((begin, end, kind))
    return pieces


def covers(window: Window, day: date, minute: int, matches: Callable[[Window, date], bool]) -> bool:
    """Section 4: the date on which the window began decides."""
    if window.from_minute < window.to_minute:
        return window.from_minute <= minute < window.to_minute and matches(window, day)
    if minute >= window.from_minute:
        return matches(window, day)
    return minute < window.to_minute and matches(window, day - timedelta(days=1))


def window_minutes(windows: Iterable[Window]) -> set[int]:
    return {minute for window in windows for minute in (window.from_minute, window.to_minute)}


def version_on(tariff: Tariff, day: date) -> TariffVersion | None:
    in_force = None
    for version in tariff.versions:
        if version.valid_from > day:
            break
        in_force = version
    return in_force


def day_of(tariff: Tariff, day: date) -> Day:
    known = tariff.days.get(day)
    if known is None:
        if len(tariff.days) >= MEMO_LIMIT:
            tariff.days.clear()
        known = tariff.days[day] = _work_out_day(tariff, day)
    return known


def day_at(tariff: Tariff, at_ms: int) -> Day:
    """The day in force just after `at_ms`."""
    day = day_of(tariff, local_date(tariff.zone, at_ms))
    while at_ms < day.start_ms:
        day = day_of(tariff, day.date - timedelta(days=1))
    while at_ms >= day.end_ms:
        day = day_of(tariff, day.date + timedelta(days=1))
    return day


def cell_at(tariff: Tariff, at_ms: int) -> Cell:
    """The cell in force just after `at_ms`; there is one from the first version on."""
    for cell in tariff.cells.get(at_ms // HOUR_MS, ()):
        if cell.start_ms <= at_ms < cell.end_ms:
            return cell
    if len(tariff.cells) >= MEMO_LIMIT:
        tariff.cells.clear()
    found = next(
        cell
        for cell in _work_out_cells(tariff, day_at(tariff, at_ms))
        if cell.start_ms <= at_ms < cell.end_ms
    )
    for hour in range(found.start_ms // HOUR_MS, (found.end_ms - 1) // HOUR_MS + 1):
        known = tariff.cells.get(hour, ())
        if all(cell.start_ms != found.start_ms for cell in known):
            tariff.cells[hour] = (*known, found)
    return found


def _work_out_day(tariff: Tariff, day: date) -> Day:
    start_ms = midnight_ms(tariff.zone, day)
    end_ms = midnight_ms(tariff.zone, day + timedelta(days=1))
    version = version_on(tariff, day)
    tomorrow = version_on(tariff, day + timedelta(days=1))
    if tomorrow is not version or (tomorrow is not None and tomorrow.standing_micro):
        next_charge_ms: int | None = end_ms
    else:
        later = [each.valid_from for each in tariff.versions if each.valid_from > day]
        next_charge_ms = midnight_ms(tariff.zone, later[0]) if later else None
    month = day.isoformat()[:7]
    return Day(
        date=day,
        start_ms=start_ms,
        end_ms=end_ms,
        month=month,
        year=month[:4],
        version=version,
        next_charge_ms=next_charge_ms,
        standing_taxes=_taxed(month, version.standing_taxes) if version else (),
    )


def _taxed(month: str, taxes: tuple[Tax, ...]) -> tuple[Taxed, ...]:
    return tuple(((month, tax.name, tax.ppm, tax.included), tax) for tax in taxes)


def _work_out_cells(tariff: Tariff, day: Day) -> Iterator[Cell]:
    version = day.version
    if version is None:
        return

    def matches(window: Window, began: date) -> bool:
        kind = HOLIDAY if began in tariff.holidays else began.weekday()
        return kind in window.days

    def band_of(wall_date: date, minute: int) -> int:
        return next(
            place
            for place, band in enumerate(version.bands)
            if not band.windows
            or any(covers(window, wall_date, minute, matches) for window in band.windows)
        )

    minutes = window_minutes(window for band in version.bands for window in band.windows)
    taxes = _taxed(day.month, version.energy_taxes)
    for start, end, place in wall_pieces(tariff.zone, day.start_ms, day.end_ms, minutes, band_of):
        name = version.bands[place].name
        month_key, year_key = (day.month, name), (day.year, name)
        yield Cell(
            start_ms=start,
            end_ms=end,
            day=day,
            version=version,
            band=version.bands[place],
            month_key=month_key,
            year_key=year_key,
            position_key=month_key if version.period == "month" else year_key,
            energy_taxes=taxes,
        )
