"""The hot path: readings that move nothing but their account's register, balance and counts.

A `Lane` is what a worker knows of a meter and its account. It rates their next readings without
asking the database, as long as both state rows are the versions that it was read from (`xmin`:
every change of a row, whoever makes it, gives it another one; migration 0018 makes the rest of what
a lane knows show there, too). A batch is one guarded UPDATE and two COPYs: where a single row is
another version than the one that was rated, nothing of the batch is written, what changed is read
anew, and what does not fit then goes the general way. So a lane affects cost, never meaning.

What a lane does not take - anything but a reading in order, inside one cell and block, above every
threshold, of a meter that says nothing new - is left to `store.ingest`, which knows all rules.
"""

import hashlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import orjson
from psycopg import Connection
from psycopg.errors import IntegrityError

from credit_engine.steady import Mark, Pricing, Steady, begin
from credit_engine.terms import Terms
from credit_engine.thresholds import low_credit_edge, rearm_micro
from schemas.identity import ACTIVE_IMPORT
from schemas.telemetry import DecodedReading
from store import binary, clocks, steady_rows
from store.answers import Receipt
from store.binary import Int4s, Int8s, Packed, Texts
from store.incoming import Incoming, Recorded
from store.ledger import numbers_of_accounts
from store.settlement import AccountState, TermsCache, state_of
from store.sql import query

# Lanes that a worker keeps: about 1 KiB each.
LANES_MAX = 1_500_000
# After it met rows that others had changed, a worker reads all anew for so many batches.
WARY_BATCHES = 50
# Many of a batch's lanes are more than one in so many.
MANY_OF = 4

_PlainReading = tuple[DecodedReading, tuple[DecodedReading, ...]]


class _Stale(Exception):  # noqa: N818 - no error: the batch is read anew
    """A row is not the version that was rated."""


@dataclass(slots=True)
class Lane:
    """A meter and the account that it serves, as of the two rows' versions."""

    number: str
    meter_id: int
    gateway: str | None
    boot: int
    seq: int
    # Whether a word "closed" of the relay says nothing new.
    closed: bool
    # Nothing is missing: a receipt promises no more than is held (store.gaps).
    whole: bool
    meter_version: int
    account_version: int
    account_id: int
    newest_ms: int
    # From here on time alone may change something.
    due_ms: int
    steady: Steady
    day: int
    relay_ms: int | None = None

    def mark(self) -> "_Mark":
        return self, self.seq, self.newest_ms, self.steady.mark()


# A lane as it was before a batch.
_Mark = tuple[Lane, int, int, Mark]


@dataclass(slots=True)
class Lanes:
    """What one worker keeps between its batches. Losing it costs a look, nothing else."""

    limit: int = LANES_MAX
    known: dict[str, Lane] = field(default_factory=dict)
    pricings: dict[bytes, int] = field(default_factory=dict)
    _wary: int = 0

    def forget_changed(self, conn: Connection, lanes: Sequence[Lane]) -> None:
        """Forget those whose rows are other versions now. Where they are many, others write the
        same accounts: then all are read at each batch for a while.
        """
        changed = conn.execute(
            query("changed_meters"),
            {
                "number": Texts([lane.number for lane in lanes]),
                "account_id": Int8s([lane.account_id for lane in lanes]),
                "account_version": Int4s([lane.account_version for lane in lanes]),
                "meter_id": Int8s([lane.meter_id for lane in lanes]),
                "meter_version": Int4s([lane.meter_version for lane in lanes]),
            },
        ).fetchall()
        self.forget(number for (number,) in changed)
        if len(changed) * MANY_OF > len(lanes):
            self._wary = WARY_BATCHES

    def ready(
        self, conn: Connection, terms: TermsCache, numbers: Iterable[str], now_ms: int
    ) -> None:
        """Read the lanes of these meters that are not known or not steady any more."""
        if self._wary:
            self._wary -= 1
            self.forget(numbers)
        known = self.known
        missing = [
            number
            for number in numbers
            if (lane := known.get(number)) is None or lane.due_ms <= now_ms or lane.steady.ended
        ]
        if not missing:
            return
        if len(known) + len(missing) > self.limit:
            known.clear()
        self._load(conn, terms, missing, now_ms)

    def forget(self, numbers: Iterable[str]) -> None:
        for number in numbers:
            self.known.pop(number, None)

    def _load(
        self, conn: Connection, terms: TermsCache, numbers: Sequence[str], now_ms: int
    ) -> None:
        self.forget(numbers)
        of = {"numbers": Texts(numbers)}
        rows = []
        for row in conn.execute(query("steady_meters"), of):
            state = state_of(row[13:], terms.positions)
            if _stands_still(row, state, now_ms):
                rows.append((row, state))
        terms.prepare(conn, (state for _, state in rows))
        for row, state in rows:
            agreed = terms.get(conn, state.account_id, state.terms_revision)
            lane = _lane(row, state, agreed)
            if lane is not None:
                self.known[lane.number] = lane


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


