import json

import cbor2
import orjson
import pytest

from schemas.decoding import CBOR, decode_up
from schemas.telemetry import Decoded, DecodedReading
from schemas.topics import Topic

NOW_MS = 1_772_360_100_000  # 2026-03-01T10:15:00Z
METER = "37000000017"
READING = Topic("m", METER, "up", "reading")
BATCH = Topic("g", "GW-77", "up", "batch")
GOOD = {
    "v": 1,
    "boot": 17,
    "seq": 90211,
    "ts": "2026-03-01T10:15:00Z",
    "tq": "sync",
    "hist": False,
    "reg": {"1.8.0": 10482310, "2.8.0": 0},
    "inst": {"P": 412, "V": [230.4], "I": [1.83]},
    "relay": "closed",
    "credit": {"mode": "hybrid", "wh": 41230},
    "rcpt": True,
}


def encoded(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def test_each_register_of_a_reading_is_one_row() -> None:
    decoded = decode_up(READING, encoded(), None, NOW_MS)
    assert decoded.refused == ()
    # What carries no money goes along untouched.
    rest = orjson.dumps({"inst": GOOD["inst"], "credit": GOOD["credit"]})
    said = (17, 90211, "sync", False, True, "closed", rest)
    assert decoded.readings == (
        DecodedReading(METER, "1.8.0", NOW_MS, 10482310, *said),
        DecodedReading(METER, "2.8.0", NOW_MS, 0, *said),
    )


def test_unknown_keys_travel_along() -> None:
    decoded = decode_up(READING, encoded(flags=["cover_ok"]), None, NOW_MS)
    assert orjson.loads(decoded.readings[0].rest or b"{}")["flags"] == ["cover_ok"]


@pytest.mark.parametrize("odd", ["\u0000", {"\u0000": 1}, 2**64, b"octets", {1: 2}, [float("nan")]])
def test_what_a_database_cannot_hold_never_costs_a_reading(odd: object) -> None:
    payload = cbor2.dumps({**GOOD, "reg": {"1.8.0": 5}, "inst": {"P": odd}})
    decoded = decode_up(READING, payload, CBOR, NOW_MS)
    kept = [reading.rest for reading in decoded.readings]
    assert all(b"\\u0000" not in text for text in kept)
    assert bool(kept) != bool(decoded.refused)


@pytest.mark.parametrize("mark", ["", "d9d9f7"])
@pytest.mark.parametrize("content_type", [CBOR, "Application/CBOR", "application/cbor; v=1"])
def test_cbor_says_the_same(content_type: str, mark: str) -> None:
    payload = bytes.fromhex(mark) + cbor2.dumps(GOOD)
    expected = decode_up(READING, encoded(), None, NOW_MS)
    assert decode_up(READING, payload, content_type, NOW_MS) == expected


def test_what_may_be_left_out_has_a_default() -> None:
    bare = {name: GOOD[name] for name in ("v", "boot", "seq", "ts", "reg")}
    (first, _) = decode_up(READING, json.dumps(bare).encode(), None, NOW_MS).readings
    assert (first.tq, first.hist, first.rcpt, first.relay) == ("sync", False, False, None)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "undecodable"),
        (b"\xff\xfe", "undecodable"),
        (b'{"v":1', "undecodable"),
        (b'{"v":1,"seq":NaN}', "undecodable"),
        (b"[" * 4000, "undecodable"),
        (b'"text"', "wrong_type"),
        (b"12", "wrong_type"),
        (b"{}", "unknown_version"),
        (encoded(v=2), "unknown_version"),
        (encoded(v=True), "unknown_version"),
        (encoded(v="1"), "unknown_version"),
        (encoded(boot="17"), "wrong_type"),
        (encoded(boot=True), "wrong_type"),
        (encoded(seq=1.0), "wrong_type"),
        (encoded(seq=-1), "wrong_type"),
        (encoded(reg=[]), "wrong_type"),
        (encoded(reg={}), "wrong_type"),
        (encoded(reg={"1.8.0": "12"}), "wrong_type"),
        (encoded(reg={"1.8.0": 1.5}), "wrong_type"),
        (encoded(tq="perhaps"), "wrong_type"),
        (encoded(tq=None), "wrong_type"),
        (encoded(hist=0), "wrong_type"),
        (encoded(ts=NOW_MS), "wrong_type"),
        (encoded(ts="2026-03-01 10:15:00"), "bad_instant"),
        (encoded(ts="20260301101500"), "bad_instant"),
        (encoded(ts="2026-02-30T10:15:00Z"), "bad_instant"),
        (encoded(ts="2026-03-01T10:15:60Z"), "bad_instant"),
        (encoded(ts="1970-01-01T00:00:07Z"), "clock_1970"),
        (encoded(ts="1999-12-31T23:59:59.999Z"), "clock_1970"),
        (encoded(ts="2026-03-01T10:20:00.001Z"), "future"),
        (encoded(boot=2**53), "unsafe_integer"),
        (encoded(pad="x" * 4096), "too_large"),
    ],
)
def test_a_reading_that_cannot_be_taken_says_why(payload: bytes, reason: str) -> None:
    decoded = decode_up(READING, payload, None, NOW_MS)
    assert decoded.readings == ()
    assert [(r.reason, r.row_index) for r in decoded.refused] == [(reason, None)]
    assert len(decoded.refused[0].raw) <= 4096


