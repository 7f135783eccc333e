"""Bytes of one `up` message -> readings, reports and refusals.

`decode_up` never raises for what a device sent. Whatever cannot be taken comes back as `Refused`
with a stable reason, and the good rows of the same message are taken (MQTT contract, clause 2).
Everything is judged here that needs no database.
"""

from collections.abc import Callable, Iterable
from typing import Any, NoReturn, cast

from pydantic import TypeAdapter, ValidationError

from schemas import reports, wire
from schemas.forgiving import forgiven
from schemas.identity import ACTIVE_IMPORT, is_obis
from schemas.judging import (
    CLOCK_SET_FROM_MS,
    FUTURE_TOLERANCE_MS,
    SAFE_INTEGER,
    Faults,
    instant_fault,
    instant_ms,
    judged_instant_ms,
    note,
    refusals,
    register_fault,
)
from schemas.payload import first_fault, printable, read_value, row_bytes, storable
from schemas.plain_batch import read_plain_batch
from schemas.plain_reading import read_plain
from schemas.telemetry import Decoded, DecodedReading, PayloadError, Refused
from schemas.topics import Side, Topic

CBOR = "application/cbor"
# Whole payloads: a meter's message fits one small radio frame burst, a gateway's one TCP window.
LIMIT_BYTES: dict[Side, int] = {"m": 4 * 1024, "g": 64 * 1024}

_READING: TypeAdapter[wire.Reading] = TypeAdapter(wire.Reading)
_BATCH: TypeAdapter[wire.Batch] = TypeAdapter(wire.Batch)
_BATCH_HEAD: TypeAdapter[wire.BatchHead] = TypeAdapter(wire.BatchHead)
_HEAD_KEYS = frozenset(wire.BatchHead.__annotations__)
_BATCH_ROW: TypeAdapter[wire.BatchRow] = TypeAdapter(wire.BatchRow)


def decode_up(topic: Topic, payload: bytes, content_type: str | None, now_ms: int) -> Decoded:
    """Decode one message of a device's `up` topic; `now_ms` is the receiver's clock, UTC ms.

    `content_type` is the MQTT 5 property; `application/cbor` reads CBOR, anything else JSON.
    """
    limit = LIMIT_BYTES[topic.side]
    if len(payload) > limit:
        detail = f"{len(payload)} bytes, at most {limit}"
        return Decoded(refused=(Refused("too_large", detail, None, payload[:limit]),))
    try:
        cbor = content_type is not None and _is_cbor(content_type)
        return _DECODERS[topic.kind](topic, payload, cbor, now_ms)
    except PayloadError as error:
        return Decoded(refused=(Refused(error.reason, str(error), None, payload),))


def _is_cbor(content_type: str) -> bool:
    """Media types are the same in any case, with parameters or without (RFC 9110 clause 8.3.1)."""
    return content_type.partition(";")[0].strip().lower() == CBOR


# --- readings ---------------------------------------------------------------------------------


