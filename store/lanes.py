"""What a worker knows of meters and their accounts between its batches: a lane for each.

A lane is a row of `LANE`, valid as long as both state rows are the versions that it was read from
(`xmin`: every change of a row, whoever makes it, gives it another one; migration 0018 makes the
rest of what a lane knows show there, too). `store.steady` rates readings by them.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from psycopg import Connection

from credit_engine.steady import STEADY, Integers, Rows, Steady, begin
from credit_engine.thresholds import low_credit_edge, rearm_micro
from store import binary
from store.binary import Int4s, Int8s, Texts
from store.pricings import Pricings
from store.settlement import AccountState, state_of
from store.sql import query
from store.terms import TermsCache

# Lanes that a worker keeps: about half a KiB each, and their numbers.
LANES_MAX = 1_500_000
LANES_FIRST = 1_024
# After it met rows that others had changed, a worker reads all anew for so many batches.
WARY_BATCHES = 50
# Many of a batch's lanes are more than one in so many.
MANY_OF = 4

# A meter and the account that it serves, as of the two rows' versions.
LANE = np.dtype([
    *((name, np.int64) for name in ("meter_id", "account_id", "gateway", "boot", "seq")),
    ("newest_ms", np.int64),
    # From here on time alone may change something.
    ("due_ms", np.int64),
    # When the newest reading since the last commit told the relay; 0: none did.
    ("relay_ms", np.int64),
    ("pricing_id", np.int64),
    ("local_day", np.int64),
    ("meter_version", np.int32),
    ("account_version", np.int32),
    # Whether a word "closed" of the relay says nothing new.
    ("closed", np.bool_),
    # Nothing is missing: a receipt promises no more than is held (store.gaps).
    ("whole", np.bool_),
    # It is called offline: what it says just now is news.
    ("away", np.bool_),
    ("steady", STEADY),
], align=True)  # fmt: skip

# Numbers of gateways in lanes: none, and whoever is not known to be one.
NO_GATEWAY, STRANGER = 0, -2
# The message came from the meter itself.
ITSELF = -1


class Stale(Exception):  # noqa: N818 - no error: the batch is read anew
    """A row is not the version that was rated."""


@dataclass(slots=True)
class Lanes:
    """What one worker keeps between its batches. Losing it costs a look, nothing else.

    `known`: the place in `rows` of each meter's lane. `gateways`: their numbers in lanes. Threads
    may share it, each with meters of its own, and hold `lock` while they read or change it; nobody
    waits for that with a transaction open.
    """

    limit: int = LANES_MAX
    known: dict[str, int] = field(default_factory=dict)
    rows: Rows = field(default_factory=lambda: np.zeros(LANES_FIRST, LANE), repr=False)
    gateways: dict[str, int] = field(default_factory=dict)
    # Of meters with lanes, gaps that late readings are filling: rows of `store.fills`, as octets.
    gaps: dict[str, bytes] = field(default_factory=dict, repr=False)
    pricings: Pricings = field(default_factory=Pricings, repr=False)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    # Counts how often all were forgotten: places from before belong to others now.
    age: int = 0
    _free: list[int] = field(default_factory=list)
    _used: int = 0
    _wary: int = 0

    def forget_changed(self, conn: Connection, numbers: Sequence[str], lanes: Rows) -> None:
        """Forget those whose rows are other versions now. Where they are many, others write the
        same accounts: then all are read at each batch for a while.
        """
        changed = conn.execute(
            query("changed_meters"),
            {
                "number": Texts(numbers),
                "account_id": Int8s(lanes["account_id"].tolist()),
                "account_version": Int4s(lanes["account_version"].tolist()),
                "meter_id": Int8s(lanes["meter_id"].tolist()),
                "meter_version": Int4s(lanes["meter_version"].tolist()),
            },
        ).fetchall()
        self.forget(number for (number,) in changed)
        if len(changed) * MANY_OF > len(lanes):
            self._wary = WARY_BATCHES

    def ready(
        self, conn: Connection, terms: TermsCache, numbers: Sequence[str], now_ms: int
    ) -> None:
        """Read the lanes of these meters that are not known or not steady any more."""
        if self._wary:
            self._wary -= 1
            self.forget(numbers)
        places = np.array([self.known.get(number, -1) for number in numbers])
        steady = self.rows["steady"]
        over = (
            (places < 0)
            | (self.rows["due_ms"][places] <= now_ms)
            | (steady["at_ms"][places] >= steady["end_ms"][places])
        )
        if not over.any():
            return
        missing = [numbers[place] for place in np.flatnonzero(over).tolist()]
        if len(self.known) + len(missing) > self.limit:
            self.known.clear()
            self.gaps.clear()
            self._free.clear()
            self._used = 0
            self.age += 1
        self._load(conn, terms, missing, now_ms)

    def keep(
        self, places: Integers, lanes: Rows, gaps: Mapping[str, bytes | None], age: int
    ) -> None:
        """Lanes and gaps as a commit left them, None those that it closed; `age` is that of when
        they were read.
        """
        with self.lock:
            if age != self.age:
                return
            whole(self.rows)[places] = whole(lanes)
            for number, gap in gaps.items():
                self.gaps.pop(number, None)
                if gap is not None and number in self.known:
                    self.gaps[number] = gap

    def forget(self, numbers: Iterable[str]) -> None:
        with self.lock:
            for number in numbers:
                self.gaps.pop(number, None)
                place = self.known.pop(number, None)
                if place is not None:
                    self._free.append(place)

    def _load(
        self, conn: Connection, terms: TermsCache, numbers: Sequence[str], now_ms: int
    ) -> None:
        self.forget(numbers)
        of = {"numbers": Texts(numbers)}
        rows = []
        for row in conn.execute(query("steady_meters"), of):
            state = state_of(row[14:], terms.positions)
            if _stands_still(row, state, now_ms):
                rows.append((row, state))
        terms.prepare(conn, {state.account_id: state.terms_revision for _, state in rows})
        begun = []
        for row, state in rows:
            agreed = terms.get(conn, state.account_id, state.terms_revision)
            steady = begin(agreed, state.position, _floor(state))
            if steady is None:
                continue
            begun.append((row, state, steady))
        pricings = {id(steady.pricing): steady.pricing for *_, steady in begun}
        numbered = self.pricings.numbers(conn, pricings)
        names = [row[0] for row, *_ in begun]
        lanes = [
            self._lane(row, state, numbered[id(steady.pricing)], steady)
            for row, state, steady in begun
        ]
        places = [self._place() for _ in lanes]
        self.rows[places] = np.array(lanes, LANE)
        self.known.update(zip(names, places, strict=True))

    def _place(self) -> int:
        """One that no lane has."""
        if self._free:
            return self._free.pop()
        if self._used == len(self.rows):
            self.rows = np.concatenate([self.rows, np.zeros(len(self.rows), LANE)])
        self._used += 1
        return self._used - 1

    def _lane(
        self, row: Sequence[Any], state: AccountState, pricing: int, steady: Steady
    ) -> tuple[Any, ...]:
        _, meter_id, gateway, _, _, boot, seq, _, reported, waits, gap, away, *versions = row[:14]
        due_ms = state.due_ms
        if state.low_credit_days is not None:
            due_ms = min(due_ms, state.expected_until_ms)
        number = NO_GATEWAY
        if gateway is not None:
            number = self.gateways.setdefault(gateway, len(self.gateways) + 1)
        newest_ms = max(state.newest_reading_ms, state.anchor_ms)
        day = binary.day_number(steady.pricing.cell.day.date)
        return (
            meter_id, state.account_id, number, boot, seq, newest_ms, due_ms, 0, pricing, day,
            *map(signed, versions), reported == "closed" and not waits, not gap, away, steady.row,
        )  # fmt: skip


def _stands_still(row: Sequence[Any], state: AccountState, now_ms: int) -> bool:
    """Whether nothing but consumption is to be expected of a meter and its account."""
    number, _, _, trusted, clock, boot, seq, desired, *_ = row
    edge = low_credit_edge(state.low_credit_micro, state.expected_micro)
    balance = state.balance_micro
    # Low stays low up to where it is re-armed; the other side ends at the edge itself.
    level = balance <= rearm_micro(edge) if state.low_credit else balance > edge
    return (
        bool(trusted)
        and clock != "lost"
        and boot is not None
        and seq is not None
        and desired == "closed"
        and state.position.installation.meter_id == number
        and not state.has_tail
        and state.supply == state.decided_supply == "connected"
        and not state.emergency_in_use
        and level
        and state.due_ms > now_ms
        and (state.low_credit_days is None or state.expected_until_ms > now_ms)
    )


def _floor(state: AccountState) -> int:
    """What the balance must stay above: nothing happens on the way down to it."""
    if state.low_credit:
        return 0
    return max(0, low_credit_edge(state.low_credit_micro, state.expected_micro))


def signed(version: int) -> int:
    """A row's version, the low 32 bits of a transaction's number, as an `integer` of SQL."""
    version &= 0xFFFF_FFFF
    return version - 0x1_0000_0000 if version >= 0x8000_0000 else version


def whole(lanes: Rows) -> Integers:
    """The same memory without its fields: moved whole, which is ten times as fast."""
    return lanes.view(np.int64).reshape(len(lanes), lanes.dtype.itemsize // 8)
