"""DLMS/COSEM data-notifications (IEC 62056-5-3), as they are or under general-glo-ciphering.

Envelope, ciphering and clock are read by the `dlms-cosem` package. The body is read here: that
package goes on for ever over a body that is cut short, or that announces more than it holds, and a
push comes from outside.

A body says a register as its logical name (six octets), its value and, in most meters, scaler and
unit; in one list or in a structure each. Both are found, wherever they stand.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple, cast

from dlms_cosem.exceptions import DecryptionError
from dlms_cosem.protocol.xdlms import DataNotification, GeneralGlobalCipher
from dlms_cosem.time import datetime_from_bytes

from meter_gateway.foreign.device_profile import DlmsProfile, DlmsRegister
from meter_gateway.foreign.keys import DeviceKeys
from meter_gateway.foreign.values import WH, ForeignReading, Unit, offset_ms, whole_wh
from schemas.telemetry import PayloadError
from schemas.wire import TimeQuality

# Version 1 of the TCP and UDP wrapper (IEC 62056-47): four 16-bit words, the last one the length.
WRAPPER_OCTETS = 8
WRAPPER_VERSION = b"\x00\x01"
MAX_DEPTH = 16
# IEC 62056-6-2, table of physical units.
UNITS: dict[int, Unit] = {30: "Wh", 32: "varh"}
CLOCK = bytes((0, 0, 1, 0, 0, 255))
CLOCK_OCTETS = 12
DEVIATION_UNSPECIFIED = -0x8000
# Tags of IEC 62056-5-3 data: fixed lengths in octets, then those that carry their length.
_SIGNED = {15: 1, 16: 2, 5: 4, 20: 8}
_UNSIGNED = {17: 1, 18: 2, 6: 4, 21: 8, 22: 1}
_OPAQUE = {0: 0, 3: 1, 13: 1, 23: 4, 24: 8, 26: 5, 27: 4, 255: 0}
_STRINGS = frozenset({9, 10, 12})
_BIT_STRING, _ARRAY, _STRUCTURE, _DATE_TIME = 4, 1, 2, 25

# A datum: an integer, octets, a list, or None for what no register is made of.
Datum = int | bytes | list["Datum"] | None


@dataclass(frozen=True, slots=True)
class Push:
    """One data-notification: its body, its own time, and the counter of a protected frame."""

    body: Datum
    sent: bytes | None
    counter: int | None
    digest: bytes | None


def open_push(profile: DlmsProfile, frame: bytes, keys: DeviceKeys | None) -> Push:
    """The notification inside a frame. Errors: PayloadError `undecodable`, `not_authentic`."""
    apdu = _unwrapped(frame)
    counter = digest = None
    if profile.protection == "general-glo-ciphering":
        digest = hashlib.sha256(apdu).digest()
        apdu, counter = _deciphered(apdu, keys)
    try:
        notification = DataNotification.from_bytes(apdu)
    except Exception as error:
        # Whatever the parser raises on foreign bytes, the answer is one refusal.
        detail = f"Send a DLMS data-notification: {type(error).__name__}."
        raise PayloadError("undecodable", detail) from None
    # The envelope's time stands after tag, invoke id and priority; its presence is its length.
    sent = apdu[6 : 6 + CLOCK_OCTETS] if notification.date_time is not None else None
    return Push(_body(notification.body), sent, counter, digest)


def read(profile: DlmsProfile, device: str, push: Push) -> ForeignReading | None:
    """The profile's registers in a notification; None where it holds none of them.

    Errors: PayloadError (`wrong_type`, `bad_instant`).
    """
    wanted = {tuple(int(part) for part in name.split(".")): name for name in profile.registers}
    registers: dict[str, int] = {}
    clock = push.sent
    for name, value, scaler_unit in _said(push.body):
        if name == CLOCK and isinstance(value, bytes) and len(value) == CLOCK_OCTETS:
            clock = value
        register = wanted.get(tuple(name[2:5]))
        if register is not None and name[0] == 1 and isinstance(value, int):
            registers[register] = _whole(value, scaler_unit, profile.registers[register])
    if not registers:
        return None
    if clock is None:
        return ForeignReading(device, registers)
    local, deviation, quality = _clock(clock)
    if deviation is None or profile.deviation == "ignored":
        return ForeignReading(device, registers, local=local, quality=quality)
    return ForeignReading(device, registers, offset_ms(local, -deviation), quality=quality)


# --- the frame --------------------------------------------------------------------------------


def _unwrapped(frame: bytes) -> bytes:
    if not frame.startswith(WRAPPER_VERSION):
        return frame
    apdu = frame[WRAPPER_OCTETS:]
    if int.from_bytes(frame[6:8], "big") != len(apdu):
        raise PayloadError("undecodable", "The wrapper's length is not that of its contents.")
    return apdu


def _deciphered(apdu: bytes, keys: DeviceKeys | None) -> tuple[bytes, int]:
    if keys is None:
        raise PayloadError("not_authentic", "The device has no keys here: add it with its keys.")
    try:
        # The package does not mind lengths beyond the end.
        source = _Octets(apdu[1:])
        source.take(source.length())
        source.take(source.length())
        if source.left:
            raise ValueError("the frame goes on after its end")
        cipher = GeneralGlobalCipher.from_bytes(apdu)
        control = cipher.security_control
        title = bytes(cipher.system_title or b"")
        if not (control.authenticated and control.encrypted) or control.compressed:
            raise ValueError("authenticated and encrypted frames only")
        if len(title) != 8 or control.security_suite not in {0, 1} or control.broadcast_key:
            raise ValueError("unicast frames of suites 0 and 1 with a system title only")
        cipher.system_title = title
        clear = cipher.to_plain_apdu(keys.encryption.reveal(), keys.authentication.reveal())
    except DecryptionError:
        detail = "The frame was not made with this device's keys, or was changed."
        raise PayloadError("not_authentic", detail) from None
    except Exception as error:
        # As for the notification. Nothing of the frame or of a key stands in the reason.
        detail = f"Send an authenticated, encrypted general-glo-ciphering: {type(error).__name__}."
        raise PayloadError("not_authentic", detail) from None
    return clear, cipher.invocation_counter


# --- the body ---------------------------------------------------------------------------------


class _Octets:
    """The body's octets, read once from front to end; every step is inside them."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._octets) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise PayloadError("undecodable", "The notification announces more than it holds.")
        self._at += count
        return self._octets[self._at - count : self._at]

    def length(self) -> int:
        first = self.take(1)[0]
        return first if first < 0x80 else int.from_bytes(self.take(first & 0x7F), "big")