def _decode_reading(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    if not cbor:
        plain = read_plain(topic.device, payload, CLOCK_SET_FROM_MS, now_ms + FUTURE_TOLERANCE_MS)
        if plain is not None:
            return Decoded((plain,))
    readings: list[DecodedReading] = []
    refused: list[Refused] = []
    value = read_value(payload, cbor)
    if not isinstance(value, list):
        _take_reading(topic.device, value, now_ms, None, payload, readings, refused)
        return Decoded(tuple(readings), tuple(refused))
    for index, row in enumerate(value):
        raw = row_bytes(row)
        try:
            _take_reading(topic.device, row, now_ms, index, raw, readings, refused)
        except PayloadError as error:
            refused.append(Refused(error.reason, str(error), index, raw, topic.device))
    return Decoded(tuple(readings), tuple(refused))


def _take_reading(
    meter: str,
    value: object,
    now_ms: int,
    index: int | None,
    raw: bytes,
    readings: list[DecodedReading],
    refused: list[Refused],
) -> None:
    faults: Faults = {}
    form, odd = forgiven(_READING, value, faults)
    # Keys that have a field of their own are taken out; the others travel along as `rest`.
    rest = cast("dict[str, Any]", form)
    take = rest.pop
    del rest["v"]
    boot, seq = take("boot"), take("seq")
    if boot > SAFE_INTEGER or seq > SAFE_INTEGER:
        raise PayloadError("unsafe_integer", "Send boot and seq below 2^53.")
    try:
        ts_ms = judged_instant_ms(take("ts"), now_ms)
    except PayloadError as error:
        faults = {error.reason: [str(error)]}
        refused.extend(refusals(faults, index, raw, meter, boot, seq))
        return
    registers: dict[str, int] = take("reg")
    tq, hist = take("tq", "sync"), take("hist", False)
    rcpt, relay = take("rcpt", False), take("relay", None)
    rest.update(odd)
    kept = storable(rest) if rest else None
    for register, value_wh in registers.items():
        if register == ACTIVE_IMPORT and 0 <= value_wh <= SAFE_INTEGER:
            fault = None
        else:
            fault = register_fault(register, value_wh)
        if fault is not None:
            note(fault, faults)
            continue
        readings.append(
            DecodedReading(meter, register, ts_ms, value_wh, boot, seq, tq, hist, rcpt, relay, kept)
        )
    if faults:
        refused.extend(refusals(faults, index, raw, meter, boot, seq))


# --- a gateway's batch ------------------------------------------------------------------------


def _decode_batch(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    if not cbor:
        plain = read_plain_batch(payload, CLOCK_SET_FROM_MS, now_ms + FUTURE_TOLERANCE_MS)
        if plain is not None:
            return plain
    refused: list[Refused] = []
    head: wire.Batch | wire.BatchHead
    good: Iterable[tuple[int, wire.BatchRow]]
    odd: dict[str, object] = {}
    try:
        whole = (
            _BATCH.validate_python(read_value(payload, cbor))
            if cbor
            else _BATCH.validate_json(payload)
        )
        head, good = whole, enumerate(whole["rows"])
    except ValidationError:
        part, odd = forgiven(_BATCH_HEAD, read_value(payload, cbor), {})
        head, good = part, _good_rows(part["rows"], refused)
    rows = _Rows(head, odd, now_ms)
    for index, row in good:
        rows.take(row, index, refused)
    return Decoded(tuple(rows.readings), tuple(refused), batch_id=head.get("id"))


def _good_rows(rows: list[object], refused: list[Refused]) -> list[tuple[int, wire.BatchRow]]:
    good: list[tuple[int, wire.BatchRow]] = []
    for index, row in enumerate(rows):
        try:
            good.append((index, _BATCH_ROW.validate_python(row)))
        except ValidationError as error:
            named = row[0] if isinstance(row, list) and row and isinstance(row[0], str) else None
            meter = printable(named)[:18] if named is not None else None
            refused.append(Refused("wrong_type", first_fault(error), index, row_bytes(row), meter))
    return good


class _Rows:
    """The rows of one batch as readings. What all rows share is worked out once: a hundred
    readings a message are the common case, and each costs little more than its own numbers.
    """

    def __init__(
        self, head: wire.Batch | wire.BatchHead, odd: dict[str, object], now_ms: int
    ) -> None:
        self.readings: list[DecodedReading] = []
        self._t0_ms, self._step_ms = instant_ms(head["t0"]), head["dt"] * 1000
        self._now_ms = now_ms
        self._cols = head["cols"]
        self._strange = {name for name in self._cols if is_obis(name) is None}
        if len(self._strange) == len(set(self._cols)):
            fault = register_fault(self._cols[0], 0)
            assert fault is not None, "it is strange"
            raise fault
        more = {key: said for key, said in head.items() if key not in _HEAD_KEYS} | odd
        self._rest = storable(more) if more else None
        self._said = (head.get("tq", "sync"), head.get("hist", False), head.get("rcpt", False))
        # From the first slot outside this on, each is judged by itself.
        self._sound = range(
            max(0, -((self._t0_ms - CLOCK_SET_FROM_MS) // self._step_ms)),
            (now_ms + FUTURE_TOLERANCE_MS - self._t0_ms) // self._step_ms + 1,
        )

    def take(self, row: wire.BatchRow, index: int, refused: list[Refused]) -> None:
        """Append the row's readings; what of it cannot be taken is refused, once per reason."""
        meter, boot, first, slots = row
        if boot > SAFE_INTEGER or first + len(slots) > SAFE_INTEGER:
            detail = "Send boot and seq below 2^53."
            refused.append(Refused("unsafe_integer", detail, index, row_bytes(row), meter))
            return
        faults: Faults = {}
        (register, *others) = self._cols
        (tq, hist, rcpt), rest = self._said, self._rest
        append, make = self.readings.append, DecodedReading._make
        for i, slot in enumerate(slots):
            if slot is None:
                continue
            value_wh = slot[0] if slot and not others else None
            if (
                value_wh is None
                or len(slot) != 1
                or i not in self._sound
                or not 0 <= value_wh <= SAFE_INTEGER
            ):
                self._take_slot(row, i, slot, faults)
                continue
            ts_ms = self._t0_ms + i * self._step_ms
            append(make((
                meter, register, ts_ms, value_wh, boot, first + i, tq, hist, rcpt, None, rest,
            )))  # fmt: skip
        if faults:
            last = first + max(len(slots) - 1, 0)
            refused.extend(refusals(faults, index, row_bytes(row), meter, boot, last))

    def _take_slot(
        self, row: wire.BatchRow, i: int, slot: list[int | None], faults: Faults
    ) -> None:
        """Several registers, or something that may be wrong."""
        meter, boot, first, _ = row
        ts_ms = self._t0_ms + i * self._step_ms
        fault = instant_fault(ts_ms, self._now_ms)
        if fault is None and len(slot) != len(self._cols):
            fault = PayloadError("wrong_type", f"{len(slot)} values for {len(self._cols)} cols.")
        if fault is not None:
            faults.setdefault(fault.reason, []).append(f"Slot {i}: {fault}")
            return
        for register, value_wh in zip(self._cols, slot, strict=True):
            if value_wh is None:
                continue
            sound = register not in self._strange and 0 <= value_wh <= SAFE_INTEGER
            fault = None if sound else register_fault(register, value_wh)
            if fault is not None:
                faults.setdefault(fault.reason, []).append(f"Slot {i}: {fault}")
                continue
            place = (ts_ms, value_wh, boot, first + i)
            self.readings.append(
                DecodedReading(meter, register, *place, *self._said, None, self._rest)
            )


# --- everything else --------------------------------------------------------------------------


def _decode_downlink(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> NoReturn:
    raise PayloadError("wrong_type", "Devices speak on up topics; this one is the server's.")


_DECODERS: dict[str, Callable[[Topic, bytes, bool, int], Decoded]] = {
    "reading": _decode_reading,
    "batch": _decode_batch,
    "ack": reports.decode_ack,
    "hello": reports.decode_hello,
    "event": reports.decode_event,
    "state": reports.decode_state,
    "time": reports.decode_time,
    "cmd": _decode_downlink,
    "cfg": _decode_downlink,
    "receipt": _decode_downlink,
}
