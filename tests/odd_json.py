"""Pieces of JSON, plain and odd, of which laws about two ways of reading make messages."""

from collections.abc import Sequence

from hypothesis import strategies as st

INTEGERS = [
    "0",
    "1",
    "17",
    "-1",
    "-0",
    "1.0",
    "1e2",
    "01",
    "true",
    "null",
    '"1"',
    "9007199254740991",
    "9007199254740992",
    "18446744073709551616",
    "111111111111111111111111111111",
]
WORDS = [
    r'"sync"',
    r'"drift"',
    r'"lost"',
    r'"Sync"',
    r'"s\u0079nc"',
    r"null",
    r"1",
    r'"closed"',
    r'"open"',
    r'"armed"',
    r"true",
    r"false",
    r'""',
]
PLAIN = ["412", "230.4", "1.83", "-3", '"plain"', "[]", "[[1.5],null]", "{}", '{"a":{"b":[true]}}']
VALUES = [
    *PLAIN,
    *[
        r"1e5",
        r"1E400",
        r"12345678901234567890123",
        r"0.10000000000000000000000000",
        r'"é"',
        r'"\u0000"',
        r'"\ud800"',
        r"NaN",
        r"[1,]",
        r"-0.0",
        r'"1e5"',
        r'"²"',
    ],
]
USUAL_INSTANT = '"2026-06-01T10:15:00Z"'
INSTANTS = [
    USUAL_INSTANT,
    *[
        '"2026-06-01t10:15:00z"',
        '"2026-06-01T10:15:00.123Z"',
        '"2026-06-01T10:15:00.123456+00:00"',
        '"2026-06-01T12:15:00+02:00"',
        '"1970-01-01T00:00:00Z"',
        '"2026-06-01T12:05:00Z"',
        '"2026-06-01T12:05:01Z"',
        '"2026-06-31T10:15:00Z"',
        '"2026-06-01T24:00:00Z"',
        "5",
    ],
]


@st.composite
def written(draw: st.DrawFn, said: Sequence[tuple[str, str]]) -> bytes:
    """An object of keys and values, with blanks, and rarely with something behind it."""
    space = draw(st.sampled_from(["", "", " ", "\n\t"]))
    body = ("," + space).join(f'"{key}"{space}:{value}' for key, value in said)
    text = f"{space}{{{body}{space}}}{space}"
    return text.encode() + draw(st.sampled_from([b""] * 8 + [b"x", b"\xff", b"\0"]))
