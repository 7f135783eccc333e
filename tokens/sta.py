"""EA07: the standard transfer algorithm (IEC 62055-41 6.5.4 and 7.3, clause numbers of 2014).

The cipher is public. Its substitution and permutation tables exist as a sample set, printed in the
standard and shipped here, and as a production set that the STS Association gives to licensees and
that every real meter uses. The production set is operator data: loaded, checked by fingerprint,
never part of this source.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Never

from tokens.errors import TokenError

ROUNDS = 16
KEY_OCTETS = 8
BLOCK_MASK = 0xFFFF_FFFF_FFFF_FFFF
SAMPLE_FINGERPRINT = "9f142165fdb3983503d299cc041a42a801ad2b1868de47433cdba8e3e64b7ed2"
PRODUCTION_FINGERPRINT = "a6f4941d55ae39cc41f3d310685bf049bdcaa8fa1be0fe8f006d8b8f53093b8d"


def _is_permutation(values: Sequence[object], size: int) -> bool:
    # Booleans count as integers in Python and would pass the comparison.
    return all(type(value) is int for value in values) and set(values) == set(range(size))


@dataclass(frozen=True, slots=True, repr=False)
class SubstitutionTables:
    """Two 16-entry substitutions and one 64-entry permutation."""

    s1: tuple[int, ...]
    s2: tuple[int, ...]
    permutation: tuple[int, ...]

    def __post_init__(self) -> None:
        shapes = ((self.s1, 16), (self.s2, 16), (self.permutation, 64))
        if not all(len(row) == size and _is_permutation(row, size) for row, size in shapes):
            raise TokenError(
                "tables_invalid",
                "A table set is [[s1], [s2], [permutation]] with 16, 16 and 64 different numbers.",
            )

    def __repr__(self) -> str:
        # Licensed tables are confidential: nothing but the fingerprint may reach a log.
        return f"<SubstitutionTables {self.fingerprint[:12]}>"

    def __reduce__(self) -> Never:
        raise TypeError("Substitution tables do not pickle; load them from the operator's file.")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the compact JSON form, in hex."""
        rows = [list(self.s1), list(self.s2), list(self.permutation)]
        return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()

    @property
    def is_production(self) -> bool:
        return self.fingerprint == PRODUCTION_FINGERPRINT

    @classmethod
    def load(cls, document: str | bytes) -> "SubstitutionTables":
        """Tables from JSON `[[s1], [s2], [permutation]]`; only the two known sets are taken.

        A single wrong entry would make every token of this utility useless, so an unknown
        fingerprint is refused rather than tried.
        """
        try:
            s1, s2, permutation = json.loads(document)
            tables = cls(tuple(s1), tuple(s2), tuple(permutation))
        except (ValueError, TypeError):
            raise TokenError(
                "tables_invalid", "The table file is not JSON of the form [[s1], [s2], [perm]]."
            ) from None
        if tables.fingerprint not in {SAMPLE_FINGERPRINT, PRODUCTION_FINGERPRINT}:
            raise TokenError(
                "tables_invalid",
                f"The table set has fingerprint {tables.fingerprint}, which is neither the sample "
                "nor the production set; ask the STS Association for the file again.",
            )
        return tables

    def require_production(self) -> "SubstitutionTables":
        """These tables, if real meters use them."""
        if not self.is_production:
            raise TokenError(
                "tables_invalid",
                "EA07 runs on the sample tables, which no real meter understands; "
                "load the licensed table file before going into production.",
            )
        return self


SAMPLE_TABLES = SubstitutionTables(
    s1=(12, 10, 8, 4, 3, 15, 0, 2, 14, 1, 5, 13, 6, 9, 7, 11),
    s2=(6, 9, 7, 4, 3, 10, 12, 14, 2, 13, 1, 15, 0, 11, 8, 5),
    permutation=(
        *(29, 27, 34, 9, 16, 62, 55, 2, 40, 49, 38, 25, 33, 61, 30, 23),
        *(1, 41, 21, 57, 42, 15, 5, 58, 19, 53, 22, 17, 48, 28, 24, 39),
        *(3, 60, 36, 14, 11, 52, 54, 12, 31, 51, 10, 26, 0, 45, 37, 43),
        *(44, 6, 59, 4, 7, 35, 56, 50, 13, 18, 32, 47, 46, 63, 20, 8),
    ),
)


def _rotate_left(value: int, places: int) -> int:
    return (value << places | value >> (64 - places)) & BLOCK_MASK


def _inverse(row: Sequence[int]) -> tuple[int, ...]:
    positions = [0] * len(row)
    for place, value in enumerate(row):
        positions[value] = place
    return tuple(positions)


class Sta:
    """The cipher under one 8-byte decoder key; blocks are 64-bit integers."""

    __slots__ = ("_key", "_tables")

    def __init__(self, key: bytes, tables: SubstitutionTables = SAMPLE_TABLES) -> None:
        if len(key) != KEY_OCTETS:
            raise TokenError("key_invalid", f"An STA key is 8 bytes; this one has {len(key)}.")
        complement = int.from_bytes(key, "big") ^ BLOCK_MASK
        self._key = _rotate_left(complement, 64 - 12)
        self._tables = tables

    def __repr__(self) -> str:
        return "<Sta, key hidden>"

    def __reduce__(self) -> Never:
        raise TypeError("A cipher holds a key and does not pickle; make it anew from the key.")

    def encrypt(self, block: int) -> int:
        tables, key = self._tables, self._key
        for _ in range(ROUNDS):
            block = _substitute(block, key, tables.s1, tables.s2)
            block = _permute(block, tables.permutation)
            key = _rotate_left(key, 1)
        return block

    def decrypt(self, block: int) -> int:
        tables = self._tables
        # Computed, not assumed: only in the sample set are the two tables each other's inverse.
        s1, s2 = _inverse(tables.s1), _inverse(tables.s2)
        permutation = _inverse(tables.permutation)
        key = _rotate_left(self._key, ROUNDS - 1)
        for _ in range(ROUNDS):
            block = _substitute(_permute(block, permutation), key, s1, s2)
            key = _rotate_left(key, 63)
        return block


def _substitute(block: int, key: int, s1: Sequence[int], s2: Sequence[int]) -> int:
    result = 0
    for shift in range(0, 64, 4):
        row = s2 if key >> shift & 0b1000 else s1
        result |= row[block >> shift & 0xF] << shift
    return result


def _permute(block: int, permutation: Sequence[int]) -> int:
    result = 0
    for bit, place in enumerate(permutation):
        result |= (block >> bit & 1) << place
    return result
