import json
from pathlib import Path

import pytest

from tokens import codec
from tokens.credit import Credit, transfer_credit
from tokens.keys import DecoderKey
from tokens.vectors import KINDS, check_lines

FILE = Path(__file__).parents[1] / "data" / "sts" / "vectors.jsonl"
LINES = FILE.read_text(encoding="utf-8").splitlines()
VECTORS = [json.loads(line) for line in LINES]


def problems(vector):
    (outcome,) = check_lines([json.dumps(vector)])
    return outcome.problems


def first(kind, **wanted):
    return next(
        vector
        for vector in VECTORS
        if vector["kind"] == kind
        and all(vector.get(name) == value for name, value in wanted.items())
    )


def changed(vector, **inputs):
    return vector | {"inputs": vector["inputs"] | inputs}


def test_every_known_answer_is_given():
    outcomes = list(check_lines(LINES))
    assert [outcome for outcome in outcomes if outcome.problems] == []
    assert [outcome.id for outcome in outcomes] == [vector["id"] for vector in VECTORS]
    assert len(outcomes) == 558


NEGATIVES = [
    first("negative", case=case)
    for case in sorted({vector["case"] for vector in VECTORS if vector["kind"] == "negative"})
]


def altered(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, list):
        return [*value, "accepted"]
    return "0" + value[:-1] if value[0] != "0" else "1" + value[1:]


def test_no_expected_value_is_overlooked():
    for vector in VECTORS:
        for name, value in vector["expected"].items():
            if name != "note":
                wrong = vector | {"expected": vector["expected"] | {name: altered(value)}}
                assert problems(wrong), (vector["id"], name)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"luhn"}))
def test_an_expectation_that_nothing_computes_is_a_failure(kind):
    vector = first(kind)
    assert problems(vector | {"expected": {"surprise": 1}})
    assert problems(vector | {"expected": {}})


@pytest.mark.parametrize("vector", [*map(first, sorted(set(KINDS) - {"luhn"})), *NEGATIVES])
@pytest.mark.parametrize("profile", ["EA13", "clear ", ""])
def test_an_unknown_profile_is_a_failure_whatever_the_kind(vector, profile):
    assert problems(vector) == ()
    for wrong in (vector | {"profile": profile}, changed(vector, profile=profile)):
        assert problems(wrong) == (f"profile {profile!r} is unknown",)


@pytest.mark.parametrize(
    "vector",
    [
        first("token", cls=0) | {"profile": "EA13"},
        first("token", cls=0) | {"profile": "clear"},
        first("token", cls=1) | {"profile": "EA11"},
        first("token", profile="EA11") | {"profile": "EA07/iec-sample-tables"},
        first("sta") | {"profile": "production"},
        first("des") | {"kind": "aes"},
        changed(first("negative", case="bad_crc"), profile="EA13"),
        changed(first("negative", case="bad_crc"), profile="EA11"),
        first("negative") | {"inputs": {"nonsense": 1}},
        first("token", subclass=5) | {"subclass": 9},
        changed(first("token", cls=2, subclass=4), token_set="quad"),
        changed(first("token", cls=2, subclass=4), token_set="dozen"),
        changed(
            first("token", cls=2, subclass=4),
            new=first("token", cls=2, subclass=4)["inputs"]["new"] | {"ro": 0},
        ),
        changed(first("token", cls=2, subclass=8), token_set="pair"),
        {"id": "x", "kind": "luhn", "inputs": {"a": "1", "b": "2"}, "expected": {"valid": True}},
    ],
)
def test_what_is_not_known_is_a_failure_and_never_a_skip(vector):
    assert problems(vector)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "null",
        "# a comment",
        "[" * 100_000,
        '{"id": "a"}',
        '{"id": "a", "kind": "tid"}',
        '{"id": "a", "kind": ["tid"], "inputs": {}, "expected": {}}',
        '{"kind": "amount", "inputs": {"tenths": 1}, "expected": {"field": "0001"}}',
        '{"id": "a", "kind": "amount", "inputs": {"tenths": 1}, "expected": null}',
        '{"id": "a", "kind": "amount", "inputs": {"tenths": 2.5}, "expected": {"field": "0003"}}',
        '{"id": "a", "kind": "amount", "inputs": {"tenths": 1e400}, "expected": {"field": "0"}}',
        LINES[0] + " and more",
    ],
)
def test_a_damaged_line_fails_alone(line):
    broken, sound = check_lines([line, LINES[0]])
    assert broken.problems
    assert not sound.problems