def _lane(row: Sequence[Any], state: AccountState, terms: Terms) -> Lane | None:
    number, meter_id, gateway, _, _, boot, seq, _, reported, waits, gap, *versions = row[:13]
    meter_version, account_version = map(_signed, versions)
    floor = 0 if state.low_credit else low_credit_edge(state.low_credit_micro, state.expected_micro)
    steady = begin(terms, state.position, max(0, floor))
    if steady is None:
        return None
    due_ms = state.due_ms
    if state.low_credit_days is not None:
        due_ms = min(due_ms, state.expected_until_ms)
    return Lane(
        number=number,
        meter_id=meter_id,
        gateway=gateway,
        boot=boot,
        seq=seq,
        closed=reported == "closed" and not waits,
        whole=not gap,
        meter_version=meter_version,
        account_version=account_version,
        account_id=state.account_id,
        newest_ms=max(state.newest_reading_ms, state.anchor_ms),
        due_ms=due_ms,
        steady=steady,
        day=binary.day_number(steady.pricing.cell.day.date),
    )


def _signed(version: int) -> int:
    """A row's version, the low 32 bits of a transaction's number, as an `integer` of SQL."""
    version &= 0xFFFF_FFFF
    return version - 0x1_0000_0000 if version >= 0x8000_0000 else version