def _body(octets: bytes) -> Datum:
    source = _Octets(octets)
    datum = _datum(source, 0)
    if source.left:
        raise PayloadError("undecodable", "The notification goes on after its end.")
    return datum


def _datum(source: _Octets, depth: int) -> Datum:
    tag = source.take(1)[0]
    if tag in {_ARRAY, _STRUCTURE}:
        count = source.length()
        # Each datum takes an octet at least: what is announced beyond is not there.
        if count > source.left or depth >= MAX_DEPTH:
            raise PayloadError(
                "undecodable", "The notification is deeper or longer than it can be."
            )
        return [_datum(source, depth + 1) for _ in range(count)]
    if tag in _UNSIGNED:
        return int.from_bytes(source.take(_UNSIGNED[tag]), "big")
    if tag in _SIGNED:
        return int.from_bytes(source.take(_SIGNED[tag]), "big", signed=True)
    if tag in _STRINGS:
        return source.take(source.length())
    if tag == _DATE_TIME:
        return source.take(CLOCK_OCTETS)
    if tag == _BIT_STRING:
        source.take((source.length() + 7) // 8)
        return None
    if tag in _OPAQUE:
        source.take(_OPAQUE[tag])
        return None
    raise PayloadError("undecodable", f"The notification holds a datum of unknown type {tag}.")


class _Said(NamedTuple):
    name: bytes
    value: Datum
    scaler_unit: Datum


def _said(datum: Datum) -> Iterator[_Said]:
    """Every logical name with what follows it, in any list of the body."""
    if not isinstance(datum, list):
        return
    for place, each in enumerate(datum):
        if isinstance(each, bytes) and len(each) == 6 and place + 1 < len(datum):
            after = datum[place + 2] if place + 2 < len(datum) else None
            yield _Said(each, datum[place + 1], after)
        else:
            yield from _said(each)


def _whole(value: int, scaler_unit: Datum, register: DlmsRegister) -> int:
    unit, factor = register.unit, Decimal(register.scale)
    if isinstance(scaler_unit, list) and len(scaler_unit) == 2:
        scaler, code = scaler_unit
        if not isinstance(scaler, int) or not isinstance(code, int) or abs(scaler) > 9:
            raise PayloadError("wrong_type", "A register's scaler and unit are two small integers.")
        unit, factor = UNITS.get(code), Decimal(1).scaleb(scaler)
    if unit is None:
        raise PayloadError("wrong_type", "A register has no unit of energy.")
    return whole_wh(Decimal(value), factor * WH[unit])


def _clock(octets: bytes) -> tuple[datetime, timedelta | None, TimeQuality]:
    """Local time, its deviation (local to UTC; None: unspecified) and how good the clock is."""
    try:
        at, status = datetime_from_bytes(octets)
    except Exception as error:
        # The package raises what it meets: unspecified years, months beyond 12.
        detail = f"The clock is no instant: {type(error).__name__}."
        raise PayloadError("bad_instant", detail) from None
    # Not from the package, to which a deviation of 0 is none.
    minutes = int.from_bytes(octets[9:11], "big", signed=True)
    deviation = None if minutes == DEVIATION_UNSPECIFIED else timedelta(minutes=minutes)
    quality: TimeQuality = "sync"
    if status is not None and octets[11] != 0xFF:
        if status.invalid or status.invalid_status:
            quality = "lost"
        elif status.doubtful:
            quality = "drift"
    return cast("datetime", at.replace(tzinfo=None)), deviation, quality