@pytest.mark.parametrize("ts", ["2026-03-01T10:20:00Z", "2026-03-01T11:20:00+01:00"])
def test_five_minutes_ahead_is_still_now(ts: str) -> None:
    assert decode_up(READING, encoded(ts=ts), None, NOW_MS).refused == ()


@pytest.mark.parametrize("kind", ["reading", "batch", "ack", "event", "hello"])
@pytest.mark.parametrize(
    ("ts", "after_ms"),
    [
        ("2026-03-01T10:15:00.000000+00:00", 0),
        ("2026-03-01T10:14:59.123456Z", -877),
        ("2026-03-01T10:14:59.999999999Z", -1),
    ],
)
def test_what_is_finer_than_a_millisecond_is_cut_off(kind: str, ts: str, after_ms: int) -> None:
    if kind == "batch":
        decoded = decode_up(BATCH, batch(t0=ts, rows=[[METER, 1, 1, [[5]]]]), None, NOW_MS)
    else:
        form = {**GOOD, "ts": ts, "cmd": "c", "state": "done", "type": "tamper"}
        decoded = decode_up(Topic("m", METER, "up", kind), json.dumps(form).encode(), None, NOW_MS)  # type: ignore[arg-type]
    words = [*decoded.readings, decoded.ack, decoded.event, decoded.hello]
    assert {word.ts_ms - NOW_MS for word in words if word is not None} == {after_ms}
    assert decoded.refused == ()


@pytest.mark.parametrize(
    ("register", "value", "reason"),
    [
        ("1.8.0", -1, "sentinel_register"),
        ("1.8.0", -2, "negative_register"),
        ("1.8.0", 2**53, "unsafe_integer"),
        ("1.8", 5, "unknown_register"),
        ("1-0:1.8.0", 5, "unknown_register"),
        ("1.8.256", 5, "unknown_register"),
        ("1.8.0\n", 5, "unknown_register"),
    ],
)
def test_one_bad_register_leaves_the_others(register: str, value: int, reason: str) -> None:
    decoded = decode_up(READING, encoded(reg={register: value, "2.8.0": 7}), None, NOW_MS)
    assert [r.reason for r in decoded.refused] == [reason]
    assert [(r.register, r.value_wh) for r in decoded.readings] == [("2.8.0", 7)]


