"""Rows of steady readings in the database's binary form, a batch at a time.

A row of a kind is laid out once, as octets; a batch is that many copies of it, into which whole
columns are written. See `store.binary` for the forms.
"""

from array import array
from collections.abc import Sequence
from functools import cache
from itertools import chain
from struct import Struct

import numpy as np

from schemas.identity import ACTIVE_IMPORT
from store import binary

_LENGTH = Struct("!i").pack
_JSONB = Struct("!ib").pack
_NULL = binary.text(None)
# The database's instants (2000, microseconds) from ours (1970, milliseconds).
_TO_MICROSECONDS = binary.microseconds(0)
# What the caller gives of each reading of the total, and of each debit before its amounts.
READING_NUMBERS = 5
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

    def rows(self, numbers: "array[int]") -> bytearray:
        """All rows; `numbers` are those of the first row, then of the second, and so on."""
        columns = np.frombuffer(numbers, dtype=np.int64).reshape(-1, len(self._names))
        octets = bytearray(self._octets * len(columns))
        rows = np.frombuffer(octets, dtype=self._rows)
        for place, name in enumerate(self._names):
            rows[name] = columns[:, place]
        return octets


def instant(ms: int) -> int:
    """What a `timestamptz` column holds."""
    return ms * 1000 + _TO_MICROSECONDS


# Columns, meter, register, instant, value, boot, counter; the rest of a row comes behind.
_READING = _Layout((Struct("!h").pack(11), _WIDE, binary.text(ACTIVE_IMPORT), *[_WIDE] * 4))


def readings(numbers: "array[int]", rests: Sequence[bytes]) -> bytes:
    """Rows of the total: (meter, `instant`, value, boot, counter) of each, and how its row ends."""
    octets, width = _READING.rows(numbers), _READING.width
    begun = [octets[at : at + width] for at in range(0, len(octets), width)]
    return b"".join(chain.from_iterable(zip(begun, rests, strict=True)))


def ends(now_ms: int) -> dict[tuple[str, bool, bool], bytes]:
    """The columns from `clock` to `verdict`, by (clock, replayed, judged)."""
    received = binary.int8(instant(now_ms))
    return {
        (clock, replayed, judged): b"".join(
            (
                binary.text(clock),
                _LENGTH(1) + bytes([replayed]),
                received,
                binary.text("accepted") if judged else _NULL,
            )
        )
        for clock in ("sync", "drift")
        for replayed in (False, True)
        for judged in (False, True)
    }


def other_reading(
    meter_id: int, register: str, ts_ms: int, value_wh: int, boot: int, seq: int
) -> bytes:
    """A reading of another register, up to its counter."""
    numbers = (instant(ts_ms), value_wh, boot, seq)
    head = Struct("!hiq").pack(11, 8, meter_id) + binary.text(register)
    return head + b"".join([binary.int8(each) for each in numbers])


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


def debits(taxes: int, numbers: "array[int]") -> bytearray:
    """Debits with so many taxes: of each the columns of `copy_debits`, then amounts and bases."""
    return _debit(taxes).rows(numbers)