def test_blank_lines_are_no_vectors_and_line_ends_are_anybodys():
    assert list(check_lines(["", "  \n", "\r\n"])) == []
    assert [outcome.problems for outcome in check_lines([LINES[0] + "\r\n"])] == [()]


@pytest.mark.parametrize(
    "vector",
    [
        {"kind": "crc16", "inputs": {"data56": "00004A2D900FF2"}, "expected": {"crc": "0FFA"}},
        {"kind": "crc16", "inputs": {"data56": "4A2D900FF2"}, "expected": {"crc": "0ffa"}},
        {
            "kind": "tid",
            "inputs": {"time_utc": "1996-03-25T13:55:22", "base_date": "1993"},
            "expected": {"tid_hex": "19EB23"},
        },
        {
            "kind": "tid",
            "inputs": {"time_utc": "1996-03-25T15:55:22+02:00", "base_date": 1993},
            "expected": {"tid": 0x19EB23, "key_period": 0x19},
        },
        first("sta") | {"profile": "EA07/iec-sample-tables"},
        {name: value for name, value in first("sta").items() if name != "profile"},
        {name: value for name, value in first("token", cls=0).items() if name != "confidence"},
    ],
)
def test_an_odd_line_that_says_the_same_passes(vector):
    assert problems({"id": "odd", **vector}) == ()


LUHN = [
    ({"payload": "60072700000000000"}, {"check_digit": "9"}),
    ({"payload": "60072700000000000"}, {"check_digit": 9, "full": "600727000000000009"}),
    ({"body": "0712345678"}, {"full": "07123456787"}),
    ({"number": "0712345678"}, {"check_digit": 7}),
    ({"number": "07123456786"}, {"check_digit": 7}),
    ({"number": "07123456786"}, {"valid": False, "check_digit": 7}),
    ({"number": "600727000000000009"}, {"valid": True}),
    ({"number": 600727000000000009}, {"valid": True, "check_digit": 9}),
    ({"number": "12345678904", "of": "DRN"}, {"valid": False}),
    ({"number": "1234567890", "mode": "generate 11"}, {"check_digit": 3}),
    ({"number": "1234567890x"}, {"valid": False}),
    ({"number": ""}, {"valid": False}),
    ({"payload": "x1"}, {"valid": False}),
    ({"drn": "07123456787"}, {"valid": True, "check_digit": 7, "maker": "07"}),
    ({"drn": "07123456787"}, {"pan": "600727071234567873", "iin": "600727"}),
    ({"drn": "0100000000008"}, {"pan": "000001000000000082", "serial": "00000000"}),
    ({"drn": "0712345678"}, {"check_digit": 7, "drn": "07123456787"}),
    ({"drn": "0712345678"}, {"valid": False}),
    ({"drn": "12345678904"}, {"valid": False, "check_digit": 3}),
    ({"drn": "11111111113"}, {"valid": False, "result": "number_invalid"}),
    ({"pan": "600727071234567873"}, {"valid": True, "iin": "600727", "drn": "07123456787"}),
    ({"pan": "600727123456789048"}, {"valid": False}),
    ({"pan": "600728123456789036"}, {"valid": False}),
    ({"pan": "60072707123456787"}, {"check_digit": "3", "pan": "600727071234567873"}),
    ({"iin": "600727", "drn": "11111111115"}, {"pan": "600727111111111153"}),
    ({"iin": "600727", "drn": "07123456787"}, {"valid": True, "check_digit": 3}),
    ({"iin": "600727", "drn": "12345678904"}, {"valid": False}),
    ({"iin": "0000", "drn": "07123456787"}, {"valid": False}),
    ({"iin": "600727", "iain": "07123456787"}, {"meter_pan": "600727071234567873"}),
    ({"maker": "07", "serial": "12345678"}, {"drn": "07123456787", "check_digit": 7}),
    ({"mfr_code": "07", "serial": "12345678"}, {"pan": "600727071234567873"}),
    ({"iin": "600727", "maker": "07", "serial": "12345678"}, {"check_digit": "3"}),
    ({"iin": "600727", "maker": "07", "serial": "12345678"}, {"check_digit": "7"}),
    ({"maker": "7", "serial": "12345678"}, {"valid": False}),
]