@pytest.mark.parametrize(
    ("value", "reasons"),
    [(None, []), (1.5, ["wrong_type"]), ("7", ["wrong_type"]), (True, ["wrong_type"])],
)
def test_a_register_of_no_number_leaves_the_others(value: object, reasons: list[str]) -> None:
    payload = encoded(reg={"1.8.0": 5, "2.8.0": value})
    decoded = decode_up(READING, payload, None, NOW_MS)
    assert [(r.register, r.value_wh) for r in decoded.readings] == [("1.8.0", 5)]
    assert [(r.reason, r.boot, r.seq) for r in decoded.refused] == [
        (reason, 17, 90211) for reason in reasons
    ]


@pytest.mark.parametrize("content_type", [None, CBOR])
@pytest.mark.parametrize(
    ("changes", "rest"),
    [
        ({"relay": "tripped"}, {"relay": "tripped"}),
        ({"relay": 5, "extra": None}, {"relay": 5, "extra": None}),
        ({"inst": [412], "credit": "none"}, {"inst": [412], "credit": "none"}),
        (dict.fromkeys(("relay", "inst", "credit", "hist", "rcpt")), {}),
    ],
)
def test_what_carries_no_money_never_costs_a_reading(
    changes: dict[str, object], rest: dict[str, object], content_type: str | None
) -> None:
    bare = {name: GOOD[name] for name in ("v", "boot", "seq", "ts")}
    form = {**bare, "reg": {"1.8.0": 5}, **changes}
    payload = cbor2.dumps(form) if content_type else json.dumps(form).encode()
    decoded = decode_up(READING, payload, content_type, NOW_MS)
    assert decoded.refused == ()
    [reading] = decoded.readings
    assert (reading.value_wh, reading.relay, reading.hist, reading.rcpt) == (5, None, False, False)
    assert orjson.loads(reading.rest or b"{}") == rest


def test_faults_of_one_kind_in_one_row_are_one_refusal() -> None:
    decoded = decode_up(READING, encoded(reg={f"1.8.{i}": -1 for i in range(90)}), None, NOW_MS)
    (refused,) = decoded.refused
    assert refused.detail.endswith("And 89 more.")


def test_bad_rows_of_a_list_are_returned_with_their_index_and_bytes() -> None:
    rows = [
        GOOD,
        5,
        {**GOOD, "seq": 90212, "v": 3},
        {**GOOD, "seq": 90213, "ts": "soon"},
        {**GOOD, "seq": 90214, "ts": "0001-01-01T00:00:00+01:00"},
    ]
    decoded = decode_up(READING, json.dumps(rows).encode(), None, NOW_MS)
    assert {r.seq for r in decoded.readings} == {90211}
    assert [(r.reason, r.row_index, r.meter) for r in decoded.refused] == [
        ("wrong_type", 1, METER),
        ("unknown_version", 2, METER),
        ("bad_instant", 3, METER),
        ("bad_instant", 4, METER),
    ]
    assert json.loads(decoded.refused[1].raw) == rows[2]


@pytest.mark.parametrize(
    "payload",
    [
        bytes.fromhex("d81c81d81d00"),  # a list that contains itself
        bytes.fromhex("c11a514b67b0"),  # a date
        bytes.fromhex("c249010000000000000000"),  # a big number
        bytes.fromhex("9b0000ffffffffffff"),  # a list that claims 2^48 items
        bytes.fromhex("81" * 100 + "00"),  # a hundred lists deep
        bytes.fromhex("a2617601617601"),  # one key twice
        b"",
        cbor2.dumps(GOOD) + cbor2.dumps(GOOD),
        cbor2.dumps(GOOD) + b"\xff",
    ],
)
def test_hostile_cbor_is_undecodable(payload: bytes) -> None:
    decoded = decode_up(READING, payload, CBOR, NOW_MS)
    assert [r.reason for r in decoded.refused] == ["undecodable"]


def batch(**changes: object) -> bytes:
    form = {
        "v": 1,
        "t0": "2026-03-01T09:00:00Z",
        "dt": 900,
        "cols": ["1.8.0"],
        "rows": [
            [METER, 17, 90211, [[10482310], [10482395], None]],
            ["37000000025", 3, 5102, [[773001], None, [773040]]],
        ],
    }
    return json.dumps({**form, **changes}).encode()


