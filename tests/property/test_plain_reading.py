"""What the short way of a plain reading reads is what the form reads; the rest it leaves alone."""

import json
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import decoding
from schemas.plain_reading import read_plain
from schemas.quantities import parse_instant_ms
from schemas.telemetry import Decoded, DecodedReading
from schemas.topics import Topic
from tests.odd_json import INSTANTS, INTEGERS, PLAIN, USUAL_INSTANT, VALUES, WORDS, written

METER = "37000000017"
NOW_MS = parse_instant_ms("2026-06-01T12:00:00Z")
TOPIC = Topic("m", METER, "up", "reading")

KEYS = [
    r"v",
    r"boot",
    r"seq",
    r"ts",
    r"tq",
    r"hist",
    r"reg",
    r"inst",
    r"relay",
    r"credit",
    r"rcpt",
    r"se\u0071",
    r"extra",
]
objects = st.dictionaries(
    st.sampled_from(["P", "V", "I", "a b"]), st.sampled_from(PLAIN * 5 + VALUES)
).map(lambda said: "{" + ",".join(f'"{key}":{value}' for key, value in said.items()) + "}")
registers = st.dictionaries(
    st.sampled_from(["1.8.0", "1.8.\\u0030", "2.8.0", "1.8", "256.1.1"]), st.sampled_from(INTEGERS)
).map(lambda said: "{" + ",".join(f'"{key}":{value}' for key, value in said.items()) + "}")
anything = st.sampled_from([*INTEGERS, *WORDS, *VALUES, *INSTANTS])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A plain reading with a few things that are odd."""
    parts = {
        "v": "1",
        "boot": "17",
        "seq": "5",
        "ts": draw(st.sampled_from([USUAL_INSTANT] * 20 + INSTANTS)),
        "reg": draw(st.one_of(*[st.just('{"1.8.0":123}')] * 4, registers)),
    }
    for key, odd in (("tq", WORDS), ("relay", WORDS), ("hist", WORDS), ("rcpt", WORDS)):
        if draw(st.booleans()):
            usual = {"tq": WORDS[:3], "relay": WORDS[7:10]}.get(key, WORDS[10:12])
            parts[key] = draw(st.sampled_from(usual * 20 + odd))
    for key in ("inst", "credit"):
        if draw(st.booleans()):
            parts[key] = draw(objects)
    said = list(parts.items())
    more = draw(st.sampled_from([0, 0, 0, 1, 2]))
    said += [(draw(st.sampled_from(KEYS)), draw(anything)) for _ in range(more)]
    if draw(st.integers(0, 9)) == 0:
        said.pop(draw(st.integers(0, len(said) - 1)))
    return draw(written(said))


def by_the_form(payload: bytes) -> Decoded:
    with patch.object(decoding, "read_plain", return_value=None):
        return decoding.decode_up(TOPIC, payload, None, NOW_MS)


def parsed(reading: DecodedReading) -> tuple[object, ...]:
    return (*reading[:-1], None if reading.rest is None else json.loads(reading.rest))


@settings(max_examples=1_500, deadline=None)
@given(payload=messages())
def test_what_it_reads_is_what_the_form_reads(payload: bytes, read_at_all: list[bytes]) -> None:
    latest_ms = NOW_MS + decoding.FUTURE_TOLERANCE_MS
    reading = read_plain(METER, payload, decoding.CLOCK_SET_FROM_MS, latest_ms)
    expected = by_the_form(payload)
    assert decoding.decode_up(TOPIC, payload, None, NOW_MS)[1:] == expected[1:]
    if reading is not None:
        read_at_all.append(payload)
        assert not expected.refused
        assert [parsed(each) for each in expected.readings] == [parsed(reading)]
        assert [type(each) for each in reading] == [type(each) for each in expected.readings[0]]


@pytest.fixture(scope="module")
def read_at_all() -> Iterator[list[bytes]]:
    """A law about nothing would pass."""
    read: list[bytes] = []
    yield read
    assert len(read) > 60
    assert any(b'"credit"' in each and b'"inst"' in each for each in read)


@pytest.mark.parametrize("depth", [8, 300])
def test_what_is_nested_deeply_is_left_to_the_form(depth: int) -> None:
    nested = '{"a":' * depth + "1" + "}" * depth
    said = f'{{"v":1,"boot":1,"seq":1,"ts":{USUAL_INSTANT},"reg":{{"1.8.0":1}},"inst":{nested}}}'
    reading = read_plain(METER, said.encode(), 0, NOW_MS)
    assert (reading is None) == (depth > 32)
