"""The meters of one batch: what was known of them, what the batch says, and what is written back.

`seq` and `boot` are a meter's own order of its life. In order - the next count - costs nothing
here; a jump or something late is handed to `store.gaps`, a counter that runs back to `store.flags`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from psycopg import Connection

from credit_engine.days import DAY_MS
from schemas.judging import CLOCK_SET_FROM_MS, FUTURE_TOLERANCE_MS, RIGHT_WITHIN_MS
from schemas.telemetry import DecodedReading
from store import presence
from store.binary import Int8s, Texts
from store.presence import Presence
from store.sequence import Place
from store.sql import query

# How far apart two instants of one count are looked for: it is no key of the readings' table.
COUNTED_AROUND_MS = 2 * DAY_MS

FlagKind = Literal["seq_reused", "boot_reused", "take_over"]
# Older than any word that can be dated.
_EARLIEST_MS = 0


class Told(NamedTuple):
    """When a meter told its relay or its power: `said_ms` by its own clock.

    `received_ms`: as in Incoming. `sure`: it does not say of its clock that it is lost.
    """

    said_ms: int
    received_ms: int | None
    now_ms: int
    sure: bool = True

    @property
    def at_ms(self) -> int:
        """As it says, where its clock can be right. One that runs ahead would silence all that the
        meter says until then, and what it says from before 2000 would never count.
        """
        latest_ms = self.now_ms + FUTURE_TOLERANCE_MS
        if self.received_ms is not None:
            latest_ms = self.received_ms + RIGHT_WITHIN_MS
        right = self.sure and CLOCK_SET_FROM_MS <= self.said_ms <= latest_ms
        return self.said_ms if right else self.heard_ms

    @property
    def heard_ms(self) -> int:
        """By our clock alone; what may have waited at the broker counts where nothing else does."""
        return _EARLIEST_MS if self.received_ms is None else self.received_ms


@dataclass(slots=True)
class BatchMeter:
    """A meter of the batch, and what the batch says about it."""

    id: int
    number: str
    gateway: str | None
    boot: int | None
    seq: int | None
    seq_ms: int | None
    desired_relay: str
    interval_ms: int | None
    clock: str
    trusted: bool
    accounts: list[int]
    opened: list[int]
    relay: str | None = None
    relay_ms: int | None = None
    presence: Presence = field(default_factory=Presence)
    heard: bool = False
    # (newest place so far, newer place): something between them did not come, or not yet
    jumps: list[tuple[Place, Place]] = field(default_factory=list)
    late: list[Place] = field(default_factory=list)

    def account_at(self, ts_ms: int) -> int | None:
        """The account that a reading at this instant belongs to: the installation begun last."""
        if not self.accounts:
            return None
        chosen = self.accounts[0]
        for account, opened in zip(self.accounts, self.opened, strict=True):
            if opened < ts_ms:
                chosen = account
        return chosen

    def hear(self, reading: DecodedReading, received_ms: int | None, now_ms: int) -> None:
        """Keep the highest counter and the newest measured relay."""
        self.heard = True
        boot, seq = reading.boot, reading.seq
        if self.boot == boot and self.seq is not None and 0 <= seq - self.seq <= 1:
            if seq != self.seq:
                self.seq, self.seq_ms = seq, reading.ts_ms
        else:
            self._hear_apart(Place(boot, seq, reading.ts_ms))
        if reading.relay is not None and not reading.hist:
            told = Told(reading.ts_ms, received_ms, now_ms, sure=reading.tq != "lost")
            self.report(reading.relay, told)

    def hear_refused(self, reading: DecodedReading) -> None:
        """A sign of life, and perhaps what a gap missed; never the meter's newest place."""
        self.heard = True
        place = Place(reading.boot, reading.seq, reading.ts_ms)
        if self.boot is not None and self.seq is not None and place.counter < (self.boot, self.seq):
            self.late.append(place)

    def _hear_apart(self, place: Place) -> None:
        if self.boot is None or self.seq is None or self.seq_ms is None:
            self.boot, self.seq, self.seq_ms = place
            return
        newest = Place(self.boot, self.seq, self.seq_ms)
        if place.counter > newest.counter:
            # The adapter gives a foreign device, which has no counter, its instants for one.
            if place.seq != place.ts_ms:
                self.jumps.append((newest, place))
            self.boot, self.seq, self.seq_ms = place
        else:
            self.late.append(place)

    def ran_back(self, boot: int, seq: int, ts_ms: int, *, replayed: bool) -> FlagKind | None:
        """A counter that is lower at a newer instant: a clone, or a memory that was lost.

        A buffer that is replayed after the newest reading has lower counters and older instants.
        A replayed row of an earlier boot may carry an instant of a clock that was put right since.
        """
        if self.boot is None or self.seq is None or self.seq_ms is None or ts_ms <= self.seq_ms:
            return None
        if boot == self.boot:
            return "seq_reused" if seq <= self.seq else None
        return "boot_reused" if boot < self.boot and not replayed else None

    def report(self, relay: str, told: Told) -> None:
        """The relay as measured; the newest word counts."""
        self.heard = True
        at_ms = told.at_ms if self.clock != "lost" else told.heard_ms
        if self.relay_ms is None or at_ms >= self.relay_ms:
            self.relay, self.relay_ms = relay, at_ms