@pytest.mark.parametrize(("inputs", "expected"), LUHN)
def test_check_digits_are_vectors_too(inputs, expected):
    vector = {"id": "luhn-1", "kind": "luhn", "inputs": inputs, "expected": expected}
    assert problems(vector) == ()
    assert problems(vector | {"expected": expected | {"surprise": 1}})
    assert problems(vector | {"expected": {}})
    for name in set(expected) - {"check_digit"}:
        wrong = expected | {name: altered(expected[name])}
        assert problems(vector | {"expected": wrong}), name


@pytest.mark.parametrize(
    ("inputs", "digits"),
    [
        ({"payload": "0712345678"}, {7}),
        ({"drn": "07123456787"}, {7}),
        ({"pan": "600727071234567873"}, {3}),
        ({"iin": "600727", "drn": "07123456787"}, {3}),
        ({"maker": "07", "serial": "12345678"}, {7}),
    ],
)
def test_no_check_digit_passes_but_those_of_the_readings(inputs, digits):
    vector = {"id": "luhn-1", "kind": "luhn", "inputs": inputs}
    asked = {digit: vector | {"expected": {"check_digit": digit}} for digit in range(10)}
    assert {digit for digit, line in asked.items() if not problems(line)} == digits


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"drn": "12345678904"}, {"result": "number_invalid"}),
        ({"pan": "600727000000000008"}, {"valid": False}),
        ({"pan": "600727000000000009"}, {"valid": True}),
        ({"hundred_thousandths": 10**40}, {"result": "amount_out_of_range"}),
        ({"tenths": -1}, {"result": "amount_out_of_range"}),
        ({"profile": "clear", "token": "37946297251335005490"}, {"result": "accepted"}),
        ({"profile": "clear", "token": "37946297251335005491"}, {"result": "crc_error"}),
        ({"tokens": ["37946297251335005490", "1"]}, {"results": ["accepted", "format_error"]}),
        ({"base_date": 2014, "time_utc": "2013-12-31T23:59:00Z"}, {"result": "tid_out_of_range"}),
    ],
)
def test_refusals_at_entry_are_vectors_too(inputs, expected):
    vector = {"id": "n", "kind": "negative", "case": "entry", "inputs": inputs}
    assert problems(vector | {"expected": expected}) == ()


KEY = DecoderKey(bytes.fromhex("00112233445566778899aabbccddeeff"))


def raw(cls, content):
    """A token that authenticates, whatever its subclass and content are."""
    block = content << 16 | codec.crc.token_crc(cls << 48 | content)
    return codec.join(cls, block if cls == 1 else codec.block_cipher(KEY).encrypt(block))


FIRST_SECTION = 3 << 44 | 15 << 40 | 1 << 36 | 2 << 32 | 0x11111111


