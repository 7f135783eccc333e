"""What the short way of a gateway's batch reads is what the form reads; the rest it leaves be."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import decoding
from schemas.plain_batch import read_plain_batch
from schemas.quantities import parse_instant_ms
from schemas.telemetry import Decoded
from schemas.topics import Topic
from tests.odd_json import INSTANTS, INTEGERS, USUAL_INSTANT, VALUES, WORDS, written

NOW_MS = parse_instant_ms("2026-06-01T12:00:00Z")
TOPIC = Topic("g", "dcu-1", "up", "batch")

METERS = ['"37000000017"', '"37000000025"', '"3700000000000"', '"600727370000000174"']
ODD_METERS = [
    '"3700000001"',
    '"3700000001x"',
    '"37000000017 "',
    '"３7000000017"',
    '"\\u00337000000017"',
]
SLOTS = ["[123]", "[0]", "null", "[9007199254740991]"]
ODD_SLOTS = ["[]", "[1,2]", "[null]", "[-1]", "[9007199254740992]", "5", "{}", "[1.0]", "[true]"]
USUAL_COLS = '["1.8.0"]'
ODD_COLS = ['["2.8.0"]', '["1.8.0","2.8.0"]', '["1.8"]', "[]", '["256.1.1"]', '"1.8.0"']
IDS = ['"b-1"', '""', '"%s"' % ("b" * 64), '"%s"' % ("b" * 65), '"\\u0000"', '"é"', "5", "null"]
KEYS = ["v", "id", "t0", "dt", "cols", "tq", "hist", "rcpt", "rows", "ro\\u0077s", "extra"]

mostly = st.sampled_from([True] * 40 + [False])


@st.composite
def rows(draw: st.DrawFn) -> str:
    """A row of a meter, rarely with something odd."""
    meter = draw(st.sampled_from(METERS if draw(mostly) else ODD_METERS))
    boot, first = (
        draw(st.sampled_from(["17", "3"] if draw(mostly) else INTEGERS)) for _ in range(2)
    )
    slots = draw(st.lists(st.sampled_from(SLOTS if draw(mostly) else ODD_SLOTS), max_size=3))
    parts = [meter, boot, first, f"[{','.join(slots)}]"]
    if not draw(mostly):
        parts = draw(st.permutations(parts))[: draw(st.integers(0, 4))]
    return f"[{','.join(parts)}]"


@st.composite
def batches(draw: st.DrawFn) -> bytes:
    """A plain batch with a few things that are odd."""
    parts = {
        "v": "1",
        "t0": USUAL_INSTANT if draw(mostly) else draw(st.sampled_from(INSTANTS)),
        "dt": "900" if draw(mostly) else draw(st.sampled_from([*INTEGERS, "86400", "86401"])),
        "cols": USUAL_COLS if draw(mostly) else draw(st.sampled_from(ODD_COLS)),
        "rows": f"[{','.join(draw(st.lists(rows(), min_size=1, max_size=3)))}]",
    }
    for key, usual in (
        ("tq", WORDS[:3]),
        ("hist", WORDS[10:12]),
        ("rcpt", WORDS[10:12]),
        ("id", IDS),
    ):
        if draw(st.booleans()):
            parts[key] = draw(st.sampled_from(usual if draw(mostly) else WORDS))
    said = list(parts.items())
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1]))):
        anything = st.sampled_from([*INTEGERS, *WORDS, *VALUES, *INSTANTS])
        said.append((draw(st.sampled_from(KEYS)), draw(anything)))
    if not draw(mostly):
        said.pop(draw(st.integers(0, len(said) - 1)))
    return draw(written(said))


def by_the_form(payload: bytes) -> Decoded:
    with patch.object(decoding, "read_plain_batch", return_value=None):
        return decoding.decode_up(TOPIC, payload, None, NOW_MS)


@settings(max_examples=1_000, deadline=None)
@given(payload=batches())
def test_what_it_reads_is_what_the_form_reads(payload: bytes, read_at_all: list[Decoded]) -> None:
    latest_ms = NOW_MS + decoding.FUTURE_TOLERANCE_MS
    plain = read_plain_batch(payload, decoding.CLOCK_SET_FROM_MS, latest_ms)
    expected = by_the_form(payload)
    assert decoding.decode_up(TOPIC, payload, None, NOW_MS) == expected
    if plain is not None:
        read_at_all.append(plain)
        assert plain == expected
        types = [[type(said) for said in each] for each in plain.readings]
        assert types == [[type(said) for said in each] for each in expected.readings]


@pytest.fixture(scope="module")
def read_at_all() -> Iterator[list[Decoded]]:
    """A law about nothing would pass."""
    read: list[Decoded] = []
    yield read
    assert len(read) > 60
    assert any(len(each.readings) > 2 and each.batch_id for each in read)


@pytest.mark.parametrize(
    ("t0", "slots", "plain"),
    [
        ("2026-06-01T12:05:00Z", 1, True),
        ("2026-06-01T12:05:01Z", 1, False),
        ("2026-06-01T11:50:00Z", 2, True),
        ("2026-06-01T11:50:01Z", 2, False),
        ("2000-01-01T00:00:00Z", 1, True),
        ("1999-12-31T23:59:59Z", 2, False),
    ],
)
def test_instants_that_may_be_refused_are_left_alone(t0: str, slots: int, plain: bool) -> None:
    row = f'["37000000017",17,5,[{",".join(["[1]"] * slots)}]]'
    said = f'{{"v":1,"t0":"{t0}","dt":900,"cols":["1.8.0"],"rows":[{row}]}}'.encode()
    latest_ms = NOW_MS + decoding.FUTURE_TOLERANCE_MS
    found = read_plain_batch(said, decoding.CLOCK_SET_FROM_MS, latest_ms)
    assert (found is not None) == plain
    assert decoding.decode_up(TOPIC, said, None, NOW_MS) == by_the_form(said)
