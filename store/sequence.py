"""What a meter's counter says was lost: the open ends between readings that came.

Pure. A reading's place is (boot, seq); places are in the order of a meter's life, and a gap is
everything strictly between two places that were heard. `seq` is a persisted counter, which may go
on over a boot or begin anew with it (mqtt.md section 2): where the two cannot be told apart, the
reading interval decides whether anything can be missing at all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

# A device that does not count one by one would open a gap per reading; beyond this many the two
# oldest become one, which at worst asks for what is known.
GAPS_PER_METER = 32
# Asks for one gap: its first boot, its last, and at most two between.
BOOTS_PER_ASK = 4
SEQ_MAX = 2**53 - 1


class Place(NamedTuple):
    """Where a reading stands in its meter's life, and the instant that it is for."""

    boot: int
    seq: int
    ts_ms: int

    @property
    def counter(self) -> tuple[int, int]:
        return self.boot, self.seq


@dataclass(frozen=True, slots=True)
class Gap:
    """Readings after one place and before another; `id` None: not stored yet.

    `asks`, `asked_ms` and `requests` (commands) say how it was asked for; parts of a gap that was
    filled in the middle inherit them, so that a day's ask is not repeated for the rest.
    """

    after: Place
    before: Place
    id: int | None = None
    opened_ms: int = 0
    asks: int = 0
    asked_ms: int | None = None
    requests: tuple[str, ...] = ()


class Change(NamedTuple):
    """Gaps after some readings: those still open, in order, and ids of those that are filled."""

    open: tuple[Gap, ...]
    filled: tuple[int, ...]


def adjoin(a: Place, b: Place, interval_ms: int | None) -> bool:
    """Whether nothing is missing between `a` and the later `b`."""
    if a.boot == b.boot or b.seq > a.seq:
        return b.seq <= a.seq + 1
    # The counter began anew. Before its first reading nothing can be missing within one slot and
    # a half; where the interval is not known, a first count of 0 or 1 is a beginning.
    if interval_ms is None:
        return b.seq <= 1
    return (b.ts_ms - a.ts_ms) * 2 <= interval_ms * 3


def follow(
    known: Sequence[Gap],
    jumps: Iterable[tuple[Place, Place]],
    late: Iterable[Place],
    now_ms: int,
    interval_ms: int | None,
) -> Change:
    """Open a gap for each jump (from the newest place so far to a newer one); fill with `late`."""
    gaps = list(known)
    gaps += [Gap(a, b, opened_ms=now_ms) for a, b in jumps if not adjoin(a, b, interval_ms)]
    filled: list[int] = []
    for place in late:
        gaps = [part for gap in gaps for part in _split(gap, place, interval_ms, filled)]
    gaps.sort(key=lambda gap: gap.after.counter)
    while len(gaps) > GAPS_PER_METER:
        first, second, *rest = gaps
        if second.id is not None and first.id is not None:
            filled.append(second.id)
        kept = first if first.id is not None else replace(first, id=second.id)
        gaps = [replace(kept, before=second.before), *rest]
    return Change(tuple(gaps), tuple(filled))


def _split(gap: Gap, place: Place, interval_ms: int | None, filled: list[int]) -> tuple[Gap, ...]:
    if not gap.after.counter < place.counter < gap.before.counter:
        return (gap,)
    parts: list[Gap] = []
    if not adjoin(gap.after, place, interval_ms):
        parts.append(replace(gap, before=place))
    if not adjoin(place, gap.before, interval_ms):
        # The stored row stays with the first part.
        parts.append(replace(gap, after=place, id=None if parts else gap.id))
    if not parts and gap.id is not None:
        filled.append(gap.id)
    return tuple(parts)


def asks(gap: Gap) -> list[dict[str, int]]:
    """Arguments of the `resend` commands that ask for a gap: {boot, from, to}, both included."""
    a, b = gap.after, gap.before
    if a.boot == b.boot:
        return [{"boot": a.boot, "from": a.seq + 1, "to": b.seq - 1}]
    went_on = b.seq > a.seq
    first, last = a.seq + 1, max(b.seq - 1, 0)
    asked = [{"boot": a.boot, "from": first, "to": last if went_on else SEQ_MAX}]
    between = range(a.boot + 1, b.boot)[-(BOOTS_PER_ASK - 2) :]
    asked += [
        {"boot": boot, "from": first if went_on else 0, "to": last if went_on else SEQ_MAX}
        for boot in between
    ]
    return [*asked, {"boot": b.boot, "from": first if went_on else 0, "to": last}]
