"""PostgreSQL's binary forms of what the hot path writes: arrays of a batch, and rows of COPY.

psycopg's own lists and rows are written value by value, texts through a regular expression; a
batch of some thousand readings spends most of its time there. A value stands behind its length in
octets (-1: null); an array begins with its dimensions, whether it has nulls, its element's type,
its length and its lower bound (`array_send` in the server's source).
"""

from collections.abc import Sequence
from datetime import date
from struct import Struct
from struct import pack as pack_format
from typing import Generic, TypeVar

import numpy as np
import orjson
import psycopg
from numpy.typing import NDArray
from psycopg.adapt import Dumper
from psycopg.pq import Format

_Value = TypeVar("_Value")

COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TAIL = b"\xff\xff"
# The server's own numbers of its types; they are part of its binary protocol.
BOOL, BYTEA, INT8, INT2, INT4, TEXT = 16, 17, 20, 21, 23, 25
BOOL_ARRAY, INT4_ARRAY, TEXT_ARRAY, INT8_ARRAY = 1000, 1007, 1009, 1016
# The server counts days and microseconds from 2000-01-01.
_EPOCH_MS = 946_684_800_000
_EPOCH_DAY = date(2000, 1, 1).toordinal()
_JSONB_VERSION = b"\1"

_LENGTH = Struct("!i").pack
_NULL = _LENGTH(-1)
_INT8 = Struct("!iq").pack
_TRUE, _FALSE = _LENGTH(1) + b"\1", _LENGTH(1) + b"\0"
_ARRAY_HEAD = Struct("!iiIii").pack
_NO_DIMENSIONS = Struct("!iiI").pack


class Column(Generic[_Value]):
    """Values of one column of a batch as a query's parameter; None is null."""

    __slots__ = ("values",)

    def __init__(self, values: Sequence[_Value | None]) -> None:
        self.values = values


class Int8s(Column[int]):
    """bigint[]"""

    __slots__ = ()


class Int4s(Column[int]):
    """integer[]; no nulls among them."""

    __slots__ = ()


class Packed:
    """bigint[] of a table's numbers, row by row; the fastest of these."""

    __slots__ = ("values",)

    def __init__(self, values: NDArray[np.int64]) -> None:
        self.values = values


class Texts(Column[str]):
    """text[]; other types, jsonb among them, by a cast in the query."""

    __slots__ = ()


class Bools(Column[bool]):
    """boolean[]"""

    __slots__ = ()


# A bigint as a parameter.
bigint = Struct("!q").pack


def int8(value: int | None) -> bytes:
    return _NULL if value is None else _INT8(8, value)


def text(value: str | None) -> bytes:
    if value is None:
        return _NULL
    octets = value.encode()
    return _LENGTH(len(octets)) + octets


def jsonb(value: object) -> bytes:
    octets = orjson.dumps(value)
    return _LENGTH(len(octets) + 1) + _JSONB_VERSION + octets


def day_number(day: date) -> int:
    """What a `date` column holds."""
    return day.toordinal() - _EPOCH_DAY


def microseconds(ms: int) -> int:
    """What a `timestamptz` column holds; `ms`: UTC milliseconds."""
    return (ms - _EPOCH_MS) * 1000


def int8_array(values: Sequence[int]) -> bytes:
    return _integers(INT8, 8, "iq", values)


def int4_array(values: Sequence[int]) -> bytes:
    return _integers(INT4, 4, "ii", values)


def text_array(values: Sequence[str]) -> bytes:
    return _array(TEXT, len(values), False, b"".join([text(value) for value in values]))


def bytea_array(values: Sequence[bytes]) -> bytes:
    return _array(BYTEA, len(values), False, b"".join([_LENGTH(len(v)) + v for v in values]))


def int2_array(values: Sequence[int]) -> bytes:
    return _integers(INT2, 2, "ih", values)


def _integers(element: int, size: int, form: str, values: Sequence[int]) -> bytes:
    pairs = [size] * (2 * len(values))
    pairs[1::2] = values
    return _array(element, len(values), False, pack_format("!" + form * len(values), *pairs))


def _array(element: int, count: int, nulls: bool, body: bytes) -> bytes:
    if not count:
        return _NO_DIMENSIONS(0, 0, element)
    return _ARRAY_HEAD(1, int(nulls), element, count, 1) + body


def array_field(array: bytes) -> bytes:
    """An array as a column of a row."""
    return _LENGTH(len(array)) + array


class _Int8sDumper(Dumper):
    format = Format.BINARY
    oid = INT8_ARRAY

    def dump(self, obj: Int8s) -> bytes:
        values = obj.values
        if None in values:
            return _array(INT8, len(values), True, b"".join(map(int8, values)))
        return int8_array(values)  # type: ignore[arg-type] # no None among them


class _Int4sDumper(Dumper):
    format = Format.BINARY
    oid = INT4_ARRAY

    def dump(self, obj: Int4s) -> bytes:
        return int4_array(obj.values)  # type: ignore[arg-type] # no None among them


_LONG = np.dtype([("length", ">i4"), ("value", ">i8")])


class _PackedDumper(Dumper):
    format = Format.BINARY
    oid = INT8_ARRAY

    def dump(self, obj: Packed) -> bytes:
        rows = np.empty(obj.values.size, _LONG)
        rows["length"] = 8
        rows["value"] = obj.values.reshape(-1)
        return _array(INT8, len(rows), False, rows.tobytes())


class _TextsDumper(Dumper):
    format = Format.BINARY
    oid = TEXT_ARRAY

    def dump(self, obj: Texts) -> bytes:
        values = obj.values
        return _array(TEXT, len(values), None in values, b"".join(map(text, values)))


class _BoolsDumper(Dumper):
    format = Format.BINARY
    oid = BOOL_ARRAY

    def dump(self, obj: Bools) -> bytes:
        values = obj.values
        octets = [_NULL if value is None else _TRUE if value else _FALSE for value in values]
        return _array(BOOL, len(values), None in values, b"".join(octets))


for _column, _dumper in (
    (Int8s, _Int8sDumper),
    (Int4s, _Int4sDumper),
    (Packed, _PackedDumper),
    (Texts, _TextsDumper),
    (Bools, _BoolsDumper),
):
    psycopg.adapters.register_dumper(_column, _dumper)
