"""`prepaid import` and `prepaid export`: what a roll-out brings, and what others take away."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.typed import typed

Desk = Any
HEAD = "number;centre;account;holder;tariff;opening_wh\n"


@pytest.fixture
def prepaid(desk: Desk) -> Any:
    def run(*words: str) -> tuple[int, str, str]:
        done = typed(*words, environment=os.environ | {"PREPAID_DATABASE__URL": desk.url})
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def place(desk: Desk) -> tuple[str, str]:
    """The codes of a centre and of a tariff."""
    desk.tariff()
    (code,) = desk.conn.execute("SELECT code FROM tariff").fetchone()
    return "north", code


def listed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_roll_out_comes_in_row_by_row_and_once(
    desk: Desk, prepaid: Any, place: tuple[str, str], tmp_path: Path
) -> None:
    centre, tariff = place
    path = tmp_path / "meters.csv"
    path.write_text(
        HEAD
        + f"88000070001;{centre};F-1;Fatimetou;{tariff};120\n"
        + f"88000070002;NOWHERE;F-2;Ahmed;{tariff};0\n"
        + f"88000070003;{centre};;;;\n"
        + "88000070004\n"
    )
    asked = ("import", "meters", str(path), "--by", "nour", "--reason", "roll-out")
    status, out, err = prepaid(*asked)
    *refused, closing = out.splitlines()
    assert (status, err, closing) == (1, "", "2 done, 2 refused")
    assert [line.split(":")[0] for line in refused] == ["line 3, 88000070002", "line 5, -"]
    # Once more: what is there is known, and nothing is there twice.
    status, out, _ = prepaid(*asked, "--json")
    answer = json.loads(out)
    assert (status, answer["done"], answer["refused"]) == (1, 2, 2)
    assert [row["code"] for row in answer["rows"] if row["state"] == "done"] == ["known", "known"]
    kept = desk.conn.execute(
        "SELECT who, reason FROM audit_log WHERE action = 'meter.register' ORDER BY id"
    ).fetchall()
    assert kept == [("nour", "roll-out")] * 2


def test_a_list_is_taken_whole_and_that_is_kept(
    desk: Desk, prepaid: Any, place: tuple[str, str], tmp_path: Path
) -> None:
    centre, tariff = place
    path = tmp_path / "meters.csv"
    path.write_text(HEAD + f"88000070005;{centre};F-5;Fatimetou;{tariff};120\n")
    assert prepaid("import", "meters", str(path), "--by", "nour")[:2] == (0, "1 done, 0 refused\n")
    status, out, err = prepaid("export", "accounts", "--by", "auditor-1", "--reason", "yearly")
    assert (status, err) == (0, "")
    (row,) = [each for each in listed(out) if each["account"] == "F-5"]
    assert (row["holder"], row["meter"], row["balance"]) == ("Fatimetou", "88000070005", "0.000000")
    into = tmp_path / "meters-out.csv"
    assert prepaid(
        "export", "meters", "--by", "auditor-1", "--centre", centre, "--out", str(into)
    ) == (0, "", "")
    assert "88000070005" in [each["meter"] for each in listed(into.read_text())]
    taken = desk.conn.execute(
        "SELECT who, subject, reason FROM audit_log WHERE action = 'export.take' ORDER BY id"
    ).fetchall()
    assert taken == [
        ("auditor-1", "export:accounts", "yearly"),
        ("auditor-1", "export:meters", None),
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("import", "meters", "/no/such.csv", "--by", "nour"), "/no/such.csv"),
        (("import", "tokens", "x.csv", "--by", "nour"), "see `prepaid import --help`"),
        (("export", "secrets", "--by", "nour"), "see `prepaid export --help`"),
        (("export", "accounts"), "--by"),
        (("export", "accounts", "--by", "nour", "--from", "2026-01-01T00:00:00Z"), "of now"),
        (("export", "top-ups", "--by", "nour", "--from", "yesterday"), "instant"),
        (("export", "accounts", "--by", "nour", "--out", "/no/such/folder/x.csv"), "/no/such"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    prepaid: Any, words: tuple[str, ...], told: str
) -> None:
    status, out, err = prepaid(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert told in err


def test_a_file_without_its_columns_is_refused_whole(prepaid: Any, tmp_path: Path) -> None:
    path = tmp_path / "meters.csv"
    path.write_text("serial\n1\n")
    status, out, err = prepaid("import", "meters", str(path), "--by", "nour")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "number" in err