class _Taking:
    """The steady readings of one batch: taken one by one, written at once."""

    def __init__(self, lanes: Lanes, now_ms: int) -> None:
        self._known = lanes.known
        self._pricings = lanes.pricings
        self._now_ms = now_ms
        self._ends = steady_rows.ends(now_ms)
        self._readings = array("q")
        self._rests: list[bytes] = []
        self._others: list[bytes] = []
        # By the number of taxes: numbers of debits, and the pricing of each.
        self._debits: dict[int, tuple[array[int], list[Pricing]]] = {}
        self._touched: dict[str, _Mark] = {}
        self.accepted = 0
        self.receipts: list[Receipt] = []

    def message(self, message: Incoming) -> Incoming | None:
        """What of a message is left to the general way; None: nothing."""
        topic, readings = message.topic, message.decoded.readings
        if topic is None or not readings or message.frame is not None:
            return message
        if topic.side == "g":
            return self._batch(message, topic.device)
        received_ms = message.received_ms
        if len(readings) == 1 and not message.decoded.refused:
            (reading,) = readings
            lane = self._known.get(reading.meter)
            if lane is None or not self._take(lane, reading, (), received_ms):
                return message
            if reading.rcpt or reading.hist:
                self.receipts.append(Receipt(reading.meter, reading.boot, reading.seq))
            return None
        left: list[DecodedReading] = []
        for reading, others in _grouped(readings):
            lane = self._known.get(reading.meter)
            if lane is None or not self._take(lane, reading, others, received_ms):
                left += (reading, *others)
            elif reading.rcpt or reading.hist:
                self.receipts.append(Receipt(reading.meter, reading.boot, reading.seq))
        if len(left) == len(readings):
            return message
        if not left and not message.decoded.refused:
            return None
        return replace(message, decoded=message.decoded._replace(readings=tuple(left)))

    def _batch(self, message: Incoming, gateway: str) -> Incoming:
        """A gateway is heard, and answered, by the general way."""
        left: list[DecodedReading] = []
        kept: dict[tuple[str, int], int] = {}
        for reading, others in _grouped(message.decoded.readings):
            lane = self._known.get(reading.meter)
            if (
                lane is None
                or lane.gateway != gateway
                or not self._take(lane, reading, others, None)
            ):
                left += (reading, *others)
            else:
                kept[reading.meter, reading.boot] = reading.seq
        return replace(message, decoded=message.decoded._replace(readings=tuple(left)), kept=kept)

    def _take(
        self,
        lane: Lane,
        reading: DecodedReading,
        others: tuple[DecodedReading, ...],
        received_ms: int | None,
    ) -> bool:
        meter, register, ts_ms, wh, boot, seq, tq, hist, rcpt, relay, rest = reading
        if (
            seq != lane.seq + 1
            or boot != lane.boot
            or register != ACTIVE_IMPORT
            or not lane.newest_ms < ts_ms < lane.due_ms
            or tq == "lost"
            or ((rcpt or hist) and not lane.whole)
        ):
            return False
        if not hist:
            if relay is not None and (relay != "closed" or not lane.closed):
                return False
            if received_ms is not None and ts_ms - received_ms > clocks.RIGHT_WITHIN_MS:
                return False
        if meter not in self._touched:
            self._touched[meter] = lane.mark()
        steady = lane.steady
        from_ms, position_wh, from_wh = steady.at_ms, steady.consumed_wh, steady.wh
        amounts = steady.take(ts_ms, wh)
        if amounts is None:
            return False
        lane.seq, lane.newest_ms = seq, ts_ms
        if relay is not None and not hist:
            lane.relay_ms = ts_ms
        self.accepted += 1
        self._readings.extend((lane.meter_id, steady_rows.instant(ts_ms), wh, boot, seq))
        self._rests.append(self._ends[tq, hist, True] + steady_rows.detail(rest))
        if others:
            self._keep_others(lane, others)
        if amounts:
            debit = (
                lane.account_id, lane.meter_id, from_ms, ts_ms, self._now_ms, wh, wh - from_wh,
                position_wh, steady.balance_micro, 0, lane.day, *amounts, *steady.bases(),
            )  # fmt: skip
            self._debit(len(amounts) - 2, debit, steady.pricing)
        return True

    def _debit(self, taxes: int, debit: tuple[int, ...], pricing: Pricing) -> None:
        of_kind = self._debits.get(taxes)
        if of_kind is None:
            of_kind = self._debits[taxes] = (array("q"), [])
        of_kind[0].extend(debit)
        of_kind[1].append(pricing)

    def _keep_others(self, lane: Lane, others: tuple[DecodedReading, ...]) -> None:
        for other in others:
            where = (other.register, other.ts_ms, other.value_wh, other.boot, other.seq)
            row = steady_rows.other_reading(lane.meter_id, *where)
            end = self._ends[other.tq, other.hist, False]
            self._others.append(row + end + steady_rows.detail(other.rest))

    def lanes_touched(self) -> list[Lane]:
        return [mark[0] for mark in self._touched.values()]

    def undo(self) -> None:
        """The lanes as they were."""
        for lane, seq, newest_ms, mark in self._touched.values():
            lane.seq, lane.newest_ms, lane.relay_ms = seq, newest_ms, None
            lane.steady.back_to(mark)

    def write(self, conn: Connection) -> None:
        """All of it, in a transaction of its own. Errors: _Stale, and then nothing is written."""
        marks = self._touched.values()
        lanes = [lane for lane, _, newest_ms, _ in marks if lane.newest_ms != newest_ms]
        lanes.sort(key=attrgetter("account_id"))
        with conn.transaction():
            row = conn.execute(query("own_version")).fetchone()
            assert row is not None, "a transaction has a number"
            self._move(conn, lanes)
            rows = steady_rows.readings(self._readings, self._rests)
            _copy(conn, "copy_steady_readings", rows, *self._others)
            if self._debits:
                _copy(conn, "copy_debits", *self._packed(conn))
        version = _signed(row[0])
        for lane in lanes:
            lane.account_version = version
            lane.relay_ms = None

    def _move(self, conn: Connection, lanes: Sequence[Lane]) -> None:
        moves, numbers = array("q"), array("q")
        first = 1
        for lane in lanes:
            steady = lane.steady
            moved = steady.numbers
            last = first + len(moved) - 1
            numbers.extend(moved)
            # The columns of `n` in `move_accounts`, in their order.
            moves.extend((
                lane.account_id, lane.account_version, lane.meter_id, lane.meter_version,
                steady.at_ms, steady.balance_micro, first, last, lane.boot, lane.seq,
                lane.relay_ms or 0,
            ))  # fmt: skip
            first = last + 1
        of = {
            "now_ms": self._now_ms,
            "count": len(lanes),
            "moves": Packed(moves),
            "numbers": Packed(numbers),
        }
        if conn.execute(query("move_accounts"), of).rowcount != len(lanes):
            raise _Stale

    def _packed(self, conn: Connection) -> list[bytearray]:
        rows: list[bytearray] = []
        ids: dict[int, int] = {}
        for taxes, (numbers, pricings) in self._debits.items():
            for pricing in {id(each): each for each in pricings}.values():
                ids[id(pricing)] = _pricing_id(conn, self._pricings, pricing)
            # The place that `_take` left for it.
            width = steady_rows.DEBIT_NUMBERS + 2 + 2 * taxes
            numbers[steady_rows.DEBIT_NUMBERS - 2 :: width] = array(
                "q", [ids[id(pricing)] for pricing in pricings]
            )
            rows.append(steady_rows.debits(taxes, numbers))
        return rows


