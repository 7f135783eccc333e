"""JSON payloads: numbers stay the decimals that were written."""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NoReturn

from meter_gateway.foreign.device_profile import Clock, JsonMessage, Quantity, Step
from meter_gateway.foreign.values import (
    ForeignReading,
    ForeignState,
    offset_ms,
    unix_ms,
    whole_wh,
)
from schemas.telemetry import PayloadError

_MISSING = object()
_NUMBER = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{1,20})?")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?"
    r"(?:Z|[+-][0-9]{2}:[0-9]{2})?"
)
SHOWN_MAX = 32


def read(message: JsonMessage, device: str, payload: bytes) -> ForeignReading | ForeignState | None:
    """What one payload says; None where it says nothing of energy. Errors: PayloadError."""
    if message.state is not None:
        return _state(message, device, payload)
    value = _value(payload)
    if message.concerns is not None and _at(value, message.concerns) is _MISSING:
        return None
    registers = {
        register: whole
        for register, quantity in message.registers.items()
        if (whole := _whole(value, register, quantity)) is not None
    }
    if not registers:
        raise PayloadError("wrong_type", "None of the profile's registers is in the message.")
    shown = {
        name: str(found)[:SHOWN_MAX]
        for name, path in message.instantaneous.items()
        if isinstance(found := _at(value, path), Decimal | str | bool)
    }
    if not isinstance(message.clock, Clock):
        return ForeignReading(device, registers, instantaneous=shown)
    at_ms, local = _instant(_at(value, message.clock.path), message.clock)
    return ForeignReading(device, registers, at_ms, local, instantaneous=shown)


def _state(message: JsonMessage, device: str, payload: bytes) -> ForeignState:
    assert message.state is not None
    word = payload.strip()
    if word == message.state.online.encode():
        return ForeignState(device, online=True)
    if word == message.state.offline.encode():
        return ForeignState(device, online=False)
    raise PayloadError(
        "wrong_type", f"Say {message.state.online} or {message.state.offline} on this topic."
    )


def _value(payload: bytes) -> object:
    try:
        return json.loads(
            payload, parse_float=Decimal, parse_int=Decimal, parse_constant=_refuse_constant
        )
    except Exception as error:
        # Whatever a parser raises on hostile bytes (depth, encodings, digits) is one refusal.
        detail = f"Send JSON: {type(error).__name__}."
        raise PayloadError("undecodable", detail) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _at(value: Any, path: Sequence[Step]) -> object:
    for step in path:
        if isinstance(step, int):
            if not isinstance(value, list) or not 0 <= step < len(value):
                return _MISSING
            value = value[step]
        else:
            if not isinstance(value, dict) or step not in value:
                return _MISSING
            value = value[step]
    return value


def _whole(value: object, register: str, quantity: Quantity) -> int | None:
    found = _at(value, quantity.path)
    if found is _MISSING and quantity.optional:
        return None
    if isinstance(found, str) and _NUMBER.fullmatch(found):
        found = Decimal(found)
    if not isinstance(found, Decimal):
        raise PayloadError("wrong_type", f"{register} is no number at its place in the message.")
    return whole_wh(found, quantity.factor)


def _instant(found: object, clock: Clock) -> tuple[int | None, datetime | None]:
    """UTC ms, or the clock without an offset."""
    if clock.written in {"unix_s", "unix_ms"}:
        if not isinstance(found, Decimal):
            raise PayloadError("bad_instant", "The time is no number at its place in the message.")
        return unix_ms(found, 1 if clock.written == "unix_s" else 1000), None
    try:
        if not isinstance(found, str) or _INSTANT.fullmatch(found) is None:
            raise ValueError(found)
        at = datetime.fromisoformat(found)
        offset = at.utcoffset()
    except ValueError:
        message = "The time is not of the profile's form at its place in the message."
        raise PayloadError("bad_instant", message) from None
    if offset is not None:
        return offset_ms(at.replace(tzinfo=None), offset), None
    if clock.written == "rfc3339":
        raise PayloadError("bad_instant", "The time tells no offset from UTC.")
    return None, at
