"""Rows of steady readings in the database's binary form, a batch at a time.

A row of a kind is laid out once, as octets; a batch is that many copies of it, into which whole
columns are written. See `store.binary` for the forms.
"""

from collections.abc import Sequence
from functools import cache
from itertools import chain
from struct import Struct
from typing import Any

import numpy as np
import orjson

from credit_engine.rating import energy_key
from credit_engine.steady import TAXES_MAX, Integers, Pricing
from schemas.identity import ACTIVE_IMPORT
from schemas.telemetry import DecodedReading
from store import binary
from store.pricings import Numbered

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


def _array(count: int) -> list[bytes | np.dtype]:
    """A column of so many wide numbers: its size, then as `array_send` has them."""
    if not count:
        return [binary.array_field(binary.int8_array([]))]
    head = binary.array_field(binary.int8_array([0] * count))[: -12 * count]
    return [head, *[_WIDE] * count]


@cache
def _debit(taxes: int) -> _Layout:
    # Nine numbers, the pricing, the day, and two arrays.
    columns = (*[_WIDE] * 9, _NARROW, _NARROW, *_array(2 + taxes), *_array(taxes))
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


# Columns; account, correction 0, instant, recorded, energy, day, customer, balance, from, corrects.
_POSTING = _Layout((
    Struct("!h").pack(16), _WIDE, Struct("!ii").pack(4, 0), *[_WIDE] * 3, _NARROW, *[_WIDE] * 3,
    _NULL,
))  # fmt: skip
_KIND = binary.text("energy")
# A number, and the number of a meter, in what explains a posting: texts that are neither.
_NUMBER, _METER = "\1", "\2"


@cache
def _amounts(count: int) -> _Layout:
    return _Layout(_array(count))


def postings(
    of: Numbered, meters: Sequence[str], numbers: Integers, amounts: Integers, words: Integers
) -> bytes:
    """Debits of one pricing as `copy_ledger` takes them. Of each: the numbers of `_POSTING`, its
    amounts, and the numbers of `Pricing.explain` in their order.
    """
    heads, sums = _POSTING.rows(numbers), _amounts(amounts.shape[1])
    tails, width = sums.rows(amounts), sums.width
    legs = binary.array_field(binary.int2_array(of.legs))
    same = b"".join((_KIND, binary.text(of.pricing.cell.band.name), legs))
    form = _explanation(of.pricing)
    rows: list[bytes | bytearray] = []
    for place, (meter, said) in enumerate(zip(meters, words.tolist(), strict=True)):
        said_of = form % (orjson.dumps(meter), *said)
        rows += (
            heads[place * _POSTING.width : (place + 1) * _POSTING.width],
            binary.text(energy_key(said[0], said[2])), same,
            tails[place * width : (place + 1) * width], detail(said_of),
        )  # fmt: skip
    return b"".join(rows)


def _explanation(pricing: Pricing) -> bytes:
    """What explains each debit of a pricing, with places for the meter and for numbers."""
    number: Any = _NUMBER
    registers, line = (number,) * 4, (number,) * 3
    taxes = [line] * len(pricing.cell.energy_taxes)
    said = orjson.dumps(pricing.explain(_METER, registers, number, number, number, taxes))
    form = said.replace(b"%", b"%%")
    return form.replace(orjson.dumps(_NUMBER), b"%d").replace(orjson.dumps(_METER), b"%b")
