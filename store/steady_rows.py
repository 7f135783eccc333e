"""Rows of steady readings in the database's binary form, a batch at a time.

A row of a kind is laid out once, as octets; a batch is that many copies of it, into which whole
columns are written. See `store.binary` for the forms.
"""

from collections.abc import Sequence
from functools import cache
from itertools import chain
from struct import Struct

import numpy as np

from credit_engine.steady import TAXES_MAX, Integers
from schemas.identity import ACTIVE_IMPORT
from schemas.telemetry import DecodedReading
from store import binary

_LENGTH = Struct("!i").pack
_JSONB = Struct("!ib").pack
_NULL = binary.text(None)
# The database's instants (2000, microseconds) from ours (1970, milliseconds).
_TO_MICROSECONDS = binary.microseconds(0)
# Of each debit before its amounts.
DEBIT_NUMBERS = 11
_WIDE, _NARROW = np.dtype(">i8"), np.dtype(">i4")


class _Layout:
    """A row as octets, with the places of its numbers."""

    def __init__(self, parts: Sequence[bytes | np.dtype]) -> None:
        octets, offsets, forms = b"", [], []
        for part in parts:
            if isinstance(part, bytes):
                octets += part
            else:
                octets += _LENGTH(part.itemsize)
                offsets.append(len(octets))
                forms.append(part)
                octets += bytes(part.itemsize)
        self._octets = octets
        self.width = len(octets)
        self._names = [f"c{place}" for place in range(len(forms))]
        self._rows = np.dtype(
            {"names": self._names, "formats": forms, "offsets": offsets, "itemsize": self.width}
        )

    def rows(self, numbers: Integers) -> bytearray:
        """All rows; `numbers` has a row for each."""
        octets = bytearray(self._octets * len(numbers))
        rows = np.frombuffer(octets, dtype=self._rows)
        for place, name in enumerate(self._names):
            rows[name] = numbers[:, place]
        return octets


def instants(ms: Integers) -> Integers:
    """What a `timestamptz` column holds."""
    return ms * 1000 + _TO_MICROSECONDS


# Columns, meter, register, instant, value, boot, counter; the rest of a row comes behind.
_READING = _Layout((Struct("!h").pack(11), _WIDE, binary.text(ACTIVE_IMPORT), *[_WIDE] * 4))


def readings(numbers: Integers, rests: Sequence[bytes]) -> bytes:
    """Rows of the total: (meter, `instants`, value, boot, counter) of each, and its row's end."""
    octets, width = bytes(_READING.rows(numbers)), _READING.width
    begun = [octets[at : at + width] for at in range(0, len(octets), width)]
    return b"".join(chain.from_iterable(zip(begun, rests, strict=True)))


def end(clock: str, replayed: bool, now_ms: int, verdict: str | None = "accepted") -> bytes:
    """The columns from `clock` to `verdict`."""
    received = binary.int8(binary.microseconds(now_ms))
    flag = _LENGTH(1) + bytes([replayed])
    return b"".join((binary.text(clock), flag, received, binary.text(verdict)))


def other_reading(meter_id: int, reading: DecodedReading, now_ms: int) -> bytes:
    """A row of a register beside the total, which nobody judges."""
    numbers = (binary.microseconds(reading.ts_ms), reading.value_wh, reading.boot, reading.seq)
    head = Struct("!hiq").pack(11, 8, meter_id) + binary.text(reading.register)
    return b"".join((
        head, *[binary.int8(each) for each in numbers],
        end(reading.tq, reading.hist, now_ms, None), detail(reading.rest),
    ))  # fmt: skip


def detail(rest: bytes | None) -> bytes:
    """What a message said beyond the columns, as JSON."""
    return _NULL if rest is None else _JSONB(len(rest) + 1, 1) + rest


@cache
def _debit(taxes: int) -> _Layout:
    # Nine numbers, the pricing, the day, and two arrays: their size, then as `array_send` has them.
    def column(count: int) -> list[bytes | np.dtype]:
        if not count:
            return [binary.array_field(binary.int8_array([]))]
        head = binary.array_field(binary.int8_array([0] * count))[: -12 * count]
        return [head, *[_WIDE] * count]

    columns = (*[_WIDE] * 9, _NARROW, _NARROW, *column(2 + taxes), *column(taxes))
    return _Layout((Struct("!h").pack(13), *columns))


def debits(taxes: int, numbers: Integers) -> bytearray:
    """Debits with so many taxes; of each the columns of `copy_debits`, its amounts and bases with
    room for all taxes that there may be.
    """
    bases_at = DEBIT_NUMBERS + 2 + TAXES_MAX
    return _debit(taxes).rows(
        np.hstack(
            (numbers[:, : DEBIT_NUMBERS + 2 + taxes], numbers[:, bases_at : bases_at + taxes])
        )
    )
