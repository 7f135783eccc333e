"""Bytes near well-formed ones: where decoders break, rather than at the first byte."""

import random
from collections.abc import Sequence

# What parsers trip over: lengths, signs, ends of ranges, nesting, numbers beyond any type.
TOKENS = (
    b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\x84\xff\xff\xff\xff",
    b"\x9f", b"\xbf", b"\xd8\x1c", b"\xfb\x7f\xf8\x00\x00\x00\x00\x00\x00", b"\xf9\x7e\x00",
    b"NaN", b"1e999999999", b"-0", b"-1", b"9223372036854775808", b"1" * 400, b"null", b"true",
    b"[" * 200, b'{"a":' * 100, b'"\\u0000"', b"\\ud800", b"&a", b"*a", b"!!python/name:os", b": ",
    b"9999-12-31T23:59:59Z", b"0000-00-00T00:00:00Z", "\u0661".encode(), b"/", b"+", b"#",
    b"{device}",
)  # fmt: skip
LENGTH_MAX = 8192


def mutated(source: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A seed with one to eight changes; now and then bytes of no seed at all."""
    if source.random() < 0.02:
        return source.randbytes(source.randrange(64))
    data = bytearray(source.choice(seeds))
    for _ in range(1 << source.randrange(4)):
        _change(source, data, seeds)
    return bytes(data[:LENGTH_MAX])


def _change(source: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    at = source.randrange(len(data) + 1)
    end = min(len(data), at + 1 + source.randrange(16))
    kind = source.randrange(8)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << source.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = source.randrange(256)
    elif kind == 2:
        data[at:at] = source.choice(TOKENS)
    elif kind == 3:
        data[at:end] = source.choice(TOKENS)
    elif kind == 4:
        del data[at:end]
    elif kind == 5:
        data[at:at] = data[at:end]
    elif kind == 6:
        other = source.choice(seeds)
        start = source.randrange(len(other) + 1)
        data[at:end] = other[start : start + source.randrange(64)]
    else:
        del data[at:]