def _copy(conn: Connection, name: str, *rows: bytes | bytearray) -> None:
    with conn.cursor().copy(query(name)) as copy:
        copy.write(b"".join((binary.COPY_HEAD, *rows, binary.COPY_TAIL)))


def _grouped(readings: Sequence[DecodedReading]) -> Iterable[_PlainReading]:
    """Each instant of a meter once: its total, with the other registers said beside it."""
    if len(readings) == 1:
        return ((readings[0], ()),)
    groups: dict[tuple[str, int, int, int], list[DecodedReading]] = {}
    for reading in readings:
        place = (reading.meter, reading.boot, reading.seq, reading.ts_ms)
        groups.setdefault(place, []).append(reading)
    return [_total_first(group) for group in groups.values()]


def _total_first(group: list[DecodedReading]) -> _PlainReading:
    if len(group) > 1:
        group.sort(key=lambda each: each.register != ACTIVE_IMPORT)
    return group[0], tuple(group[1:])


def _pricing_id(conn: Connection, known: dict[bytes, int], pricing: Pricing) -> int:
    """The number of a pricing in the database, which is given once."""
    cell = pricing.cell
    legs = numbers_of_accounts(conn, pricing.accounts)
    body: Mapping[str, object] = {
        "valid_from": cell.version.valid_from.isoformat(),
        "period": cell.position_key[0],
        "method": cell.band.method,
        "taxes": [
            {"name": tax.name, "ppm": tax.ppm, "included": tax.included}
            for _, tax in cell.energy_taxes
        ],
    }
    said = orjson.dumps([cell.band.name, pricing.price_micro_per_wh, legs, body])
    sha256 = hashlib.sha256(said).digest()
    found = known.get(sha256)
    if found is not None:
        return found
    conn.execute(
        query("add_pricing"),
        {
            "sha256": sha256,
            "band": cell.band.name,
            "price": pricing.price_micro_per_wh,
            "legs": legs,
            "body": orjson.dumps(body).decode(),
        },
    )
    row = conn.execute(query("find_pricing"), {"sha256": sha256}).fetchone()
    assert row is not None, "it was there or was added"
    known[sha256] = row[0]
    return int(row[0])


def take(
    conn: Connection, terms: TermsCache, lanes: Lanes, messages: Sequence[Incoming], now_ms: int
) -> tuple[Sequence[Incoming], Recorded]:
    """Commit the steady readings of a batch; what is left, and what became of those taken."""
    numbers = {
        reading.meter
        for message in messages
        if message.frame is None
        for reading in message.decoded.readings
    }
    if not numbers:
        return messages, Recorded()
    for _ in range(2):
        lanes.ready(conn, terms, numbers, now_ms)
        taking = _Taking(lanes, now_ms)
        left = [rest for each in messages if (rest := taking.message(each)) is not None]
        if not taking.accepted:
            break
        try:
            taking.write(conn)
        except _Stale:
            taking.undo()
            lanes.forget_changed(conn, taking.lanes_touched())
            continue
        except IntegrityError:
            # A key is taken that nothing in these rows shows: the general way looks it up.
            break
        except BaseException:
            lanes.forget(numbers)
            raise
        # The general way changes what it handles.
        lanes.forget(reading.meter for each in left for reading in each.decoded.readings)
        return left, Recorded(accepted=taking.accepted, receipts=taking.receipts)
    lanes.forget(numbers)
    return messages, Recorded()
