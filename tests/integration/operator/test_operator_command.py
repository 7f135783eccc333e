"""`prepaid operator`: passwords from files or standard input, never from an argument."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pyotp
import pytest

from prepaid.cli import main
from store import operators
from store.operators import Passed

Desk = Any
WORDS = "correct horse battery"
WALL_MS = 1_790_000_000_000


@pytest.fixture
def prepaid(desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("PREPAID_DATABASE__URL", desk.url)
    monkeypatch.setattr("prepaid.commands.staff._wall_ms", lambda: WALL_MS)

    def run(*words: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prepaid", "operator", *words])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def password_file(tmp_path: Path) -> str:
    path = tmp_path / "password"
    path.write_text(WORDS + "\n")
    path.chmod(0o600)
    return str(path)


def signs_in(desk: Desk, name: str, password: str, code: str | None = None) -> bool:
    try:
        operators.sign_in(desk.conn, Passed(name, password, code, "192.0.2.1"), WALL_MS)
    except operators.SignInRefused:
        return False
    return True


def test_an_operator_is_added_listed_reset_and_disabled(
    desk: Desk, prepaid: Any, password_file: str
) -> None:
    code, out, err = prepaid("add", "fatima", "--role", "desk", "--password-file", password_file)
    assert (code, out) == (0, "")
    assert "fatima added as desk" in err
    assert signs_in(desk, "fatima", WORDS)
    assert prepaid("reset", "fatima", "--password-file", "-", typed=WORDS + " 2\n")[0] == 0
    assert not signs_in(desk, "fatima", WORDS)
    assert signs_in(desk, "fatima", WORDS + " 2")
    assert prepaid("disable", "fatima")[:2] == (0, "disabled\n")
    assert prepaid("disable", "fatima")[:2] == (0, "was disabled before\n")
    assert not signs_in(desk, "fatima", WORDS + " 2")
    (listed,) = prepaid("list", "--json")[1].splitlines()
    form = json.loads(listed)
    assert (form["name"], form["role"], form["centres"]) == ("fatima", "desk", None)
    assert form["disabled_at"] is not None
    assert "disabled" in prepaid("list")[1]
    assert prepaid("enable", "fatima")[:2] == (0, "enabled\n")
    assert signs_in(desk, "fatima", WORDS + " 2")
    assert WORDS not in listed + err


def test_a_second_factor_is_shown_once_for_a_telephone(
    desk: Desk, prepaid: Any, password_file: str
) -> None:
    centre = desk.conn.execute("SELECT code FROM centre").fetchone()[0]
    _, uri, _ = prepaid(
        "add", "omar", "--role", "supervisor", "--centre", centre, "--second-factor",
        "--password-file", password_file,
    )  # fmt: skip
    totp = pyotp.parse_uri(uri.strip())
    assert isinstance(totp, pyotp.TOTP)
    assert not signs_in(desk, "omar", WORDS)
    assert signs_in(desk, "omar", WORDS, totp.at(WALL_MS // 1000))
    form = json.loads(prepaid("list", "--json")[1])
    assert (form["centres"], form["second_factor"]) == ([centre], True)
    kept = desk.conn.execute("SELECT string_agg(l::text, ' ') FROM audit_log l").fetchone()[0]
    assert totp.secret not in kept


def test_a_program_gets_a_key_that_can_be_revoked(desk: Desk, prepaid: Any) -> None:
    assert prepaid("add", "export", "--role", "auditor", "--no-password")[0] == 0
    _, key, _ = prepaid("add-key", "export", "--label", "nightly export")
    (prefix,) = json.loads(prepaid("list", "--json")[1])["keys"]
    assert key.startswith(prefix)
    assert prepaid("revoke-key", prefix)[:2] == (0, "revoked\n")
    code, _, err = prepaid("revoke-key", prefix)
    assert (code, err.count("\n")) == (2, 1)
    assert prepaid("disable", "export")[0] == 0
    assert "operator export is disabled" in prepaid("add-key", "export", "--label", "x")[2]
    said = prepaid("list")[1]
    assert key.strip() not in said


@pytest.mark.parametrize(
    ("words", "typed", "hint"),
    [
        (("add", "Fatima", "--role", "desk", "--no-password"), "", "small letters"),
        (("add", "amy", "--role", "boss", "--no-password"), "", "give one of desk"),
        (("add", "amy", "--role", "desk", "--centre", "none", "--no-password"), "", "Centre none"),
        (("add", "amy", "--role", "desk", "--password-file", "-"), "short\n", "12 to 256"),
        (("add", "amy", "--role", "desk"), "", "--password-file"),
        (("reset", "nobody", "--password-file", "-"), WORDS, "Operator nobody"),
        (("disable", "nobody"), "", "Operator nobody"),
        (("enable", "nobody"), "", "Operator nobody"),
        (("add-key", "nobody", "--label", "x"), "", "Operator nobody"),
    ],
)
def test_what_cannot_be_done_says_what_to_do_and_leaves_nothing(
    desk: Desk, prepaid: Any, words: tuple[str, ...], typed: str, hint: str
) -> None:
    code, out, err = prepaid(*words, typed=typed)
    assert (code, out) == (2, "")
    assert hint in err
    assert "short" not in err
    assert operators.listed(desk.conn) == []


def test_a_name_is_given_once(desk: Desk, prepaid: Any) -> None:
    assert prepaid("add", "amy", "--role", "desk", "--no-password")[0] == 0
    code, _, err = prepaid("add", "amy", "--role", "admin", "--no-password")
    assert (code, "amy is there already" in err) == (2, True)
