"""The hot path: readings that move nothing but their account's register, balance and counts.

Lanes (`store.lanes`) rate their next readings, all of a batch at once, and ask the database
nothing. A batch is one guarded UPDATE and two COPYs, and beside them what fills gaps
(`store.fills`) and the signs of life of gateways whose messages are taken whole: where a single row
is another version than the one that was rated, nothing of the batch is written, what changed is
read anew, and what does not fit then goes the general way. So a lane affects cost, never meaning.

What a lane does not take - anything but a reading in order, or one that fills a gap, inside one
cell and block, above every threshold, of a meter that says nothing new - is left to `store.ingest`,
which knows all rules.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from psycopg import Connection
from psycopg.errors import IntegrityError

from credit_engine.steady import NUMBERS_MAX, Integers, Marks, Rows
from credit_engine.steady import take as rate
from schemas.identity import ACTIVE_IMPORT
from schemas.judging import RIGHT_WITHIN_MS
from schemas.telemetry import DecodedReading
from store import binary, fills, steady_rows
from store.answers import BatchAnswer, Receipt
from store.binary import Packed
from store.fills import Filling, Late
from store.incoming import Incoming, Recorded
from store.lanes import ITSELF, STRANGER, Lanes, Stale, signed, whole
from store.reports import Reports
from store.sql import query
from store.terms import TermsCache

# Later than any instant: nothing is too early for it.
_NO_INSTANT = 2**62

# What a reading of the total may say beside its numbers, for a lane to take it: a live one nothing
# new of its relay. (register, clock, replayed, asks for a receipt, relay)
_FORMS = [
    (ACTIVE_IMPORT, clock, replayed, asks, relay)
    for clock in ("sync", "drift")
    for replayed in (False, True)
    for asks in (False, True)
    for relay in (None, "closed", "open", "armed")
    if replayed or relay in {None, "closed"}
]
_CODES = {form: code for code, form in enumerate(_FORMS)}
_NO_CODE = -1
_REPLAYED = np.array([replayed for _, _, replayed, _, _ in _FORMS])
_PROMISES = np.array([asks or replayed for _, _, replayed, asks, _ in _FORMS])
_TELLS_RELAY = np.array([bool(relay) and not replayed for _, _, replayed, _, relay in _FORMS])

_PlainReading = tuple[DecodedReading, tuple[DecodedReading, ...]]


class _Taking:
    """The steady readings of one batch: taken by their lanes, and written at once.

    Its lanes are copies; those that are kept move when the batch is committed. A reading is named
    by its place among all that some lane may take (`_plain`).
    """

    def __init__(self, lanes: Lanes, messages: Sequence[Incoming], now_ms: int) -> None:
        self._lanes = lanes
        self._age = lanes.age
        self._now_ms = now_ms
        self._messages = messages
        self._plain: list[DecodedReading] = []
        # The other registers that were said at the same instant.
        self._others: dict[int, tuple[DecodedReading, ...]] = {}
        self._debits: list[Integers] = []
        # By message of a gateway: up to where the rows of each (meter, boot) are kept.
        self._kept: dict[int, dict[tuple[str, int], int]] = {}
        # Those of which nothing is left.
        self._whole: list[int] = []
        # Devices that come or go, by what the batch says: in which order they said that and what
        # else is known to the general way.
        self._stated: set[str] = set()
        self._collect()
        self._accepted = np.zeros(len(self._plain), np.bool_)
        if self._plain:
            self._look_up()

    @property
    def accepted(self) -> int:
        return int(np.count_nonzero(self._accepted))

    def _collect(self) -> None:
        """What a lane may take, as columns."""
        plain, of, senders, received = self._plain, [], [], []
        gateways = self._lanes.gateways
        for place, message in enumerate(self._messages):
            topic = message.topic
            if topic is None or message.frame is not None:
                continue
            if topic.kind == "state":
                self._stated.add(topic.device)
            sender, instant = ITSELF, message.received_ms
            if topic.side == "g":
                sender, instant = gateways.get(topic.device, STRANGER), None
            readings = message.decoded.readings
            if len(readings) > 1 and {each.register for each in readings} != {ACTIVE_IMPORT}:
                grouped = _grouped(readings)
                for nth, (_, others) in enumerate(grouped, start=len(plain)):
                    if others:
                        self._others[nth] = others
                readings = tuple(total for total, _ in grouped)
            plain += readings
            of += [place] * len(readings)
            senders += [sender] * len(readings)
            received += [_NO_INSTANT if instant is None else instant] * len(readings)
        if not plain:
            return
        meter, register, ts_ms, wh, boot, seq, clock, hist, rcpt, relay, _ = zip(
            *plain, strict=True
        )
        known = self._lanes.known
        self._places = np.array([known.get(each, -1) for each in meter])
        if self._stated:
            self._places[[each in self._stated for each in meter]] = -1
        forms = zip(register, clock, hist, rcpt, relay, strict=True)
        self._codes = np.array([_CODES.get(form, _NO_CODE) for form in forms])
        self._ts_ms, self._wh = np.array(ts_ms, np.int64), np.array(wh, np.int64)
        self._boot, self._seq = np.array(boot, np.int64), np.array(seq, np.int64)
        self._of, self._senders = of, np.array(senders)
        self._received_ms = np.array(received)

    # --- rating -----------------------------------------------------------------------------

    def _look_up(self) -> None:
        """The lanes of the readings that they may take."""
        self._may = np.flatnonzero((self._places >= 0) & (self._codes != _NO_CODE))
        self._touched, first, self._at = np.unique(
            self._places[self._may], return_index=True, return_inverse=True
        )
        self._numbers = [self._plain[place].meter for place in self._may[first]]
        self._work = self._lanes.rows.take(self._touched)
        self._moved = np.zeros(len(self._work), np.bool_)
        whole_ones, newest = self._work["whole"][self._at], self._work["seq"][self._at]
        # Which of them are from before the newest reading of a meter that misses some.
        self._late = ~whole_ones & (self._seq[self._may] < newest)
        self._filling: Filling | None = None

    def late(self) -> list[Late]:
        """Of meters that miss readings and said one from before their newest, the first such;
        without those that the gap that is known of them begins with.
        """
        if not self._plain:
            return []
        found: dict[str, Late] = {}
        for place in self._may[self._late]:
            reading = self._plain[place]
            known = found.get(reading.meter)
            if known is None or (reading.boot, reading.seq) < (known.boot, known.seq):
                found[reading.meter] = Late(reading.meter, reading.boot, reading.seq)
        gaps = self._lanes.gaps
        return [each for number, each in found.items() if not fills.is_next(each, gaps.get(number))]

    def take_all(self) -> None:
        """The first reading of each lane, then the second of those that have one, and so on."""
        if not self._plain:
            return
        if self._late.any():
            places = np.unique(self._at[self._late]).tolist()
            self._filling = fills.begin(self._lanes, self._numbers, self._work, places)
        may, at = self._may, self._at
        nth = np.zeros(len(may), np.int64)
        if len(at) > len(self._touched):
            order = np.argsort(at, kind="stable")
            begins = np.searchsorted(at[order], np.arange(len(self._touched)))
            nth[order] = np.arange(len(at)) - begins[at[order]]
        for turn in range(int(nth.max(initial=-1)) + 1):
            now = nth == turn
            self._take(may[now], at[now])

    def _take(self, readings: Integers, at: Integers) -> None:
        """At most one reading of each lane; `at`: where its lane stands in `_work`."""
        lanes = self._work.take(at)
        fit = self._fit(readings, lanes)
        if not fit.all():
            if self._filling is not None:
                self._fill(self._filling, readings[~fit], at[~fit])
            fitting = np.flatnonzero(fit)
            readings, at, lanes = readings[fitting], at[fitting], lanes.take(fitting)
        ts_ms, wh = self._ts_ms[readings], self._wh[readings]
        rated = rate(lanes["steady"], ts_ms, wh)
        taken = rated.taken
        self._accepted[readings] = taken
        self._moved[at] |= taken
        lanes["seq"] += taken
        lanes["newest_ms"] = np.where(taken, ts_ms, lanes["newest_ms"])
        tells = taken & _TELLS_RELAY[self._codes[readings]]
        lanes["relay_ms"] = np.where(tells, ts_ms, lanes["relay_ms"])
        whole(self._work)[at] = whole(lanes)
        charged = taken & (rated.energy_wh != 0)
        if charged.any():
            steady = lanes["steady"]
            debits = np.column_stack((
                steady["taxes"], lanes["account_id"], lanes["meter_id"], rated.from_ms, ts_ms,
                np.full(len(lanes), self._now_ms), wh, rated.energy_wh, rated.position_wh,
                steady["balance_micro"], lanes["pricing_id"], lanes["local_day"], rated.amounts,
                rated.bases,
            ))  # fmt: skip
            self._debits.append(debits[charged])

    def _fit(self, readings: Integers, lanes: Rows) -> Marks:
        """Whether each reading is its lane's next, and nothing but that."""
        ts_ms = self._ts_ms[readings]
        fit = (self._seq[readings] == lanes["seq"] + 1) & (self._boot[readings] == lanes["boot"])
        fit &= (lanes["newest_ms"] < ts_ms) & (ts_ms < lanes["due_ms"])
        fit &= ~_PROMISES[self._codes[readings]] | lanes["whole"]
        return np.asarray(fit & self._says_nothing_new(readings, lanes))

    def _says_nothing_new(self, readings: Integers, lanes: Rows) -> Marks:
        """Of who speaks for whom, of the relay, of the meter's clock and its connection."""
        codes, senders = self._codes[readings], self._senders[readings]
        same = (senders == ITSELF) | (senders == lanes["gateway"])
        same &= ~_TELLS_RELAY[codes] | lanes["closed"]
        early = self._ts_ms[readings] - self._received_ms[readings] > RIGHT_WITHIN_MS
        same &= ~lanes["away"] | (self._received_ms[readings] == _NO_INSTANT)
        return np.asarray(same & (~early | _REPLAYED[codes]))

    def _fill(self, filling: Filling, readings: Integers, at: Integers) -> None:
        """Readings that are not their lanes' next; at most one of each lane."""
        lanes = self._work.take(at)
        # The newest reading is the one that the account stands at, and is written again.
        fit = self._says_nothing_new(readings, lanes)
        fit &= lanes["newest_ms"] == lanes["steady"]["at_ms"]
        readings, at, lanes = readings[fit], at[fit], lanes[fit]
        codes, ts_ms = self._codes[readings], self._ts_ms[readings]
        filled, none_missing = filling.take(
            at, self._boot[readings], self._seq[readings], ts_ms, self._wh[readings]
        )
        self._accepted[readings] = filled
        self._moved[at] |= filled
        self._work["whole"][at] |= none_missing
        tells = filled & _TELLS_RELAY[codes]
        told_ms = np.maximum(lanes["relay_ms"], ts_ms)
        self._work["relay_ms"][at] = np.where(tells, told_ms, lanes["relay_ms"])

    # --- what is left -----------------------------------------------------------------------

    def left(self) -> list[Incoming]:
        """What of the messages the general way must handle."""
        rest: dict[int, list[DecodedReading]] = {}
        for place in np.flatnonzero(~self._accepted).tolist():
            readings = rest.setdefault(self._of[place], [])
            readings += (self._plain[place], *self._others.get(place, ()))
        whole = set(self._whole)
        left: list[Incoming] = []
        for place, message in enumerate(self._messages):
            if place in whole:
                continue
            decoded, readings = message.decoded, rest.get(place, [])
            if place in self._kept:
                rests = decoded._replace(readings=tuple(readings))
                left.append(replace(message, decoded=rests, kept=self._kept[place]))
            elif len(readings) == len(decoded.readings) or message.frame is not None:
                left.append(message)
            elif readings or decoded.refused:
                left.append(replace(message, decoded=decoded._replace(readings=tuple(readings))))
        return left

    def answers(self) -> list[BatchAnswer]:
        """What gateways are told of batches of which nothing is left."""
        messages = self._messages
        return [
            BatchAnswer(topic.device, messages[place].decoded.batch_id, self._kept[place])
            for place in self._whole
            if (topic := messages[place].topic) is not None
        ]

    def receipts(self) -> list[Receipt]:
        """What meters asked about. Only up to where every reading is held."""
        asked = self._accepted & _PROMISES[self._codes] & (self._senders == ITSELF)
        readings = [self._plain[place] for place in np.flatnonzero(asked)]
        said = [Receipt(each.meter, each.boot, each.seq) for each in readings]
        held = {} if self._filling is None else self._filling.held()
        return [
            min(each, Receipt(each.meter, *held[each.meter])) if each.meter in held else each
            for each in said
        ]

    # --- writing ----------------------------------------------------------------------------

    def _keep(self) -> None:
        """What gateways are told, as far as it is known here."""
        for place in np.flatnonzero(self._accepted & (self._senders != ITSELF)).tolist():
            reading = self._plain[place]
            of = self._kept.setdefault(self._of[place], {})
            counter = reading.meter, reading.boot
            if reading.seq > of.get(counter, -1):
                of[counter] = reading.seq
        missed = {self._of[place] for place in np.flatnonzero(~self._accepted).tolist()}
        self._whole = [place for place in self._kept if place not in missed and self._alone(place)]

    def _alone(self, place: int) -> bool:
        """Whether a gateway's message says no more than its readings."""
        message = self._messages[place]
        assert message.topic is not None, "it has readings"
        return not message.decoded.refused and message.topic.device not in self._stated

    def _hear(self, conn: Connection) -> None:
        """The gateways whose batches are taken whole."""
        reports, heard = Reports(self._now_ms), [self._messages[place] for place in self._whole]
        spoke = [(each.topic.device, each.said_now()) for each in heard if each.topic is not None]
        reports.know_gateways(conn, sorted({name for name, _ in spoke}))
        for name, prompt in spoke:
            reports.gateway_spoke(name, prompt=prompt)
        reports.write(conn)

    def write(self, conn: Connection) -> None:
        """All of it, in a transaction of its own. Errors: Stale, and then nothing is written."""
        self._keep()
        moved = self._work.take(np.flatnonzero(self._moved))
        with conn.transaction():
            row = conn.execute(query("own_version")).fetchone()
            assert row is not None, "a transaction has a number"
            self._move(conn, moved)
            if self._filling is not None:
                self._filling.write(conn, self._now_ms)
            _copy(conn, "copy_steady_readings", *self._rows())
            if self._debits:
                _copy(conn, "copy_debits", *self._debit_rows())
            if self._whole:
                self._hear(conn)
        moved["account_version"] = signed(row[0])
        moved["relay_ms"] = 0
        gaps = {} if self._filling is None else self._filling.kept()
        self._lanes.keep(self._touched[self._moved], moved, gaps, self._age)

    def forget_changed(self, conn: Connection) -> None:
        """Read anew, next time, what another one changed."""
        self._lanes.forget_changed(conn, self._numbers, self._work)

    def _move(self, conn: Connection, moved: Rows) -> None:
        # In the order in which everybody locks accounts.
        moved = moved.take(np.argsort(moved["account_id"]))
        steady = moved["steady"]
        first = np.arange(len(moved)) * NUMBERS_MAX + 1
        # The columns of `n` in `move_accounts`, in their order.
        moves = np.column_stack((
            moved["account_id"], moved["account_version"], moved["meter_id"],
            moved["meter_version"], steady["at_ms"], steady["balance_micro"], first,
            first + steady["count"] - 1, moved["boot"], moved["seq"], moved["relay_ms"],
        ))  # fmt: skip
        of = {
            "now_ms": self._now_ms,
            "count": len(moved),
            "moves": Packed(moves),
            "numbers": Packed(steady["numbers"]),
        }
        if conn.execute(query("move_accounts"), of).rowcount != len(moved):
            raise Stale

    def _rows(self) -> list[bytes]:
        """The readings, meter by meter: an index takes neighbours faster than strangers."""
        places = np.flatnonzero(self._accepted)
        at = np.searchsorted(self._touched, self._places[places])
        meters = self._work["meter_id"][at]
        order = np.argsort(meters, kind="stable")
        places, meters = places[order], meters[order]
        instants = steady_rows.instants(self._ts_ms[places])
        numbers = np.column_stack((
            meters, instants, self._wh[places], self._boot[places], self._seq[places],
        ))  # fmt: skip
        ends = [steady_rows.end(clock, replayed, self._now_ms) for _, clock, replayed, *_ in _FORMS]
        codes, plain = self._codes[places].tolist(), self._plain
        said = [plain[place] for place in places.tolist()]
        rests = [
            ends[code] + steady_rows.detail(reading.rest)
            for code, reading in zip(codes, said, strict=True)
        ]
        others = (
            [
                steady_rows.other_reading(meter, other, self._now_ms)
                for place, meter in zip(places.tolist(), meters.tolist(), strict=True)
                for other in self._others.get(place, ())
            ]
            if self._others
            else []
        )
        return [steady_rows.readings(numbers, rests), *others]

    def _debit_rows(self) -> list[bytearray]:
        """The debits, account by account, each one's in their order."""
        debits = np.concatenate(self._debits)
        debits = debits[np.argsort(debits[:, 1], kind="stable")]
        return [
            steady_rows.debits(int(taxes), debits[debits[:, 0] == taxes, 1:])
            for taxes in np.unique(debits[:, 0])
        ]


