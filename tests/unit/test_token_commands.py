"""`prepaid token` in this process: what it says, and with which exit status."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prepaid.commands.sts import app
from schemas.errors import DomainError
from tokens import codec, crc, keys, numbers
from tokens.keys import KeyAttributes, VendingKey

METER = "07123456787"
OCTETS = bytes(range(20))
OPTIONS = ["--meter", METER, "--sgc", "123456"]


def raw(cls: int, content: int, ea: int = 11) -> str:
    """A token that authenticates, whatever its subclass and content are."""
    held = KeyAttributes("123456", 1, 2, 255, "01", 2014, ea, 4)
    key = keys.decoder_key(VendingKey(OCTETS), numbers.to_meter_pan(METER), held)
    block = content << 16 | crc.token_crc(cls << 48 | content)
    return codec.join(cls, block if cls == 1 else codec.block_cipher(key).encrypt(block))


def said(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    key = tmp_path / "key"
    key.write_text(OCTETS.hex(), encoding="ascii")
    keyed = [] if arguments[0] == "decode" and "--meter" not in arguments else ["--test-key", key]
    done = CliRunner().invoke(app, [*arguments, *map(str, keyed), "--json"])
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.parametrize(
    ("cls", "subclass", "ea", "assignment"),
    [
        (0, 8, 11, "reserved"),
        (0, 15, 7, "reserved"),
        (1, 3, 11, "reserved"),
        (2, 11, 11, "proprietary"),
        (2, 15, 7, "proprietary"),
        (2, 9, 7, "of EA11 only"),
    ],
)
def test_an_authentic_token_of_an_unknown_subclass_is_named(
    tmp_path: Path, cls: int, subclass: int, ea: int, assignment: str
) -> None:
    digits = raw(cls, subclass << 44 | 5, ea)
    wanted = {"token": digits, "class": cls, "subclass": subclass, "assignment": assignment}
    wanted["code"] = "unsupported_subclass"
    forms = [[*OPTIONS, "--ea", str(ea)]] + ([[]] if cls == 1 else [])
    for options in forms:
        status, report = said(tmp_path, "decode", digits, *options)
        assert status == 1
        assert {name: report[name] for name in wanted} == wanted
        assert assignment in report["problem"]
        assert "likely_meant" not in report


@pytest.mark.parametrize(
    "content",
    [
        5 << 44 | 6_400_000 << 16 | 1,
        1 << 44 | 6_400_000 << 16 | 8,
        3 << 44 | 15 << 40 | 2 << 32 | 1,
        4 << 44 | 100 << 32 | 1,
    ],
)
def test_a_token_that_meters_answer_with_a_range_error_is_not_called_good(
    tmp_path: Path, content: int
) -> None:
    status, report = said(tmp_path, "decode", raw(2, content), *OPTIONS)
    assert status == 1
    assert "RangeError" in report["problem"]
    assert (report["class"], report["subclass"]) == (2, content >> 44)


@pytest.mark.parametrize(
    ("subclass", "fields", "content"),
    [
        (0, [], 0xFFFFFFFFF << 8),
        (0, ["control=0xe9c544d57", "mfr_code=52"], 0xE9C544D57 << 8 | 52),
        (1, ["mfr_code=5638"], 0xFFFFFFF << 16 | 5638),
        (1, ["control=4194304", "mfr_code=7189"], 0x0400000 << 16 | 7189),
        (2, ["control=0xFC0000000"], 0xFC0000000 << 8),
    ],
)
def test_a_test_token_needs_neither_meter_nor_key_and_is_decoded(
    subclass: int, fields: list[str], content: int
) -> None:
    asked = [word for field in fields for word in ("--field", field)]
    done = CliRunner().invoke(app, ["issue", "--test-display", str(subclass), *asked, "--json"])
    assert done.exit_code == 0
    made = json.loads(done.stdout)
    assert made["token"] == raw(1, subclass << 44 | content)
    read = CliRunner().invoke(app, ["decode", made["token"], "--json"])
    assert (read.exit_code, json.loads(read.stdout)) == (0, made)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--test-display", "2"], "field_out_of_range"),
        (["--test-display", "0", "--field", "mfr_code=256"], "field_out_of_range"),
        (["--test-display", "1", "--field", "control=0xFFFFFFFFF"], "field_out_of_range"),
        (["--test-display", "0", "--field", "tid=1"], "field_out_of_range"),
        (["--test-display", "0", "--field", "control=0xg"], "bad_option"),
        (["--test-display", "0", "--field", f"control={'9' * 5000}"], "bad_option"),
        (["--test-display", "3"], "unsupported_subclass"),
        (["--test-display", "-1"], "unsupported_subclass"),
        (["07123456788", "--test-display", "0"], "number_invalid"),
        (["--test-display", "0", "--amount", "1"], "bad_option"),
        (["--test-display", "0", "--management", "5"], "bad_option"),
        (["--amount", "1"], "bad_option"),
        ([METER, "--amount", "1"], "bad_option"),
        ([METER, "--sgc", "123456"], "bad_option"),
    ],
)
def test_what_makes_no_token_is_refused(arguments: list[str], code: str) -> None:
    done = CliRunner().invoke(app, ["issue", *arguments])
    assert isinstance(done.exception, DomainError)
    assert done.exception.code == code
    assert done.stdout == ""
