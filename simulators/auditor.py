"""An independent opinion of what must be stored and what must be left on an account.

Knows what the meters really sent, and simple tariffs: blocks per calendar month, one band, a
daily standing charge, no taxes, no debt. It shares no line with the credit
engine, and counts in another way: whole months by their end values, not segment after segment.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import pairwise

from schemas.decoding import decode_up
from schemas.identity import ACTIVE_IMPORT
from schemas.topics import Kind, Topic


class Journal:
    """What the broker acknowledged: hand `note` to the fleet as `Site.sent`."""

    def __init__(self) -> None:
        self._values: dict[str, dict[int, int]] = {}

    def note(self, meter: str, kind: Kind, payload: bytes) -> None:
        """Raises AssertionError if one meter gives two values for one instant."""
        if kind != "reading":
            return
        # The meter's own words cannot lie in the future of any later clock.
        decoded = decode_up(Topic("m", meter, "up", kind), payload, None, 1 << 52)
        assert not decoded.refused, decoded.refused
        values = self._values.setdefault(meter, {})
        for reading in decoded.readings:
            known = values.setdefault(reading.ts_ms, reading.value_wh)
            assert known == reading.value_wh, reading

    def expected(self) -> dict[tuple[str, str, int], int]:
        """What must be stored: (meter, register, ts_ms) -> Wh, each once however often sent."""
        return {
            (meter, ACTIVE_IMPORT, ts_ms): wh
            for meter, values in self._values.items()
            for ts_ms, wh in values.items()
        }

    def curve(self, meter: str) -> list[tuple[int, int]]:
        """(ts_ms, Wh) of one meter in time order."""
        return sorted(self._values.get(meter, {}).items())


@dataclass(frozen=True, slots=True)
class SimpleTariff:
    """Blocks (upper edge in Wh or None, micro-units per Wh) of each calendar month, graduated."""

    blocks: Sequence[tuple[int | None, int]]
    standing_per_day_micro: int = 0
    zone: tzinfo = UTC

    def price_micro(self, wh: int) -> int:
        """The price of the first `wh` of a month."""
        total, below = 0, 0
        for edge, micro_per_wh in self.blocks:
            inside = (wh if edge is None else min(wh, edge)) - below
            if inside <= 0:
                break
            total += inside * micro_per_wh
            below += inside
        return total

    def midnights(self, after_ms: int, until_ms: int) -> int:
        """How many local days begin in (after_ms, until_ms]."""
        first, last = (
            datetime.fromtimestamp(at_ms // 1000, self.zone).toordinal()
            for at_ms in (after_ms, until_ms)
        )
        return last - first

    def month_starts(self, from_ms: int, to_ms: int) -> list[int]:
        """The local midnights of first days of months in [from_ms, to_ms]."""
        local = datetime.fromtimestamp(from_ms // 1000, self.zone)
        year, month = local.year, local.month
        starts: list[int] = []
        while True:
            start_ms = int(datetime(year, month, 1, tzinfo=self.zone).timestamp()) * 1000
            if start_ms > to_ms:
                return starts
            if start_ms >= from_ms:
                starts.append(start_ms)
            year, month = year + month // 12, month % 12 + 1


def expected_balance_micro(
    tariff: SimpleTariff,
    opening: tuple[int, int],
    curve: Sequence[tuple[int, int]],
    top_ups: Mapping[int, int],
    until_ms: int,
) -> int:
    """What is left at `until_ms` of `top_ups` ({instant: micro}) for readings since `opening`.

    Readings after `until_ms` count for nothing, as if they had not come yet. No reading may be
    one that the rating contract quarantines.
    """
    points = [opening, *((ts, wh) for ts, wh in curve if opening[0] < ts <= until_ms)]
    last_ms = points[-1][0]
    edges = [opening[0], *tariff.month_starts(opening[0] + 1, last_ms), last_ms]
    used = [_at(points, edge) for edge in edges]
    energy = sum(tariff.price_micro(after - before) for before, after in pairwise(used))
    days = tariff.midnights(opening[0], until_ms)
    paid = sum(micro for at_ms, micro in top_ups.items() if at_ms <= until_ms)
    return paid - energy - days * tariff.standing_per_day_micro


def _at(points: Sequence[tuple[int, int]], ms: int) -> int:
    """The register at `ms`, placed as the rating contract's clause 3 says: floor, per interval."""
    i = bisect_left(points, (ms, -1))
    if points[i][0] == ms:
        return points[i][1]
    (before_ms, before), (after_ms, after) = points[i - 1], points[i]
    return before + (after - before) * (ms - before_ms) // (after_ms - before_ms)
