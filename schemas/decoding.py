"""Bytes of one `up` message -> readings, reports and refusals.

`decode_up` never raises for what a device sent. Whatever cannot be taken comes back as `Refused`
with a stable reason, and the good rows of the same message are taken (MQTT contract, clause 2).
Everything is judged here that needs no database.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeVar, cast

import cbor2
import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from schemas import wire
from schemas.errors import DomainError
from schemas.identity import ACTIVE_IMPORT, is_obis
from schemas.plain_reading import read_plain
from schemas.quantities import format_instant, parse_instant_ms
from schemas.telemetry import (
    Ack,
    Decoded,
    DecodedReading,
    Event,
    Hello,
    PayloadError,
    Reason,
    Refused,
)
from schemas.topics import Side, Topic

CBOR = "application/cbor"
# Whole payloads: a meter's message fits one small radio frame burst, a gateway's one TCP window.
LIMIT_BYTES: dict[Side, int] = {"m": 4 * 1024, "g": 64 * 1024}
# Before 2000 the clock was never set since its battery died; beyond this the clock runs ahead.
CLOCK_SET_FROM_MS = 946_684_800_000
FUTURE_TOLERANCE_MS = 5 * 60 * 1000
# Exact in every JSON reader (RFC 8259 clause 6) and in the database's bigint.
SAFE_INTEGER = 2**53 - 1
# Deeper than any form here; shallower than any stack.
MAX_DEPTH = 16

_Faults = dict[Reason, list[str]]

_READING: TypeAdapter[wire.Reading] = TypeAdapter(wire.Reading)
_BATCH: TypeAdapter[wire.Batch] = TypeAdapter(wire.Batch)
_BATCH_HEAD: TypeAdapter[wire.BatchHead] = TypeAdapter(wire.BatchHead)
_BATCH_ROW: TypeAdapter[wire.BatchRow] = TypeAdapter(wire.BatchRow)
_ACK: TypeAdapter[wire.Ack] = TypeAdapter(wire.Ack)
_HELLO: TypeAdapter[wire.Hello] = TypeAdapter(wire.Hello)
_EVENT: TypeAdapter[wire.Event] = TypeAdapter(wire.Event)
_TIME_REQUEST: TypeAdapter[wire.TimeRequest] = TypeAdapter(wire.TimeRequest)


def decode_up(topic: Topic, payload: bytes, content_type: str | None, now_ms: int) -> Decoded:
    """Decode one message of a device's `up` topic; `now_ms` is the receiver's clock, UTC ms.

    `content_type` is the MQTT 5 property; `application/cbor` reads CBOR, anything else JSON.
    """
    limit = LIMIT_BYTES[topic.side]
    if len(payload) > limit:
        detail = f"{len(payload)} bytes, at most {limit}"
        return Decoded(refused=(Refused("too_large", detail, None, payload[:limit]),))
    try:
        return _DECODERS[topic.kind](topic, payload, content_type == CBOR, now_ms)
    except PayloadError as error:
        return Decoded(refused=(Refused(error.reason, str(error), None, payload),))


# --- readings ---------------------------------------------------------------------------------


def _decode_reading(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    if not cbor:
        plain = read_plain(topic.device, payload, CLOCK_SET_FROM_MS, now_ms + FUTURE_TOLERANCE_MS)
        if plain is not None:
            return Decoded((plain,))
    readings: list[DecodedReading] = []
    refused: list[Refused] = []
    value = _value(payload, cbor)
    if not isinstance(value, list):
        form = _checked(_READING, value)
        _take_reading(topic.device, form, now_ms, None, payload, readings, refused)
        return Decoded(tuple(readings), tuple(refused))
    for index, row in enumerate(value):
        raw = _row_bytes(row)
        try:
            form = _checked(_READING, row)
            _take_reading(topic.device, form, now_ms, index, raw, readings, refused)
        except PayloadError as error:
            refused.append(Refused(error.reason, str(error), index, raw, topic.device))
    return Decoded(tuple(readings), tuple(refused))


def _take_reading(
    meter: str,
    form: wire.Reading,
    now_ms: int,
    index: int | None,
    raw: bytes,
    readings: list[DecodedReading],
    refused: list[Refused],
) -> None:
    # Keys that have a field of their own are taken out; the others travel along as `rest`.
    rest = cast("dict[str, Any]", form)
    take = rest.pop
    del rest["v"]
    boot, seq = take("boot"), take("seq")
    if boot > SAFE_INTEGER or seq > SAFE_INTEGER:
        raise PayloadError("unsafe_integer", "Send boot and seq below 2^53.")
    faults: _Faults = {}
    try:
        ts_ms = _judged_instant(take("ts"), now_ms)
    except PayloadError as error:
        faults[error.reason] = [str(error)]
        refused.extend(_refusals(faults, index, raw, meter, boot, seq))
        return
    registers: dict[str, int] = take("reg")
    tq, hist = take("tq", "sync"), take("hist", False)
    rcpt, relay = take("rcpt", False), take("relay", None)
    kept = _storable(rest) if rest else None
    for register, value_wh in registers.items():
        if register == ACTIVE_IMPORT and 0 <= value_wh <= SAFE_INTEGER:
            fault = None
        else:
            fault = _register_fault(register, value_wh)
        if fault is not None:
            faults.setdefault(fault.reason, []).append(str(fault))
            continue
        readings.append(
            DecodedReading(meter, register, ts_ms, value_wh, boot, seq, tq, hist, rcpt, relay, kept)
        )
    if faults:
        refused.extend(_refusals(faults, index, raw, meter, boot, seq))


def _storable(rest: dict[str, object]) -> bytes:
    """As JSON; what no database JSON can hold (NUL, bytes, 65-bit integers) as readable text.

    It carries no money, so it must not cost the meter its reading, nor the batch its commit.
    """
    try:
        octets = orjson.dumps(rest)
        if b"\\u0000" not in octets:
            return octets
    except TypeError:
        pass
    return orjson.dumps({"unstorable": _plain(repr(rest))})


def _refusals(
    faults: _Faults, index: int | None, raw: bytes, meter: str, boot: int, seq: int
) -> list[Refused]:
    """One refusal per reason, however many faults: the answer never outgrows the message."""
    return [
        Refused(
            reason,
            details[0] if len(details) == 1 else f"{details[0]} And {len(details) - 1} more.",
            index,
            raw,
            meter,
            boot,
            seq,
        )
        for reason, details in faults.items()
    ]


def _register_fault(register: str, value_wh: int) -> PayloadError | None:
    if is_obis(register) is None:
        return PayloadError("unknown_register", f"Name registers C.D.E, not {_plain(register)}.")
    return None if 0 <= value_wh <= SAFE_INTEGER else _value_fault(register, value_wh)


def _value_fault(register: str, value_wh: int) -> PayloadError:
    if value_wh == -1:
        return PayloadError("sentinel_register", f"{register} holds -1: no value was read.")
    if value_wh < 0:
        return PayloadError("negative_register", f"{register} is below zero; send cumulative Wh.")
    return PayloadError("unsafe_integer", f"{register} exceeds 2^53 - 1.")


def _judged_instant(text: str, now_ms: int) -> int:
    ts_ms = _instant(text)
    fault = _instant_fault(ts_ms, now_ms)
    if fault is not None:
        raise fault
    return ts_ms


def _instant_fault(ts_ms: int, now_ms: int) -> PayloadError | None:
    if ts_ms < CLOCK_SET_FROM_MS:
        return PayloadError("clock_1970", f"{format_instant(ts_ms)} is before 2000: set the clock.")
    if ts_ms > now_ms + FUTURE_TOLERANCE_MS:
        ahead_s = (ts_ms - now_ms) // 1000
        return PayloadError("future", f"The meter's clock is {ahead_s} s ahead: set the clock.")
    return None


# --- a gateway's batch ------------------------------------------------------------------------


def _decode_batch(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    refused: list[Refused] = []
    head: wire.Batch | wire.BatchHead
    good: Iterable[tuple[int, wire.BatchRow]]
    try:
        head = (
            _BATCH.validate_python(_value(payload, cbor)) if cbor else _BATCH.validate_json(payload)
        )
        good = enumerate(head["rows"])
    except ValidationError:
        head = _checked(_BATCH_HEAD, _value(payload, cbor))
        good = _good_rows(head["rows"], refused)
    rows = _Rows(head, now_ms)
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
            meter = _plain(named)[:18] if named is not None else None
            refused.append(Refused("wrong_type", _first(error), index, _row_bytes(row), meter))
    return good


class _Rows:
    """The rows of one batch as readings. What all rows share is worked out once: a hundred
    readings a message are the common case, and each costs little more than its own numbers.
    """

    def __init__(self, head: wire.Batch | wire.BatchHead, now_ms: int) -> None:
        self.readings: list[DecodedReading] = []
        self._t0_ms, self._step_ms = _instant(head["t0"]), head["dt"] * 1000
        self._now_ms = now_ms
        self._cols = head["cols"]
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
            refused.append(Refused("unsafe_integer", detail, index, _row_bytes(row), meter))
            return
        faults: _Faults = {}
        (register, *others) = self._cols
        tq, hist, rcpt = self._said
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
                meter, register, ts_ms, value_wh, boot, first + i, tq, hist, rcpt, None, None,
            )))  # fmt: skip
        if faults:
            last = first + max(len(slots) - 1, 0)
            refused.extend(_refusals(faults, index, _row_bytes(row), meter, boot, last))

    def _take_slot(
        self, row: wire.BatchRow, i: int, slot: list[int | None], faults: _Faults
    ) -> None:
        """Several registers, or something that may be wrong."""
        meter, boot, first, _ = row
        ts_ms = self._t0_ms + i * self._step_ms
        fault = _instant_fault(ts_ms, self._now_ms)
        if fault is None and len(slot) != len(self._cols):
            fault = PayloadError("wrong_type", f"{len(slot)} values for {len(self._cols)} cols.")
        if fault is not None:
            faults.setdefault(fault.reason, []).append(f"Slot {i}: {fault}")
            return
        for register, value_wh in zip(self._cols, slot, strict=True):
            if value_wh is None:
                continue
            if not 0 <= value_wh <= SAFE_INTEGER:
                fault = _value_fault(register, value_wh)
                faults.setdefault(fault.reason, []).append(f"Slot {i}: {fault}")
                continue
            self.readings.append(
                DecodedReading(meter, register, ts_ms, value_wh, boot, first + i, *self._said, None)
            )


# --- everything else --------------------------------------------------------------------------


def _decode_ack(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    form = _parsed(_ACK, payload, cbor)
    tokens = tuple(form.get("tokens", ()))
    ack = Ack(
        meter=_speaker(topic, form.get("meter")),
        cmd=form["cmd"],
        state=form["state"],
        ts_ms=_judged_instant(form["ts"], now_ms),
        relay=form.get("relay"),
        reg=_judged_registers(form.get("reg", {})),
        tokens=tokens,
        why=form.get("why"),
        last_token=None if tokens else form.get("token"),
    )
    return Decoded(ack=ack)


def _decode_hello(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    form = _parsed(_HELLO, payload, cbor)
    buffered = form.get("buf")
    hello = Hello(
        boot=_safe(form["boot"]),
        # A birth with a wrong clock still tells who is there; readings are judged on their own.
        ts_ms=_instant(form["ts"]),
        seq=_safe(form["seq"]) if "seq" in form else None,
        tq=form.get("tq", "sync"),
        model=form.get("model"),
        firmware=form.get("fw"),
        relay=form.get("relay"),
        reg=_judged_registers(form.get("reg", {})),
        ctr=_safe(form["ctr"]) if "ctr" in form else None,
        buffered=_safe(buffered["rows"]) if buffered is not None else None,
    )
    return Decoded(hello=hello)


def _decode_event(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    form = _parsed(_EVENT, payload, cbor)
    event = Event(
        meter=_speaker(topic, form.get("meter")),
        type=form["type"],
        ts_ms=_judged_instant(form["ts"], now_ms),
        boot=_safe(form["boot"]) if "boot" in form else None,
        seq=_safe(form["seq"]) if "seq" in form else None,
        info=form.get("info", {}),
    )
    return Decoded(event=event)


def _decode_state(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    # Bare words, because a last will is written once and read by people.
    word = payload.strip().strip(b'"')
    if word not in {b"online", b"offline"}:
        raise PayloadError("wrong_type", "Say online or offline.")
    return Decoded(online=word == b"online")


def _decode_time(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> Decoded:
    return Decoded(time_request_ms=_parsed(_TIME_REQUEST, payload, cbor)["t1"])


def _decode_downlink(topic: Topic, payload: bytes, cbor: bool, now_ms: int) -> NoReturn:
    raise PayloadError("wrong_type", "Devices speak on up topics; this one is the server's.")


_DECODERS: dict[str, Callable[[Topic, bytes, bool, int], Decoded]] = {
    "reading": _decode_reading,
    "batch": _decode_batch,
    "ack": _decode_ack,
    "hello": _decode_hello,
    "event": _decode_event,
    "state": _decode_state,
    "time": _decode_time,
    "cmd": _decode_downlink,
    "cfg": _decode_downlink,
    "receipt": _decode_downlink,
}


def _speaker(topic: Topic, named: str | None) -> str | None:
    """A meter speaks for itself, whatever it names; a gateway for the meter it names, if any."""
    return topic.device if topic.side == "m" else named


def _judged_registers(registers: Mapping[str, int]) -> Mapping[str, int]:
    for register, value_wh in registers.items():
        fault = _register_fault(register, value_wh)
        if fault is not None:
            raise fault
    return registers


def _instant(text: str) -> int:
    try:
        return parse_instant_ms(text)
    except DomainError as error:
        raise PayloadError("bad_instant", _plain(str(error))) from None


def _safe(value: int) -> int:
    if value > SAFE_INTEGER:
        raise PayloadError("unsafe_integer", "Send integers below 2^53.")
    return value


# --- bytes to values --------------------------------------------------------------------------


_Form = TypeVar("_Form")


def _parsed(adapter: TypeAdapter[_Form], payload: bytes, cbor: bool) -> _Form:
    return _checked(adapter, _value(payload, cbor))


def _checked(adapter: TypeAdapter[_Form], value: object) -> _Form:
    """The value as its form; the version is judged first, since another one may differ at will."""
    if not isinstance(value, dict):
        raise PayloadError("wrong_type", "Send an object, or in up/reading a list of objects.")
    version = value.get("v")
    if type(version) is not int or version != 1:
        raise PayloadError("unknown_version", 'Send "v":1, the one version of the contract.')
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise PayloadError("wrong_type", _first(error)) from None


def _value(payload: bytes, cbor: bool) -> object:
    try:
        if not cbor:
            return from_json(payload, allow_inf_nan=False)
        return cbor2.loads(
            payload,
            max_depth=MAX_DEPTH,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
            semantic_decoders=_NO_TAGS,
            tag_hook=_refuse_tag,
        )
    except Exception as error:
        # Whatever a decoder raises on hostile bytes, the answer is the same and never a crash.
        detail = f"Send {'CBOR' if cbor else 'JSON'}: {_plain(str(error))}"
        raise PayloadError("undecodable", detail) from None


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("no form of the contract uses a tag")


# Dates, decimals, shared references: each would make values that no form holds, or cycles.
_NO_TAGS = dict.fromkeys(
    (*range(6), 25, 28, 29, 30, 35, 36, 37, 100, 256, 258, 260, 261, 1004, 43000), _refuse_tag
)


def _row_bytes(row: object) -> bytes:
    """The row as JSON; of CBOR that no JSON holds (keys that are no text), as readable text."""
    try:
        return json.dumps(row, default=repr, separators=(",", ":")).encode()
    except (TypeError, ValueError):
        return json.dumps(repr(row)).encode()


def _first(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(_plain(str(part)) for part in fault["loc"]) or "payload"
    return f"{where}: {_plain(fault['msg'])}"


def _plain(text: str) -> str:
    """Printable ASCII of bounded length: fit for any log and any database text."""
    shown = text.encode("ascii", "backslashreplace").decode("ascii")[:120]
    return "".join(letter if letter.isprintable() else "?" for letter in shown)