def test_a_batch_becomes_readings_at_slot_times_and_gaps_use_up_their_seq() -> None:
    decoded = decode_up(BATCH, batch(), None, NOW_MS)
    t0_ms = NOW_MS - 75 * 60_000
    assert decoded.refused == ()
    assert [(r.meter, r.boot, r.seq, r.ts_ms - t0_ms, r.value_wh) for r in decoded.readings] == [
        (METER, 17, 90211, 0, 10482310),
        (METER, 17, 90212, 900_000, 10482395),
        ("37000000025", 3, 5102, 0, 773001),
        ("37000000025", 3, 5104, 1_800_000, 773040),
    ]


@pytest.mark.parametrize("content_type", [None, CBOR])
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("row", "wrong_type"),
        ([METER, 1, 1], "wrong_type"),
        (["370", 1, 1, [[5]]], "wrong_type"),
        ([METER, -1, 1, [[5]]], "wrong_type"),
        ([METER, 1, 1, [5]], "wrong_type"),
        ([METER, 1, 1, [[5.0]]], "wrong_type"),
        ([METER, 1, 1, [[5, 6]]], "wrong_type"),
        ([METER, 1, 2**53, [[5]]], "unsafe_integer"),
        ([METER, 1, 1, [[-1]]], "sentinel_register"),
        ([METER, 1, 1, [[-5]]], "negative_register"),
        ([METER, 1, 1, [None] * 7 + [[5]]], "future"),
    ],
)
def test_a_bad_row_of_a_batch_leaves_the_others(
    row: object, reason: str, content_type: str | None
) -> None:
    rows = [row, ["37000000025", 3, 5102, [[773001]]]]
    form = json.loads(batch(rows=rows))
    payload = cbor2.dumps(form) if content_type else json.dumps(form).encode()
    decoded = decode_up(BATCH, payload, content_type, NOW_MS)
    assert [r.value_wh for r in decoded.readings] == [773001]
    assert [(r.reason, r.row_index) for r in decoded.refused] == [(reason, 0)]
    assert json.loads(decoded.refused[0].raw) == row


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"v": 2}, "unknown_version"),
        ({"t0": "yesterday"}, "bad_instant"),
        ({"t0": "0001-01-01T00:00:00+01:00"}, "bad_instant"),
        ({"dt": 0}, "wrong_type"),
        ({"cols": []}, "wrong_type"),
        ({"cols": ["power"]}, "unknown_register"),
        ({"cols": [18]}, "wrong_type"),
        ({"tq": "perhaps"}, "wrong_type"),
        ({"rows": {}}, "wrong_type"),
        ({"pad": "x" * 65_536}, "too_large"),
    ],
)
def test_a_batch_without_a_usable_head_is_refused_whole(
    changes: dict[str, object], reason: str
) -> None:
    decoded = decode_up(BATCH, batch(**changes), None, NOW_MS)
    assert decoded.readings == ()
    assert [(r.reason, r.row_index) for r in decoded.refused] == [(reason, None)]


def test_columns_of_a_batch_are_judged_one_by_one() -> None:
    rows = [[METER, 17, 90211, [[10482310, 412], [10482395, None]]]]
    decoded = decode_up(BATCH, batch(cols=["1.8.0", "P"], rows=rows), None, NOW_MS)
    assert [r.value_wh for r in decoded.readings] == [10482310, 10482395]
    assert [(r.reason, r.row_index, r.seq) for r in decoded.refused] == [
        ("unknown_register", 0, 90212)
    ]


@pytest.mark.parametrize(
    "odd", [{"zone": "K4"}, {"id": 5}, {"id": None, "hist": None, "rcpt": None}]
)
def test_what_a_head_says_beside_goes_along_with_each_reading(odd: dict[str, object]) -> None:
    decoded = decode_up(BATCH, batch(**odd), None, NOW_MS)
    assert (len(decoded.readings), decoded.refused, decoded.batch_id) == (4, (), None)
    said = {key: value for key, value in odd.items() if value is not None}
    assert {reading.rest for reading in decoded.readings} == {orjson.dumps(said) if said else None}


