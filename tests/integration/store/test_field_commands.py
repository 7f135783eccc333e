"""What operators type about meters in the field: lists for people and programs, and decisions."""

import json
import sys
from typing import Any

import pytest

from prepaid.cli import main
from schemas.quantities import format_instant
from store import outages

MINUTE = 60_000
DAY = 24 * 60 * MINUTE


@pytest.fixture
def prepaid(
    utility: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    monkeypatch.setenv("PREPAID_DATABASE__URL", utility.url)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prepaid", *words])
        # A clock that stands still: a command sees the test's own time.
        monkeypatch.setenv("PREPAID_CLOCK", f"{10**13}:{utility.now}:1")
        monkeypatch.setattr("prepaid.clock.wall_ms", lambda: 10**13)
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_gaps_and_flags_are_listed_and_a_flag_is_cleared(utility: Any, prepaid: Any) -> None:
    meter = utility.open().meter
    for seq in (1, 5):
        utility.slot(meter, seq)
    utility.slot(meter, 5, at_ms=utility.now + MINUTE)
    code, out, _ = prepaid("gaps", meter, "--json")
    (gap,) = [json.loads(line) for line in out.splitlines()]
    assert (code, gap["after"]["seq"], gap["before"]["seq"], gap["reason"]) == (0, 1, 5, None)
    assert "not asked yet" in prepaid("gaps")[1]
    assert prepaid("gaps", "99999999999")[0] == 2
    assert f"{meter}  seq_reused  1 times" in prepaid("flag", "list")[1]
    by = ("--by", "Sy", "--note", "exchanged board")
    assert prepaid("flag", "clear", meter, *by)[:2] == (0, "cleared 1\n")
    assert prepaid("flag", "clear", meter, *by)[0] == 2
    assert "cleared by Sy" in prepaid("flag", "list", "--all")[1]
    acts = utility.rows("SELECT who, action, subject, reason FROM audit_log WHERE who = 'Sy'")
    assert acts == [("Sy", "flag.clear", f"meter:{meter}", "exchanged board")]


def test_readings_with_a_lost_clock_are_listed_and_decided(utility: Any, prepaid: Any) -> None:
    meter = utility.open().meter
    for seq in (4, 8):
        utility.slot(meter, seq, tq="lost")
    first_at, second_at = (format_instant(ms) for ms in (utility.now - 60 * MINUTE, utility.now))
    assert prepaid("clock", "list")[1].count("proposed nothing") == 2
    by = (meter, "--by", "Sy", "--note", "seen on site")
    code, _, err = prepaid("clock", "accept", *by, "--all")
    assert (code, "Give the instant" in err) == (2, True)
    assert prepaid("clock", "accept", *by, "--at", first_at, "--all")[0] == 2
    assert prepaid("clock", "accept", *by, "--all", "--corrected", first_at)[0] == 2
    true_at = format_instant(utility.now - 30 * MINUTE)
    assert prepaid("clock", "accept", *by, "--at", first_at, "--corrected", true_at)[0] == 0
    assert prepaid("clock", "discard", *by, "--at", second_at)[:2] == (0, "discarded 1\n")
    assert prepaid("clock", "discard", *by, "--all")[0] == 2
    assert prepaid("clock", "list", "--json")[1] == ""


def test_meters_are_placed_behind_a_transformer_whose_outage_is_listed(
    utility: Any, prepaid: Any
) -> None:
    meters = [utility.meter() for _ in range(3)]
    placed = prepaid("outage", "place", *meters, "--transformer", "TR-7", "--by", "Sy")
    assert placed[:2] == (0, "placed 3\n")
    assert prepaid("outage", "place", meters[0], "--by", "Sy")[0] == 2
    for meter in meters:
        utility.slot(meter, 1)
        utility.say(meter, "event", type="power_fail", ts=format_instant(utility.now))
    outages.check(utility.conn, utility.now)
    assert "transformer TR-7  power_fail" in prepaid("outage", "list")[1]
    (shown,) = prepaid("outage", "list", "--json")[1].splitlines()
    assert json.loads(shown)["silent"] == 3
