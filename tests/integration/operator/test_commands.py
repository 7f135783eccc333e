"""What operators type, as processes' main sees it; and the API's own words on the command line."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from api import answers
from prepaid.cli import main
from store import dead_letters, reads, registry

Desk = Any


@pytest.fixture
def prepaid(desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("PREPAID_DATABASE__URL", desk.url)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prepaid", *words])
        # The clock of the demonstration stands still: a command sees the test's own time.
        monkeypatch.setenv("PREPAID_CLOCK", f"{10**13}:{desk.now}:1")
        monkeypatch.setattr("prepaid.clock.wall_ms", lambda: 10**13)
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_explain_says_what_the_api_says_and_names_registers_blocks_and_price(
    desk: Desk, prepaid: Any
) -> None:
    account = desk.open()
    desk.pay(account, 100, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 1_500)
    entry = reads.entries(desk.conn, account, before_id=None, limit=1)[0]
    code, out, _ = prepaid("explain", str(entry.id), "--json")
    opened = reads.entry(desk.conn, account, entry.id)
    body = answers.opened_entry_answer(opened, "MRU").model_dump(mode="json", by_alias=True)
    assert (code, json.loads(out)) == (0, body)
    code, out, _ = prepaid("explain", str(entry.id))
    for words in ("kind: energy", "amount: -3.000000 MRU", "wh 1500", "price 2.000000", "band: all",
                  "legs:", "2026-03-01T02:00:00Z"):  # fmt: skip
        assert words in out, words


def test_account_shows_balance_entries_decisions_holds_and_adjustments(
    desk: Desk, prepaid: Any
) -> None:
    account = desk.open()
    desk.pay(account, 2, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 1_500)
    number = desk.number(account)
    said = prepaid("hold", "place", number, "--kind", "dispute", "--by", "a", "--reason", "r")
    assert said[:2] == (0, "1\n")
    assert prepaid("adjustment", "enter", "k1", number, "-3.5", "--by", "a", "--reason", "r")[:2] \
        == (0, "posted\n")  # fmt: skip
    code, out, _ = prepaid("account", number, "--json")
    shown = json.loads(out)
    assert (code, shown["balance"]["amount"]) == (0, "-4.500000")
    assert shown["entries"][0]["kind"] == "adjustment"
    assert [each["kind"] for each in shown["decisions"]][:2] == ["disconnected", "zero"]
    assert (shown["holds"][0]["kind"], shown["adjustments"][0]["amount"]) == (
        "dispute", "-3.500000",
    )  # fmt: skip
    code, out, _ = prepaid("account", number)
    assert "balance: -4.500000 MRU" in out
    assert "placed by a" in out
    assert prepaid("hold", "release", "1", "--by", "b", "--reason", "r")[1] == "released\n"
    assert prepaid("hold", "low-credit", number, "7.5", "--by", "a")[1] == "warned at 7.5 MRU\n"
    assert desk.state(account).low_credit_micro == 7_500_000


def test_a_large_adjustment_and_a_tariff_take_two_people_at_the_desk(
    desk: Desk, prepaid: Any, tmp_path: Path
) -> None:
    tariff = desk.tariff()
    account = desk.open(tariff)
    number = desk.number(account)
    code = desk.conn.execute("SELECT code FROM tariff").fetchone()[0]
    asked = prepaid("adjustment", "enter", "k1", number, "900", "--by", "a", "--reason", "r")
    assert asked[1] == "requested\n"
    status, _, err = prepaid("adjustment", "approve", "k1", "--by", "a")
    assert (status, err.count("\n")) == (2, 1)
    assert prepaid("adjustment", "approve", "k1", "--by", "b")[1] == "posted\n"
    file = tmp_path / "v.yaml"
    file.write_text(
        'valid_from: "2026-03-05"\nperiod: month\n'
        'bands: [{name: all, method: graduated, blocks: [{price: "3"}]}]\n'
    )
    options = ("--tariff", code, "--version", str(file))
    assert prepaid("tariff", "draft", *options, "--by", "a", "--note", "n")[1] == "1\n"
    assert prepaid("tariff", "approve", "1", "--by", "a")[0] == 2
    assert prepaid("tariff", "approve", "1", "--by", "b")[1] == "approved\n"
    desk.read(account, "2026-03-02T00:00:00Z", 5_000)
    status, out, err = prepaid(
        "tariff", "impact", *options, "--from", "2026-03-01", "--to", "2026-03-02", "--json"
    )
    one, total = map(json.loads, out.splitlines())
    assert (one["old"], one["new"], total["dearer_for"]) == ("10.000000", "15.000000", 1)
    assert "1 of 1 accounts" in err
    status, out, _ = prepaid("tariff", "impact", *options, "--from", "2026-03-01", "--to",
                             "2026-03-02")  # fmt: skip
    assert "5.000000" in out.splitlines()[-2]
    assert "dearer for 1 of 1 accounts" in out


@pytest.mark.parametrize(
    "words",
    [
        ("explain", "999"),
        ("account", "none"),
        ("hold", "place", "none", "--kind", "dispute", "--by", "a", "--reason", "r"),
        ("hold", "place", "none", "--kind", "mercy", "--by", "a", "--reason", "r"),
        ("hold", "release", "9", "--by", "a", "--reason", "r"),
        ("adjustment", "refuse", "none", "--by", "a"),
        ("tariff", "withdraw", "9", "--by", "a"),
        ("tariff", "assign", "none", "--tariff", "x", "--from", "2026-13-01", "--by", "a",
         "--reason", "r"),
        ("tariff", "impact", "--tariff", "x", "--version", "none.yaml", "--from", "2026-01-01",
         "--to", "2026-01-02"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_and_status_2(prepaid: Any, words: tuple[str, ...]) -> None:
    status, out, err = prepaid(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("prepaid: ")


def test_a_centre_is_set_its_brake_pulled_and_released_at_the_command_line(
    desk: Desk, prepaid: Any
) -> None:
    code, out, _ = prepaid("centre", "set", "north", "brake_percent=0", "brake_least=0",
                           "notice_hours=null", "reconnect=arm", "--by", "chief")  # fmt: skip
    shown = json.loads(out)
    assert (code, shown["brake_least"], shown["notice_hours"], shown["reconnect"]) \
        == (0, 0, None, "arm")  # fmt: skip
    assert json.loads(prepaid("centre", "settings", "north")[1]) == shown
    assert prepaid("centre", "set", "north", "brake_least", "--by", "chief")[0] == 2
    assert prepaid("centre", "set", "north", "brake_least=few", "--by", "chief")[0] == 2
    account = desk.open()
    desk.pay(account, 2, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 1_500)
    code, out, _ = prepaid("brake", "list", "--json")
    brake = json.loads(out)
    assert (code, brake["centre"], brake["withheld"], brake["state"]) == (0, "north", 1, "pulled")
    assert "withholds 1" in prepaid("brake", "list")[1]
    number = str(brake["id"])
    assert prepaid("brake", "release", number, "--by", "a", "--reason", " ")[0] == 2
    code, out, _ = prepaid("brake", "release", number, "--by", "a", "--reason", "checked")
    assert (code, out) == (0, "released: 1 accounts are decided again\n")
    assert prepaid("brake", "close", number, "--by", "a", "--reason", "again")[0] == 2
    assert "a: checked" in prepaid("brake", "list", "--all")[1]
    acts = desk.conn.execute("SELECT action FROM audit_log ORDER BY id").fetchall()
    assert [action for (action,) in acts][-2:] == ["centre.set", "brake.release"]


def test_commands_and_exceptions_are_looked_through_and_closed_at_the_command_line(
    desk: Desk, prepaid: Any
) -> None:
    account = desk.open()
    desk.pay(account, 2, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 1_500)
    code, out, _ = prepaid("outbox", "list", "--json")
    queued = json.loads(out)
    assert (code, queued["type"], "args" in queued) == (0, "relay", False)
    for given_up in range(2):
        dead_letters.record(desk.conn, queued["cmd"], "not_obeyed", desk.now + given_up)
    letter = json.loads(prepaid("outbox", "dead-letters", "--json")[1])
    assert letter["reason"] == "not_obeyed"
    by = ("--by", "a", "--note", "fuse changed")
    assert prepaid("outbox", "reopen", str(letter["id"]), *by)[:2] == (0, "reopened\n")
    assert prepaid("outbox", "close", str(letter["id"]), *by)[0] == 2
    assert "reopened" in prepaid("outbox", "dead-letters", "--all")[1]
    desk.conn.execute(
        "INSERT INTO credit_exception (meter_id, class, gap_wh, credit_wh, read_at, first_seen_at,"
        " seen_at) SELECT id, 'tamper_suspect', 900, 1, now(), now(), now() FROM meter LIMIT 1"
    )
    exception = json.loads(prepaid("exceptions", "list", "--json")[1])
    assert (exception["class"], exception["gap_wh"]) == ("tamper_suspect", 900)
    assert "+900 Wh" in prepaid("exceptions", "list")[1]
    assert prepaid("exceptions", "close", str(exception["id"]), *by)[:2] == (0, "closed\n")
    assert prepaid("exceptions", "list")[1] == ""


def test_a_device_is_mapped_listed_and_unmapped(desk: Desk, prepaid: Any, tmp_path: Path) -> None:
    for number in ("37000000017", "37000000025"):
        registry.add_meter(desk.conn, desk.centre, registry.NewMeter(number))
    mine = ("tasmota-energy", "plug-1", "37000000017")
    assert prepaid("device", "add", *mine, "--by", "ops", "--zone", "Africa/Nouakchott")[0] == 0
    code, _, told = prepaid("device", "add", *mine, "--by", "ops")
    assert (code, "mapped already" in told) == (2, True)
    code, out, _ = prepaid("device", "list", "--json")
    assert (json.loads(out)["meter"], json.loads(out)["trusted"]) == ("37000000017", False)
    assert prepaid("device", "remove", *mine[:2])[0] == 0
    assert prepaid("device", "list")[1] == ""


def test_the_keys_of_a_device_are_kept_sealed(
    desk: Desk, prepaid: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add_meter(desk.conn, desk.centre, registry.NewMeter("37000000025"))
    add = ("device", "add", "dlms-push", "modem", "37000000025", "--by", "ops")
    code, _, told = prepaid(*add)
    assert (code, "--keys-from" in told) == (2, True)
    keys = tmp_path / "keys.txt"
    octets = (bytes(range(7, 23)), bytes(range(70, 86)))
    keys.write_text("\n".join(each.hex() for each in octets))
    keys.chmod(0o644)
    assert prepaid("device", "new-key", str(tmp_path / "sealing.key"))[0] == 0
    assert prepaid("device", "new-key", str(tmp_path / "sealing.key"))[0] == 2
    monkeypatch.setenv("PREPAID_ADAPTER__KEY_FILE", str(tmp_path / "sealing.key"))
    assert "chmod 600" in prepaid(*add, "--keys-from", str(keys))[2]
    keys.chmod(0o600)
    code, out, told = prepaid(*add, "--keys-from", str(keys))
    assert code == 0, told
    [(sealed,)] = desk.conn.execute("SELECT sealed_keys FROM foreign_device").fetchall()
    assert not any(each in sealed or each.hex() in out + told for each in octets)