def _copy(conn: Connection, name: str, *rows: bytes | bytearray) -> None:
    with conn.cursor().copy(query(name)) as copy:
        copy.write(b"".join((binary.COPY_HEAD, *rows, binary.COPY_TAIL)))


def _grouped(readings: Sequence[DecodedReading]) -> list[_PlainReading]:
    """Each instant of a meter once: its total, with the other registers said beside it."""
    groups: dict[tuple[str, int, int, int], list[DecodedReading]] = {}
    for reading in readings:
        place = (reading.meter, reading.boot, reading.seq, reading.ts_ms)
        groups.setdefault(place, []).append(reading)
    return [_total_first(group) for group in groups.values()]


def _total_first(group: list[DecodedReading]) -> _PlainReading:
    if len(group) > 1:
        group.sort(key=lambda each: each.register != ACTIVE_IMPORT)
    return group[0], tuple(group[1:])


def take(
    conn: Connection, terms: TermsCache, lanes: Lanes, messages: Sequence[Incoming], now_ms: int
) -> tuple[Sequence[Incoming], Recorded]:
    """Commit the steady readings of a batch; what is left, and what became of those taken."""
    numbers = list({
        reading.meter
        for message in messages
        if message.frame is None
        for reading in message.decoded.readings
    })  # fmt: skip
    if not numbers:
        return messages, Recorded()
    for _ in range(2):
        with lanes.lock:
            lanes.ready(conn, terms, numbers, now_ms)
            taking = _Taking(lanes, messages, now_ms)
            late = taking.late()
            if late:
                fills.load(conn, terms, lanes, late)
            taking.take_all()
        if not taking.accepted:
            break
        try:
            taking.write(conn)
        except Stale:
            taking.forget_changed(conn)
            continue
        except IntegrityError:
            # A key is taken that nothing in these rows shows: the general way looks it up.
            break
        except BaseException:
            lanes.forget(numbers)
            raise
        left = taking.left()
        # The general way changes what it handles.
        lanes.forget(reading.meter for each in left for reading in each.decoded.readings)
        return left, Recorded(
            accepted=taking.accepted, receipts=taking.receipts(), answers=taking.answers()
        )
    lanes.forget(numbers)
    return messages, Recorded()