def load(conn: Connection, numbers: Texts) -> dict[str, BatchMeter]:
    """Lock the state rows of these meters and read them: {number: meter} of those registered."""
    of = {"numbers": numbers}
    conn.execute(query("lock_meters"), of)
    # Looked up after the locks: an installation that we waited for is seen.
    found: dict[str, BatchMeter] = {}
    for number, *rest, away in conn.execute(query("meters_of_batch"), of):
        found[number] = BatchMeter(rest[0], number, *rest[1:])
        found[number].presence.away = away
    return found


def counted(
    conn: Connection, readings: Iterable[tuple[BatchMeter, DecodedReading]]
) -> dict[tuple[int, int, int], int]:
    """Of readings whose counts are no newer than their meters' newest: the instants that these
    counts have already, as {(meter, boot, seq): instant}. What a gap missed is not looked for.
    """
    found: dict[tuple[int, int, int], int] = {}
    late: list[tuple[BatchMeter, DecodedReading]] = []
    for meter, reading in readings:
        if meter.boot is None or meter.seq is None or meter.seq_ms is None:
            continue
        newest, place = (meter.boot, meter.seq), (reading.boot, reading.seq)
        if place == newest:
            found[meter.id, meter.boot, meter.seq] = meter.seq_ms
        elif place < newest:
            late.append((meter, reading))
    if late:
        instants = [reading.ts_ms for _, reading in late]
        of = {
            "meters": Int8s([meter.id for meter, _ in late]),
            "registers": Texts([reading.register for _, reading in late]),
            "boots": Int8s([reading.boot for _, reading in late]),
            "seqs": Int8s([reading.seq for _, reading in late]),
            "ts": Int8s(instants),
            "around_ms": COUNTED_AROUND_MS,
            "first_ms": min(instants) - COUNTED_AROUND_MS,
            "last_ms": max(instants) + COUNTED_AROUND_MS,
        }
        # planned for this range, see store.facts.stored_facts
        rows = conn.execute(query("counted_readings"), of, prepare=False)
        found |= {(meter, boot, seq): ts_ms for meter, boot, seq, ts_ms in rows}
    return found


def write(conn: Connection, meters: Iterable[BatchMeter], now_ms: int) -> list[int]:
    """What the meters reported; a last will, which is the broker's word, is no sign of life.

    Returns the milliseconds from payment to supply reported on, of those that it was off for.
    """
    known = sorted(meters, key=lambda meter: meter.id)
    heard = [meter for meter in known if meter.heard]
    said = [meter for meter in known if meter.presence.online is not None]
    if said:
        of: dict[str, object] = {"meters": [meter.id for meter in said]}
        of |= presence.columns([meter.presence for meter in said], now_ms)
        conn.execute(query("mark_online"), of)
    if not heard:
        return []
    conn.execute(
        query("update_meters"),
        {
            "now_ms": now_ms,
            "meter_id": Int8s([meter.id for meter in heard]),
            "boot": Int8s([meter.boot for meter in heard]),
            "seq": Int8s([meter.seq for meter in heard]),
            "seq_ms": Int8s([meter.seq_ms for meter in heard]),
            "relay": Texts([meter.relay for meter in heard]),
            "relay_ms": Int8s([meter.relay_ms for meter in heard]),
        },
    )
    closed = [meter.id for meter in heard if meter.relay == "closed"]
    if not closed:
        return []
    on = {"meters": Int8s(closed), "now_ms": now_ms}
    return [took_ms for back, took_ms in conn.execute(query("mark_on_supply"), on) if back]