@pytest.mark.parametrize(
    ("digits", "result"),
    [
        (raw(0, 6_400_000 << 16 | 256), "accepted"),
        (raw(0, 3 << 44 | 6_400_000 << 16), "accepted"),
        (raw(1, 1 << 8), "accepted"),
        ("37946297251335005490", "accepted"),  # published, of maker 52
        ("56494279625845059999", "accepted"),  # published, of maker 7189
        (raw(2, FIRST_SECTION), "accepted"),
        (raw(0, 9 << 44 | 5), "unsupported_class"),
        (raw(1, 3 << 44 | 5), "unsupported_class"),
        (raw(2, 11 << 44 | 5), "unsupported_class"),
        (raw(2, 5 << 44 | 6_400_000 << 16 | 1), "RangeError"),
        (f"{int(raw(0, 256)) | 0b11 << 27:020}", "unsupported_class"),
        ("37946297251335005491", "crc_error"),
        ("1" * 19, "format_error"),
    ],
)
def test_a_token_alone_and_among_others_is_answered_by_the_same_name(digits, result):
    inputs = {"profile": "EA11", "decoder_key": KEY.reveal().hex()}
    vector = {"id": "n", "kind": "negative", "case": "n"}
    many = {"inputs": inputs | {"tokens": [digits]}, "expected": {"results": [result]}}
    valid = result == "accepted"
    one = {"inputs": inputs | {"token": digits}, "expected": {"result": result, "valid": valid}}
    assert problems(vector | many) == ()
    assert problems(vector | one) == ()


def test_a_meter_of_a_named_maker_refuses_the_tokens_of_another():
    inputs = {"profile": "EA11", "decoder_key": KEY.reveal().hex(), "mfr_code": 51}
    inputs["tokens"] = ["37946297251335005490", raw(1, 1 << 8)]
    vector = {"id": "n", "kind": "negative", "case": "n", "inputs": inputs}
    assert problems(vector | {"expected": {"results": ["MfrCodeError", "accepted"]}}) == ()


@pytest.mark.parametrize(
    ("base_date", "ken", "at", "expected"),
    [
        (2014, 255, "2045-11-24T20:16:00Z", {"allowed": False}),
        (1993, 255, "2024-11-24T20:16:00Z", {"allowed": False, "tid": 1 << 24}),
        (2014, 255, "2013-12-31T23:59:00Z", {"allowed": False, "tid": -1}),
        (2014, 255, "2014-01-01T00:00:00Z", {"allowed": True, "tid": 0}),
        (2014, 0, "2014-02-15T12:15:00Z", {"allowed": True, "tid": 65_535}),
        (2014, 0, "2014-02-15T12:16:00Z", {"allowed": False, "tid_high_byte": 1}),
    ],
)
def test_a_key_issues_within_its_base_date_and_its_ken_only(base_date, ken, at, expected):
    inputs = {"base_date": base_date, "ken": ken, "time_utc": at}
    vector = {"id": "n", "kind": "negative", "case": "ken_check", "inputs": inputs}
    assert problems(vector | {"expected": expected}) == ()
    assert problems(vector | {"expected": {"allowed": not expected["allowed"]}})
    assert problems(changed(vector, base_date=2000) | {"expected": {"allowed": False}})


@pytest.mark.parametrize(
    "vector",
    [
        next(v for v in VECTORS if v["kind"] == "dkga" and v["inputs"]["dkga"] == "04"),
        first("token", profile="EA11"),
    ],
)
def test_a_20_byte_key_may_stand_there_as_sheets_print_it(vector):
    key = vector["inputs"]["vending_key"]
    assert len(key) == 40
    assert problems(changed(vector, vending_key=key + "5a")) == ()
    assert problems(changed(vector, vending_key=key + "5a5a"))


def test_an_amount_of_many_digits_is_rounded_up():
    vector = changed(first("token", cls=0, subclass=0), amount="25." + "6" + "0" * 30 + "1")
    assert problems(vector | {"expected": {"amount_field": f"{257:04x}"}}) == ()


def test_a_meter_calls_a_token_old_that_is_below_all_it_remembers():
    key = DecoderKey(bytes.fromhex("0abc12def3456789"))
    newer, older = (
        codec.encode(transfer_credit(Credit(0, 1), tid=number, rnd=5), key) for number in (90, 80)
    )
    inputs = {
        "profile": "EA07/iec-sample-tables",
        "decoder_key": "0abc12def3456789",
        "tokens": [newer, older],
    }
    vector = {"id": "n", "kind": "negative", "case": "old_tid", "inputs": inputs}
    assert problems(vector | {"expected": {"results": ["accepted", "old_tid"]}}) == ()
    vector["inputs"] |= {"tokens": [older], "remembered_tids": [81, 85]}
    assert problems(vector | {"expected": {"results": ["old_tid"]}}) == ()
