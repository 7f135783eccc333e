"""Which of a meter's words about its relay is the newest, whatever its clock says."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest

from schemas.quantities import format_instant
from store import supply
from store.batch_meter import Told

MINUTE = 60_000
DAY = 24 * 60 * MINUTE
NOW = 1_772_360_100_000


@pytest.mark.parametrize(
    ("said_ms", "received_ms", "sure", "at_ms"),
    [
        (NOW - DAY, NOW, True, NOW - DAY),
        (NOW + MINUTE, NOW, True, NOW + MINUTE),
        (NOW + MINUTE + 1, NOW, True, NOW),
        (NOW + 10_000 * DAY, NOW, True, NOW),
        (9_000, NOW, True, NOW),
        (NOW - MINUTE, NOW, False, NOW),
        # It may have waited at the broker.
        (NOW - DAY, None, True, NOW - DAY),
        (NOW + 5 * MINUTE, None, True, NOW + 5 * MINUTE),
        (NOW + 5 * MINUTE + 1, None, True, 0),
        (9_000, None, True, 0),
        (NOW - MINUTE, None, False, 0),
    ],
)
def test_a_word_is_dated_by_the_clock_that_can_be_right(
    said_ms: int, received_ms: int | None, sure: bool, at_ms: int
) -> None:
    assert Told(said_ms, received_ms, NOW, sure).at_ms == at_ms


def said(utility: Any, meter: str, clock_ms: int, relay: str, kind: str, **more: Any) -> None:
    live = more.pop("live", True)
    form = {"v": 1, "boot": 1, "ts": format_instant(clock_ms), "relay": relay, **more}
    if kind == "reading":
        wh = 100_000 + (utility.now - NOW) // MINUTE
        form |= {"seq": next(utility.seqs), "reg": {"1.8.0": wh}, "tq": "lost"}
    message = utility.message(f"pm/v1/m/{meter}/up/{kind}", form)
    message.received_ms = utility.now if live else None
    utility.record(message)


def relay_of(utility: Any, meter: str) -> Sequence[str]:
    of = "SELECT reported_relay FROM meter_heard JOIN meter m ON m.id = meter_id WHERE number = %s"
    relays: Sequence[str] = utility.rows(of, meter)
    return relays


@pytest.mark.parametrize("kind", ["hello", "reading"])
@pytest.mark.parametrize("ahead_ms", [0, 10_000 * DAY, -20 * DAY, 9_000 - NOW])
def test_a_birth_with_a_wrong_clock_silences_nothing_that_comes_later(
    utility: Any, ahead_ms: int, kind: str
) -> None:
    meter, utility.now = utility.meter(), NOW
    said(utility, meter, NOW + ahead_ms, "closed", "hello")
    assert relay_of(utility, meter) == ["closed"]
    utility.now += MINUTE
    # Its clock is right meanwhile, or is known to be lost.
    said(utility, meter, utility.now, "open", kind)
    assert relay_of(utility, meter) == ["open"]


def test_words_that_waited_are_of_their_own_time_in_any_order(utility: Any) -> None:
    utility.now = NOW
    words = [
        (NOW - DAY, "closed", False),
        (NOW - 5 * MINUTE, "open", True),
        (NOW + 300 * DAY, "armed", False),
    ]
    for order in permutations(words):
        meter = utility.meter()
        for clock_ms, relay, live in order:
            said(utility, meter, clock_ms, relay, "hello", live=live)
        assert relay_of(utility, meter) == ["open"]


@pytest.mark.parametrize("clock_ms", [9_000, NOW - MINUTE, NOW + 10 * MINUTE, NOW + 10_000 * DAY])
def test_a_command_ends_by_the_word_of_a_meter_whose_clock_is_wrong(
    utility: Any, clock_ms: int
) -> None:
    utility.now, meter = NOW, utility.meter()
    said(utility, meter, NOW - MINUTE, "closed", "hello")
    [meter_id] = utility.rows("SELECT id FROM meter WHERE number = %s", meter)
    order = {"to": "open", "why": "out_of_credit"}
    cmd = supply.queue(utility.conn, meter_id, "relay", order, NOW, NOW + DAY)
    supply.mark_sent(utility.conn, [cmd], NOW)
    said(utility, meter, clock_ms, "open", "ack", cmd=cmd, state="done", volts=230.5)
    [(state, answer)] = utility.rows("SELECT state, answer FROM command")
    assert (state, answer["relay"], answer["volts"]) == ("done", "open", 230.5)
    assert answer["ts"] == format_instant(clock_ms)
    assert relay_of(utility, meter) == ["open"]
    wrong = not NOW - DAY < clock_ms < NOW + MINUTE
    assert utility.rows("SELECT count(*) FROM quarantine") == [int(wrong)]
