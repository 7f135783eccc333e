"""`prepaid token` with a database: keys of one meter, credit once more, engineering tokens."""

import json
import secrets

import pytest
from typer import Typer
from typer.testing import CliRunner

from prepaid.clock import wall_ms
from prepaid.commands import sts
from schemas.errors import DomainError
from schemas.quantities import parse_instant_ms
from tokens.key_file import RANDOM_OCTETS, seal
from tokens.keys import VendingKey

NOON = parse_instant_ms("2026-03-02T12:00:00Z")
PASSPHRASE = "correct horse"
# The same as the desk's.
VENDING_KEYS = {
    ("123456", 1): VendingKey(bytes(range(1, 21))),
    ("123456", 2): VendingKey(bytes(range(21, 41))),
}


@pytest.fixture
def token(desk, tmp_path, monkeypatch):
    """`prepaid token`, in this process, at the desk's database and noon."""
    file = tmp_path / "keys.sts"
    file.write_bytes(seal(VENDING_KEYS, PASSPHRASE, secrets.token_bytes(RANDOM_OCTETS)))
    file.chmod(0o600)
    monkeypatch.setenv("PREPAID_DATABASE__URL", desk.url)
    monkeypatch.setenv("PREPAID_STS__KEY_FILE", str(file))
    monkeypatch.setenv("PREPAID_STS__KEY_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("PREPAID_CLOCK", f"{wall_ms()}:{NOON}:1")
    app = Typer()
    sts.register(app)

    def run(*arguments):
        done = CliRunner().invoke(app, ["token", *arguments])
        if isinstance(done.exception, DomainError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


WORD = ("--by", "vera", "--reason", "the slip came first")


def test_a_meter_changes_its_key_at_the_keypad_and_its_credit_is_given_again(desk, token):
    box = desk.meter()
    desk.vend(box)
    receipt = str(desk.conn.execute("SELECT receipt_number FROM top_up").fetchone()[0])
    desk.conn.execute("UPDATE command SET state = 'expired'")
    assert "TI 07" in token("key", "want", box.number, "--by", "vera", "--ti", "07")
    issued = json.loads(token("key", "issue", box.number, "--by", "vera", "--json"))
    assert len(issued["tokens"]) == 4
    for digits in issued["tokens"]:
        box.enter(digits)
    confirmed = json.loads(token("key", "confirm", box.number, "--by", "vera", "--json"))
    assert confirmed["unreadable_credit"] == 1
    (row,) = json.loads(token("stranded", box.number, "--json"))["stranded"]
    assert (str(row["receipt"]), row["kwh"]) == (receipt, "20.0")
    assert f"receipt {receipt}" in token("stranded", box.number)
    made = json.loads(token("replace", box.number, *WORD, "--json"))
    assert (made["left"], made["replaced"][0]["ground"]) == (0, "same_tid")
    digits = made["replaced"][0]["token"]
    assert box.enter(digits)["result"] == "Accept"
    assert token("reprint", receipt, *WORD).replace(" ", "").split() == [digits]
    assert json.loads(token("reprint", receipt, *WORD, "--json"))["tokens"] == [digits]
    rows = desk.conn.execute("SELECT DISTINCT reprinted_by, reason FROM reprint").fetchall()
    assert rows == [("vera", "the slip came first")]


def test_what_leads_nowhere_is_said(desk, token):
    box = desk.meter()
    for arguments, code in [
        (("key", "issue", box.number, "--by", "vera"), "nothing_to_change"),
        (("key", "abandon", box.number, *WORD), "no_key_change"),
        (("key", "want", box.number, "--by", "vera", "--sgc", "999999"), "key_unfit"),
        (("replace", box.number, *WORD), "nothing_to_replace"),
        (("reprint", "4711", *WORD), "not_found"),
        (("reprint", "none", *WORD), "not_found"),
        (("engineering", "approve", "1", "--by", "omar"), "not_found"),
    ]:
        with pytest.raises(DomainError) as refusal:
            token(*arguments)
        assert refusal.value.code == code, arguments
    desk.adopt()
    token("key", "issue", box.number, "--by", "vera")
    assert "taken back" in token("key", "abandon", box.number, *WORD)


def test_two_people_make_an_engineering_token(desk, token):
    box = desk.meter()
    work = ("request", box.number, "set_maximum_power_limit", "--field", "mpl=6000", *WORD)
    first = token("engineering", *work).strip()
    second = token("engineering", *work).strip()
    waiting = json.loads(token("engineering", "list", "--waiting", "--json"))
    assert [str(each["request"]) for each in waiting] == [second, first]
    with pytest.raises(DomainError, match="second person"):
        token("engineering", "approve", first, "--by", "vera")
    digits = token("engineering", "approve", first, "--by", "omar").replace(" ", "").strip()
    assert box.enter(digits)["result"] == "Accept"
    assert "refused" in token("engineering", "refuse", second, "--by", "omar", "--reason", "twice")
    assert json.loads(token("engineering", "list", "--waiting", "--json")) == []
    listed = token("engineering", "list")
    assert "decided by omar" in listed
    assert digits not in listed.replace(" ", "")
    with pytest.raises(DomainError, match="NAME=NUMBER"):
        token("engineering", *work, "--field", "mpl=x")