def test_the_answer_to_a_large_bad_batch_stays_small() -> None:
    rows = [[METER, 1, 1, [[-1]] * 12_000]]
    decoded = decode_up(BATCH, batch(rows=rows), None, NOW_MS)
    assert sum(len(r.raw) for r in decoded.refused) < 128 * 1024


def up(kind: str, form: object, side: str = "m", device: str = METER) -> object:
    payload = form if isinstance(form, bytes) else json.dumps(form).encode()
    return decode_up(Topic(side, device, "up", kind), payload, None, NOW_MS)  # type: ignore[arg-type]


ACK = {"v": 1, "cmd": "01J8ZK", "state": "done", "ts": "2026-03-01T10:15:00Z"}


def test_an_acknowledgement_carries_what_the_meter_measured() -> None:
    token = {
        "format": True,
        "authentication": True,
        "validation": False,
        "execution": False,
        "result": "UsedError",
    }
    decoded = up("ack", {**ACK, "relay": "open", "reg": {"1.8.0": 5}, "tokens": [token, token]})
    ack = decoded.ack
    assert (ack.meter, ack.cmd, ack.state, ack.relay) == (METER, "01J8ZK", "done", "open")
    assert ack.reg == {"1.8.0": 5}
    assert (ack.tokens, ack.last_token) == ((token, token), None)
    alone = up("ack", {**ACK, "token": token}).ack
    assert (alone.tokens, alone.last_token) == ((), token)
    both = up("ack", {**ACK, "token": token, "tokens": [token]}).ack
    assert (both.tokens, both.last_token) == ((token,), None)


@pytest.mark.parametrize(
    ("ts", "reason"),
    [("1970-01-01T00:00:09Z", "clock_1970"), ("2026-03-01T10:25:00Z", "future")],
)
@pytest.mark.parametrize(("side", "device"), [("m", METER), ("g", "GW1")])
def test_what_a_meter_did_counts_whatever_its_clock_says(
    side: str, device: str, ts: str, reason: str
) -> None:
    answered = up("ack", {**ACK, "ts": ts, "relay": "open", "meter": METER}, side, device)
    told = up("event", {"v": 1, "type": "tamper", "ts": ts, "meter": METER}, side, device)
    assert (answered.ack.meter, answered.ack.state, answered.ack.relay) == (METER, "done", "open")
    assert told.event.type == "tamper"
    for each in (answered, told):
        assert [refused.reason for refused in each.refused] == [reason]


@pytest.mark.parametrize("kind", ["ack", "hello"])
def test_a_bad_register_costs_no_answer_and_no_birth(kind: str) -> None:
    registers = {"1.8.0": -1, "2.8.0": 7, "3.8.0": None, "P": 1, "4.8.0": 2**53, "5.8.0": "x"}
    decoded = up(kind, {**ACK, "boot": 1, "reg": registers, "relay": "open"})
    word = getattr(decoded, kind)
    assert (word.relay, word.reg) == ("open", {"2.8.0": 7})
    reasons = ["sentinel_register", "unknown_register", "unsafe_integer", "wrong_type"]
    assert sorted(refused.reason for refused in decoded.refused) == reasons


@pytest.mark.parametrize(
    "changes", [{"token": None}, {"relay": "tripped"}, {"tokens": None, "why": None}]
)
def test_a_word_of_no_use_costs_no_answer(changes: dict[str, object]) -> None:
    decoded = up("ack", {**ACK, **changes})
    assert (decoded.ack.state, decoded.ack.tokens, decoded.refused) == ("done", (), ())


@pytest.mark.parametrize(
    "odd", [{"relay": "tripped"}, {"x": {"y": [1.5]}}, {"relay": 7, "x": None}]
)
def test_what_an_answer_says_beside_travels_along(odd: dict[str, object]) -> None:
    ack = up("ack", {**ACK, **odd}).ack
    assert (ack.relay, ack.beside) == (None, {"ts": ACK["ts"], **odd})
    assert "unstorable" in up("ack", {**ACK, "x": "\u0000"}).ack.beside


