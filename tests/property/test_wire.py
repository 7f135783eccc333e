import json
from contextlib import suppress
from datetime import datetime

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas import topics
from schemas.decoding import CBOR, LIMIT_BYTES, decode_up
from schemas.errors import DomainError
from schemas.identity import command_id, is_gateway_name, is_meter_number, is_obis
from schemas.quantities import (
    format_instant,
    format_kwh,
    format_micro,
    parse_instant_ms,
    parse_kwh,
    parse_micro,
    typed_decimal,
)
from schemas.topics import KINDS, Topic

NOW_MS = 1_772_360_100_000
METER = "37000000017"

devices = {
    "m": st.from_regex(r"(?:[0-9]{11}|[0-9]{13}|[0-9]{18})", fullmatch=True),
    "g": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True),
}
all_topics = st.one_of(
    [
        st.builds(Topic, st.just(side), devices[side], st.just(way), st.sampled_from(kinds))
        for (side, way), kinds in KINDS.items()
    ]
)
up_topics = all_topics.filter(lambda topic: topic.direction == "up")
integers = st.integers(min_value=-(2**70), max_value=2**70)
values = st.recursive(
    st.none() | st.booleans() | integers | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)
instants = st.integers(min_value=-(10**13), max_value=2 * 10**14).map(str) | st.integers(
    min_value=0, max_value=2 * NOW_MS
).map(format_instant)
# Objects that look like readings, each key right, wrong or missing.
near_readings = st.fixed_dictionaries(
    {"v": st.just(1) | values},
    optional={
        "boot": st.integers(0, 9) | values,
        "seq": st.integers(0, 9) | values,
        "ts": instants | values,
        "tq": st.sampled_from(["sync", "drift", "lost"]) | values,
        "hist": st.booleans() | values,
        "reg": st.dictionaries(st.sampled_from(["1.8.0", "2.8.0", "x"]), integers) | values,
        "relay": st.sampled_from(["open", "closed"]) | values,
        "rcpt": st.booleans() | values,
    },
)


@given(all_topics)
def test_build_and_parse_of_topics_are_inverses(topic: Topic) -> None:
    assert topics.parse(topics.build(topic)) == topic


@given(st.text(max_size=60))
def test_any_text_is_a_topic_that_builds_itself_or_is_refused(text: str) -> None:
    with suppress(DomainError):
        assert topics.build(topics.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pm/v1/m/37000000017/up/batch",
        "pm/v1/g/GW1/up/reading",
        "pm/v1/g/GW1/up/time",
        "pm/v1/m/GW1/up/reading",
        "pm/v2/m/37000000017/up/reading",
        "pm/v1/m/37000000017/up/reading/",
        "/pm/v1/m/37000000017/up/reading",
        "pm/v1/m/+/up/reading",
        "pm/v1/m/37000000017/dn/reading",
    ],
)
def test_a_topic_outside_the_tree_is_refused(text: str) -> None:
    with pytest.raises(DomainError) as caught:
        topics.parse(text)
    assert caught.value.code == "bad_topic"


def test_a_topic_outside_the_tree_is_not_built() -> None:
    with pytest.raises(DomainError):
        topics.build(Topic("m", METER, "up", "batch"))


@given(up_topics, st.binary(max_size=300), st.sampled_from([None, CBOR, "text/plain"]))
def test_arbitrary_bytes_never_crash_the_decoder(
    topic: Topic, payload: bytes, content_type: str | None
) -> None:
    decoded = decode_up(topic, payload, content_type, NOW_MS)
    for refused in decoded.refused:
        assert refused.detail.isascii()
        assert refused.detail.isprintable()


@settings(max_examples=200)
@given(up_topics, st.lists(near_readings, max_size=4) | near_readings | values)
def test_json_and_cbor_of_one_value_decode_to_the_same_readings(
    topic: Topic, value: object
) -> None:
    from_json = decode_up(topic, json.dumps(value).encode(), None, NOW_MS)
    from_cbor = decode_up(topic, cbor2.dumps(value), CBOR, NOW_MS)
    assert from_json.readings == from_cbor.readings
    assert from_json.hello == from_cbor.hello
    assert from_json.event == from_cbor.event


@given(st.lists(near_readings, max_size=4))
def test_everything_taken_is_within_the_contract(rows: list[object]) -> None:
    topic = Topic("m", METER, "up", "reading")
    decoded = decode_up(topic, json.dumps(rows).encode(), None, NOW_MS)
    for reading in decoded.readings:
        assert 0 <= reading.value_wh < 2**53
        assert 946_684_800_000 <= reading.ts_ms <= NOW_MS + 300_000
        assert is_obis(reading.register)


@given(st.lists(near_readings | values, max_size=5), st.integers(0, 5))
def test_a_good_row_is_taken_whatever_stands_beside_it(rows: list[object], place: int) -> None:
    good = {"v": 1, "boot": 3, "seq": 77, "ts": "2026-03-01T10:00:00Z", "reg": {"1.8.0": 12345}}
    rows.insert(place, good)
    payload = json.dumps(rows).encode()
    if len(payload) > LIMIT_BYTES["m"]:
        return
    decoded = decode_up(Topic("m", METER, "up", "reading"), payload, None, NOW_MS)
    assert (3, 77, 12345) in {(r.boot, r.seq, r.value_wh) for r in decoded.readings}


@given(st.integers(min_value=-(10**24) + 1, max_value=10**24 - 1))
def test_money_text_is_exact(micro: int) -> None:
    assert parse_micro(format_micro(micro)) == micro


@given(st.integers(min_value=-(10**20), max_value=10**20))
def test_energy_text_is_exact(wh: int) -> None:
    assert parse_kwh(format_kwh(wh)) == wh


@given(st.datetimes(), st.integers(-23, 23), st.integers(0, 59))
@example(datetime(1, 1, 1), 1, 0)
@example(datetime(9999, 12, 31, 23, 59, 59), -1, 0)
def test_what_is_read_as_an_instant_can_be_written(
    local: datetime, hours: int, minutes: int
) -> None:
    try:
        ms = parse_instant_ms(f"{local.isoformat(timespec='seconds')}{hours:+03d}:{minutes:02d}")
    except DomainError:
        return
    assert parse_instant_ms(format_instant(ms)) == ms


@given(st.integers(min_value=-62_135_596_800_000, max_value=253_402_300_799_999))
def test_instant_text_is_exact(ms: int) -> None:
    assert parse_instant_ms(format_instant(ms)) == ms


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=2, allow_nan=False))
def test_typed_arabic_digits_mean_the_same_amount(amount: object) -> None:
    plain = f"{amount:.2f}"
    arabic = plain.translate(str.maketrans("0123456789.", "٠١٢٣٤٥٦٧٨٩٫"))
    assert typed_decimal(arabic) == plain
    assert parse_micro(typed_decimal(arabic)) == parse_micro(plain)


@given(st.integers(0, 2**48 - 2), st.binary(min_size=10, max_size=10))
def test_command_ids_sort_by_time(now_ms: int, entropy: bytes) -> None:
    assert command_id(now_ms, entropy) < command_id(now_ms + 1, bytes(10))
    assert command_id(now_ms, entropy)[14] == "7"
    assert command_id(now_ms, entropy)[19] in "89ab"


@pytest.mark.parametrize("newline", ["\n", " "])
def test_patterns_do_not_let_a_trailing_blank_in(newline: str) -> None:
    assert is_meter_number(METER + newline) is None
    assert is_obis("1.8.0" + newline) is None
    assert is_gateway_name("GW1" + newline) is None
