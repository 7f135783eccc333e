import json
import os
from pathlib import Path

import pytest

from tests.typed import typed

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "data" / "sts" / "vectors.jsonl"
KEY = "00112233445566778899aabbccddeeff00112233"
METER = "07123456787"
WORK_TIME = ["--at", "2026-03-01T10:15:00Z"]


def prepaid(*arguments, keys="", **environment):
    given = {**os.environ, "PREPAID_STS__KEY_PASSPHRASE": "", **environment}
    return typed("token", *arguments, environment=given, keys=keys)


def issued(*arguments, keys=KEY):
    done = prepaid(
        "issue", METER, "--sgc", "123456", "--test-key", "-", "--json", *arguments, keys=keys
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_known_answers_are_all_given():
    done = prepaid("vectors", str(VECTORS))
    assert done.stdout.splitlines()[-1] == "558 passed, 0 failed"
    assert done.returncode == 0


def test_a_failed_answer_is_named_and_ends_with_status_1(tmp_path):
    lines = VECTORS.read_text(encoding="utf-8").splitlines()[:3]
    wrong = json.loads(lines[1])
    wrong["expected"]["decoder_key"] = "0000000000000000"
    lines[1] = json.dumps(wrong)
    file = tmp_path / "vectors.jsonl"
    file.write_text("\n".join([*lines, '{"id": "odd-1", "kind": "odd"}']), encoding="utf-8")
    done = prepaid("vectors", str(file))
    *failures, last = done.stdout.splitlines()
    assert last == "2 passed, 2 failed"
    assert failures[0].startswith(wrong["id"] + ": decoder_key: expected")
    assert wrong["expected"]["decoder_key"] in failures[0]
    assert "odd-1" in failures[1]
    assert done.returncode == 1
    as_json = json.loads(prepaid("vectors", str(file), "--json").stdout)
    assert (as_json["passed"], as_json["failed"]) == (2, 2)


def test_a_file_without_vectors_proves_nothing(tmp_path):
    file = tmp_path / "empty.jsonl"
    file.touch()
    assert prepaid("vectors", str(file)).returncode == 1
    assert prepaid("vectors", str(tmp_path / "missing")).returncode == 2


def test_what_is_issued_is_decoded():
    report = issued("--amount", "25.61", *WORK_TIME)
    assert (report["amount"], report["unit"], report["issued"]) == (
        "25.7",
        "kWh",
        "2026-03-01T10:15Z",
    )
    digits = report["token"]
    groups = [digits[at : at + 4] for at in range(0, 20, 4)]
    done = prepaid(
        "decode",
        *groups,
        "--meter",
        METER,
        "--sgc",
        "123456",
        "--test-key",
        "-",
        "--json",
        keys=KEY,
    )
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert {name: found[name] for name in ("token", "class", "subclass", "amount", "tid")} == {
        name: report[name] for name in ("token", "class", "subclass", "amount", "tid")
    }


def test_a_test_key_may_be_typed_as_its_sheet_prints_it():
    report = issued("--amount", "25.61", *WORK_TIME, keys=KEY + "99")
    assert report["key_check_value"] == issued("--amount", "1", *WORK_TIME)["key_check_value"]


def test_money_may_be_a_charge():
    report = issued("--amount", "-503.90615", "--currency", "--service", "water", *WORK_TIME)
    assert (report["subclass"], report["unit"]) == (5, "currency")
    # Published: coarse at this size, and never more than was asked for is taken.
    assert report["amount"] == "-503.82624"


def test_a_management_token_names_its_fields():
    report = issued("--management", "1", "--field", "register=65535", *WORK_TIME)
    assert (report["name"], report["fields"]) == ("ClearCredit", {"register": 65535})


def test_sample_tables_are_called_by_their_name():
    report = issued("--amount", "1", "--ea", "7", *WORK_TIME)
    assert "no real meter" in report["note"]


def test_a_slip_is_found_and_ends_with_status_1():
    digits = issued("--amount", "1", *WORK_TIME)["token"]
    done = prepaid(
        "decode", digits[:-2] + digits[-1], "--meter", METER, "--sgc", "123456", "--test-key", "-",
        "--json", keys=KEY,
    )  # fmt: skip
    assert done.returncode == 1
    assert digits in [row["token"] for row in json.loads(done.stdout)["likely_meant"]]


@pytest.mark.parametrize(
    ("digits", "said", "status"),
    [
        ("51043465443420856213", "encrypted", 0),
        ("37946297251335005490", "InitiateMeterTest/Display", 0),
        ("٣٧٩٤٦٢٩٧٢٥١٣٣٥٠٠٥٤٩٠", "InitiateMeterTest/Display", 0),
        ("123456789", "OpenPAYGO", 1),
        ("600727071234567873", "number of meter", 1),
        ("99999999999999999999", "UTRN", 1),
        ("hello", "20 digits", 1),
    ],
)
def test_without_a_key_decode_says_what_can_be_said(digits, said, status):
    done = prepaid("decode", digits)
    assert said in done.stdout
    assert done.returncode == status


def test_a_sealed_key_file_serves_both_sides_of_a_key_change(tmp_path):
    file = tmp_path / "keys.sts"
    secret = {"PREPAID_STS__KEY_PASSPHRASE": "correct horse"}
    made = prepaid("new-key-file", str(file), "--sgc", "123456", **secret)
    assert made.returncode == 0, made.stderr
    assert file.stat().st_mode & 0o077 == 0
    assert prepaid("new-key-file", str(file), "--sgc", "123456", **secret).returncode == 2
    options = (METER, "--sgc", "123456", "--key-file", str(file), "--json")
    change = prepaid("key-change", *options, "--to-ti", "02", **secret)
    tokens = json.loads(change.stdout)["tokens"]
    assert len(tokens) == 4
    read = prepaid(
        "decode", tokens[0], "--meter", METER, "--sgc", "123456", "--key-file", str(file), "--json",
        **secret,
    )  # fmt: skip
    assert json.loads(read.stdout)["fields"]["nkho"] == "hidden"
    credit = prepaid("issue", *options, "--amount", "1", "--ti", "02", **secret)
    assert credit.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("issue", METER, "--sgc", "123456", "--amount", "1"), "--key-file or --test-key"),
        (("issue", METER, "--sgc", "123456", "--test-key", "-"), "--amount, --management"),
        (("issue", METER, "--sgc", "123456", "--amount", "x", "--test-key", "-"), "--amount"),
        (("issue", METER, "--sgc", "123456", "--amount", "NaN", "--test-key", "-"), "--amount"),
        (("issue", METER, "--sgc", "123456", "--amount", "5-", "--test-key", "-"), "--amount"),
        (
            ("issue", METER, "--sgc", "123456", "--amount", "9" * 30, "--test-key", "-"),
            "do not fit in one token",
        ),
        (("issue", METER, "--sgc", "12", "--amount", "1", "--test-key", "-"), "six digits"),
        (("issue", "07123456788", "--sgc", "1", "--amount", "1", "--test-key", "-"), "check digit"),
        (
            ("issue", METER, "--sgc", "123456", "--amount", "1", "--at", "now", "--test-key", "-"),
            "--at",
        ),
        (
            (
                "issue",
                METER,
                "--sgc",
                "123456",
                "--management",
                "1",
                "--field",
                "x",
                "--test-key",
                "-",
            ),
            "NAME=NUMBER",
        ),
        (("issue", METER, "--sgc", "123456", "--amount", "1", "--key-file", "none"), "none"),
        (("decode", "1", "--test-key", "-"), "--meter"),
        (("key-change", METER, "--sgc", "123456", "--test-key", "-"), "changes nothing"),
        (("new-key-file", "keys", "--sgc", "123456"), "PREPAID_STS__KEY_PASSPHRASE"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(arguments, said):
    done = prepaid(*arguments, keys=KEY)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize("end", ["g", "", "é"])
def test_a_broken_key_is_not_repeated(end):
    done = prepaid(
        "issue", METER, "--sgc", "123456", "--amount", "1", "--test-key", "-", keys=KEY[:-1] + end
    )
    assert done.returncode == 2
    assert KEY[:8] not in done.stderr + done.stdout
