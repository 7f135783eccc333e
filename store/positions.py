"""Stored positions: those of accounts, and those that are kept for late facts to be rated from.

Kept are one a day, where an account stood before a gap, and one near the end of long days. One
more costs a row; one too few, that a day is rated again for each late fact.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson
from psycopg import Connection

from credit_engine.facts import Fact, Reading
from credit_engine.position import Position
from store.binary import Int8s, Texts
from store.sql import query

# Where a late fact makes us rate more than so many facts again, positions are kept so that the next
# one need not.
RATED_AGAIN_MAX = 12
# A reading that is late is rarely later than so many others.
LATE_READINGS = 48


@dataclass(slots=True)
class PositionCache:
    """Positions by the text that they are stored as: one that this worker wrote is not read anew.

    Equal texts are equal positions, so nothing that others write can make this wrong.
    """

    limit: int = 100_000
    _kept: dict[int, tuple[str, Position]] = field(default_factory=dict)

    def get(self, account_id: int, stored: str) -> Position:
        kept = self._kept.get(account_id)
        if kept is not None and kept[0] == stored:
            return kept[1]
        return Position.from_json(orjson.loads(stored))

    def text(self, account_id: int, position: Position) -> str:
        """The text to store, kept with what it says."""
        if len(self._kept) >= self.limit:
            self._kept.clear()
        stored = position_text(position)
        self._kept[account_id] = stored, position
        return stored


def positions_before(conn: Connection, instants_ms: Mapping[int, int]) -> dict[int, Position]:
    """By account: the newest that is kept before its instant, where there is one."""
    of = {"accounts": Int8s(list(instants_ms)), "before": Int8s(list(instants_ms.values()))}
    rows = conn.execute(query("checkpoints_before"), of)
    return {account: Position.from_json(form) for account, form in rows}


def worth_keeping(facts: Sequence[Fact], earliest_ms: int) -> Collection[int]:
    """Instants where the next late fact may begin, of the readings among all `facts` that are rated
    again because of one at `earliest_ms`.

    A buffer is replayed from its oldest row on: the next one is rated from just before this one.
    Others come in any order, from a meter that speaks each minute with a thousand readings in a
    day: they are rated from some way before the newest.
    """
    if len(facts) <= RATED_AGAIN_MAX:
        return ()
    instants = sorted({fact.at_ms for fact in facts if isinstance(fact, Reading)})
    kept = set(instants[: bisect_left(instants, earliest_ms)][-1:])
    if len(instants) > LATE_READINGS:
        kept.add(instants[-LATE_READINGS])
    return kept


def drop_positions_after(conn: Connection, instants_ms: Mapping[int, int]) -> None:
    """By account: what late facts have overtaken, all after its instant."""
    if instants_ms:
        of = {"accounts": Int8s(list(instants_ms)), "after": Int8s(list(instants_ms.values()))}
        conn.execute(query("drop_checkpoints_after"), of)


def keep_positions(conn: Connection, points: Iterable[tuple[int, Position]]) -> None:
    """Positions with their accounts."""
    kept = list(points)
    if kept:
        conn.execute(
            query("keep_checkpoints"),
            {
                "accounts": Int8s([account for account, _ in kept]),
                "anchors": Int8s([point.at_ms for _, point in kept]),
                "positions": Texts([position_text(point) for _, point in kept]),
            },
        )


def position_text(position: Position) -> str:
    """As it is stored: JSON, kept to the letter."""
    return orjson.dumps(position.to_json()).decode()
