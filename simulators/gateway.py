"""One gateway (data concentrator) as a state machine, with the meters behind it.

The meters have no connection of their own: what they read stays in their buffers, and the gateway
sends it in batches on a common grid of slots, the newest slot first and live, then what is older,
oldest first, as `hist`. One batch is in the air at a time, until the server's receipt: rows are
freed by it alone, and only those that were in the batch, since what is older may still be here.
Commands name their meter and are handed down as they came; answers and events go up with its name.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import cbor2

from schemas.commands import BatchReceipt, encode, parse_gateway_receipt
from schemas.decoding import LIMIT_BYTES
from schemas.errors import DomainError
from schemas.identity import ACTIVE_IMPORT
from schemas.quantities import format_instant, parse_instant_ms
from schemas.topics import Kind, Side
from simulators.meter import Meter, Publish
from simulators.meter_state import MeterState, Row

MODEL = "SIM-DC"
FIRMWARE = "1.0"
# A hundred meters and ten slots; with few slots well under the 64 KiB of a gateway's message.
ROWS_PER_BATCH = 1000
SLOTS_PER_BATCH = 96
# A batch without a receipt is said again after this long.
RETRY_MS = 10 * 60 * 1000


class Buffered(NamedTuple):
    """A row of one of the meters."""

    meter: str
    row: Row


class Gateway:
    """Drive it with `power_up`, then `tick`, `receive`, `connected`, `disconnected`, like a meter.

    `interval_ms` is the grid of its slots; `cbor` sends batches in CBOR. `state` is its own
    memory: how often it has booted.
    """

    side: Side = "g"

    def __init__(
        self,
        name: str,
        meters: Iterable[Meter],
        state: MeterState,
        *,
        interval_ms: int,
        cbor: bool = False,
    ) -> None:
        self.name = name
        self.state = state
        self.cbor = cbor
        self._meters: Mapping[str, Meter] = {meter.plate.meter: meter for meter in meters}
        self._interval_ms = interval_ms
        self._online = False
        self._serial = 0
        self._in_air: dict[str, list[Buffered]] = {}
        self._sent_ms = 0

    @property
    def alive_ms(self) -> int:
        """The latest instant that any of its meters lived."""
        return max((meter.state.alive_ms for meter in self._meters.values()), default=0)

    def memories(self) -> Iterator[tuple[str, MeterState]]:
        """What must be kept when the power fails: its own and its meters'."""
        yield self.name, self.state
        for number, meter in self._meters.items():
            yield number, meter.state

    def buffered(self) -> int:
        """Rows that no receipt covers yet."""
        return sum(len(meter.state.pending) for meter in self._meters.values())

    # --- life ---------------------------------------------------------------------------------

    def power_up(self, now_ms: int) -> list[Publish]:
        """A new boot of the gateway and of its meters. Raises DomainError `clock_behind`."""
        self.state.boot += 1
        self._online = False
        return [
            said
            for number, meter in self._meters.items()
            for said in self._up(number, meter.power_up(now_ms))
        ]

    def connected(self, now_ms: int) -> list[Publish]:
        """Hello, and the first batch."""
        self._online = True
        self._in_air.clear()
        said = self._read(now_ms)
        form: dict[str, object] = {
            "v": 1,
            "model": MODEL,
            "fw": FIRMWARE,
            "boot": self.state.boot,
            "ts": format_instant(now_ms),
            "tq": "sync",
            "buf": {"rows": self.buffered()},
        }
        return [Publish("hello", encode(form)), *self._next_batch(now_ms), *said]

    def disconnected(self) -> None:
        """Rows stay in the buffers until `connected`."""
        self._online = False
        self._in_air.clear()

    def next_wake_ms(self) -> int:
        """The next instant at which `tick` has something to do."""
        due_ms = min(meter.next_wake_ms() for meter in self._meters.values())
        return min(due_ms, self._sent_ms + RETRY_MS) if self._in_air else due_ms

    def tick(self, now_ms: int) -> list[Publish]:
        """Let the meters read, and send what they have unless a batch is still in the air."""
        said = self._read(now_ms)
        if self._in_air and now_ms >= self._sent_ms + RETRY_MS:
            self._in_air.clear()
        return [*self._next_batch(now_ms), *said]

    def receive(self, now_ms: int, kind: Kind, payload: bytes) -> list[Publish]:
        """Handle a message of `dn/{kind}`. Bytes that are no such message change nothing."""
        said = self._read(now_ms)
        if kind == "receipt":
            with suppress(DomainError):
                self._free(parse_gateway_receipt(payload))
        elif kind == "cmd":
            said += self._hand_down(now_ms, payload)
        return [*said, *self._next_batch(now_ms)]

    def _read(self, now_ms: int) -> list[Publish]:
        return [
            said
            for number, meter in self._meters.items()
            for said in self._up(number, meter.tick(now_ms))
        ]

    # --- down and up --------------------------------------------------------------------------

    def _hand_down(self, now_ms: int, payload: bytes) -> list[Publish]:
        try:
            form = json.loads(payload)
        except ValueError:
            return []
        named = form.get("meter") if isinstance(form, dict) else None
        meter = self._meters.get(named) if isinstance(named, str) else None
        if meter is None or not isinstance(named, str):
            return []
        return self._up(named, meter.receive(now_ms, "cmd", payload))

    def _up(self, number: str, said: Sequence[Publish]) -> list[Publish]:
        """What a meter says, in the gateway's words. Its readings are in its buffer and go with
        the next batch; what it was asked to send again is not, and goes now.
        """
        going: list[Publish] = []
        for message in said:
            if message.kind == "reading":
                again = [
                    each
                    for each in _rows(number, message.payload)
                    if each.row not in self._meters[number].state.pending
                ]
                going += [self._batch(part, hist=True) for part in self._parts(again)]
            elif message.kind in {"ack", "event"}:
                form = json.loads(message.payload)
                going.append(Publish(message.kind, encode({**form, "meter": number})))
        return going

    # --- batches ------------------------------------------------------------------------------

    def _next_batch(self, now_ms: int) -> list[Publish]:
        if not self._online or self._in_air:
            return []
        waiting = [
            Buffered(number, row)
            for number, meter in self._meters.items()
            for row in meter.state.pending
        ]
        if not waiting:
            return []
        newest_ms = max(each.row.ts_ms for each in waiting)
        live = now_ms - newest_ms < self._interval_ms
        if live:
            chosen = [each for each in waiting if each.row.ts_ms == newest_ms]
        else:
            chosen = sorted(waiting, key=lambda each: each.row.ts_ms)
        part = next(self._parts(chosen))
        said = self._batch(part, hist=not live)
        self._in_air[self._batch_id()] = part
        self._sent_ms = now_ms
        return [said]

    def _parts(self, rows: Sequence[Buffered]) -> Iterator[list[Buffered]]:
        """Rows that fit one batch each: of one grid, within its slots, within the limit."""
        left = list(rows)
        while left:
            t0_ms, span_ms = left[0].row.ts_ms, SLOTS_PER_BATCH * self._interval_ms
            part = [
                each
                for each in left
                if (each.row.ts_ms - t0_ms) % self._interval_ms == 0
                and 0 <= each.row.ts_ms - t0_ms < span_ms
                # a counter that is younger than its slot has no place in the row of slot 0
                and each.row.seq >= (each.row.ts_ms - t0_ms) // self._interval_ms
            ][:ROWS_PER_BATCH]
            while len(part) > 1 and len(self._payload(part, hist=True)) > LIMIT_BYTES["g"]:
                part = part[: len(part) // 2]
            yield part
            taken = set(part)
            left = [each for each in left if each not in taken]

    def _batch(self, rows: Sequence[Buffered], *, hist: bool) -> Publish:
        self._serial += 1
        return Publish("batch", self._payload(rows, hist=hist))

    def _batch_id(self) -> str:
        return f"{self.state.boot}-{self._serial}"

    def _payload(self, rows: Sequence[Buffered], *, hist: bool) -> bytes:
        t0_ms = min(each.row.ts_ms for each in rows)
        slots: dict[tuple[str, int, int], list[list[int] | None]] = {}
        for number, row in sorted(rows, key=lambda each: each.row.ts_ms):
            place = (row.ts_ms - t0_ms) // self._interval_ms
            line = slots.setdefault((number, row.boot, row.seq - place), [])
            line += [None] * (place - len(line))
            line.append([row.wh])
        form: dict[str, object] = {
            "v": 1,
            "id": self._batch_id(),
            "t0": format_instant(t0_ms),
            "dt": self._interval_ms // 1000,
            "cols": [ACTIVE_IMPORT],
            "hist": hist,
            "rows": [[number, boot, first, line] for (number, boot, first), line in slots.items()],
        }
        return cbor2.dumps(form) if self.cbor else encode(form)

    def _free(self, receipt: BatchReceipt) -> None:
        """Forget the rows in the air that the server keeps, taken or refused."""
        sent = self._in_air.get(receipt.batch_id or "")
        whole = any("row" not in each and "meter" not in each for each in receipt.refused)
        if sent is None and whole:
            # It could not even read which batch it was; there is only one.
            sent = next(iter(self._in_air.values()), None)
        if sent is None:
            return
        kept = {(number, boot): seq for number, boot, seq in receipt.kept}
        done = [
            each
            for each in sent
            if whole or each.row.seq <= kept.get((each.meter, each.row.boot), -1)
        ]
        for number in {each.meter for each in done}:
            self._meters[number].confirm({each.row for each in done if each.meter == number})
        sent[:] = [each for each in sent if each not in set(done)]
        if not sent:
            self._in_air.clear()


def _rows(number: str, payload: bytes) -> Iterator[Buffered]:
    """The rows of a meter's own up/reading, which is a reading or a list of them."""
    value = json.loads(payload)
    for form in value if isinstance(value, list) else [value]:
        ts_ms = parse_instant_ms(form["ts"])
        wh = form["reg"][ACTIVE_IMPORT]
        yield Buffered(number, Row(form["boot"], form["seq"], ts_ms, wh, form["relay"]))