def test_a_meter_cannot_answer_for_another() -> None:
    assert up("ack", {**ACK, "meter": "37000000025"}).ack.meter == METER


def test_a_gateway_answers_for_the_meter_it_names() -> None:
    assert up("ack", {**ACK, "meter": "37000000025"}, "g", "GW1").ack.meter == "37000000025"
    assert up("ack", ACK, "g", "GW1").ack.meter is None


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "perhaps"},
        {"cmd": "a\u0000"},
        {"cmd": ""},
        {"why": "\u0000"},
        {"token": {"result": "Accept"}},
    ],
)
def test_an_acknowledgement_outside_the_form_is_refused(changes: dict[str, object]) -> None:
    decoded = up("ack", {**ACK, **changes})
    assert decoded.ack is None
    assert [r.reason for r in decoded.refused] == ["wrong_type"]


def test_hello_event_state_and_time_are_decoded() -> None:
    hello = up(
        "hello",
        {"v": 1, "boot": 4, "ts": "1970-01-01T00:00:09Z", "tq": "lost", "buf": {"rows": 12}},
    ).hello
    assert (hello.boot, hello.ts_ms, hello.tq, hello.buffered) == (4, 9000, "lost", 12)
    event = up("event", {"v": 1, "type": "tamper", "ts": "2026-03-01T10:15:00Z"}).event
    assert (event.meter, event.type, event.ts_ms) == (METER, "tamper", NOW_MS)
    assert up("state", b"online").online is True
    assert up("state", b'"offline"').online is False
    assert up("time", {"v": 1, "t1": 5}).time_request_ms == 5


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("hello", {"v": 1}),
        ("event", {"v": 1, "type": "Tamper!", "ts": "2026-03-01T10:15:00Z"}),
        ("state", b"maybe"),
        ("time", {"v": 1, "t1": "5"}),
    ],
)
def test_reports_outside_their_forms_are_refused(kind: str, payload: object) -> None:
    assert [r.reason for r in up(kind, payload).refused] == ["wrong_type"]


@pytest.mark.parametrize("kind", ["over-power", "over_power"])
@pytest.mark.parametrize("info", [{"w": 7200.5}, {"w": 7200, "phase": "L1", "cut": False}, {}])
def test_an_event_is_known_however_it_is_written(kind: str, info: dict[str, object]) -> None:
    form = {"v": 1, "type": kind, "ts": "2026-03-01T10:15:00Z", "info": info}
    event = up("event", form).event
    assert (event.type, event.info) == ("over_power", info)


def test_a_state_that_is_taken_back_says_nothing() -> None:
    assert up("state", b"") == Decoded()


@pytest.mark.parametrize("t1", [2**53, -(2**53), 2**70])
def test_a_question_at_no_instant_is_refused(t1: int) -> None:
    assert [r.reason for r in up("time", {"v": 1, "t1": t1}).refused] == ["unsafe_integer"]


def test_what_is_said_on_the_servers_topics_is_refused() -> None:
    decoded = decode_up(Topic("m", METER, "dn", "cmd"), b"{}", None, NOW_MS)
    assert [r.reason for r in decoded.refused] == ["wrong_type"]


@pytest.mark.parametrize("odd", [{b"boot": 1}, {b"x": {b"v": 3}}, [b"octets", {b"v": 1}]])
def test_a_bad_row_that_no_json_holds_is_kept_as_readable_text(odd: object) -> None:
    good = {"v": 1, "boot": 1, "seq": 1, "ts": "2026-03-01T10:15:00Z", "reg": {"1.8.0": 5}}
    decoded = decode_up(READING, cbor2.dumps([odd, good]), CBOR, NOW_MS)
    assert [each.value_wh for each in decoded.readings] == [5]
    [refused] = decoded.refused
    assert refused.row_index == 0
    assert json.loads(refused.raw)
