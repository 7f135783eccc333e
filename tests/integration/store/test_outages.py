"""Where the supply or the connection is away, and who is spared for it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import psycopg
import pytest

from schemas.errors import DomainError
from schemas.quantities import format_instant
from store import ingest, outages
from store.answers import BatchAnswer
from store.errors import NotFound

OPENED_WH = 100_000
T0 = 1_772_323_200_000
MINUTE = 60_000
QUARTER = 15 * MINUTE
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def place(utility: Any, meter: str, scope: Any, name: str) -> None:
    outages.place_behind(utility.conn, meter, scope, name, who="Sy", now_ms=utility.now)


# --- connections ------------------------------------------------------------------------------

# What a device says, one after the other; in brackets what the broker held back; and whether it is
# there afterwards.
WORDS = {
    "offline": False,
    "[offline]": False,
    "online offline": False,
    "[online] [offline]": False,
    # the backlog's will comes after what overtook it
    "online [offline]": True,
    "online [offline] offline": False,
    "[offline] online [offline]": True,
    # without a birth: who speaks just now is there
    "offline reading": True,
    "offline [reading]": False,
    "[offline] reading [offline]": True,
    "offline event": True,
    "offline ack": True,
    "online reading offline": False,
    "hello [offline]": True,
    "[hello] [offline]": False,
    "online 2h [offline]": False,
    "offline nothing": False,
}


def said(utility: Any, device: str, word: str, meter: str) -> Any:
    """A message of a meter, or of a gateway for itself or of a meter behind it."""
    top, now = f"pm/v1/{device}/up", format_instant(utility.now)
    if word in {"online", "offline"}:
        return utility.message(f"{top}/state", word.encode())
    if word == "nothing":
        return utility.message(f"{top}/state", b"")
    form: dict[str, Any] = {"v": 1, "ts": now}
    if word == "reading" and device.startswith("g/"):
        word, form = "batch", {"v": 1, "t0": now, "dt": 900, "cols": ["1.8.0"], "rows": []}
        form["rows"] = [[meter, 1, utility.now // 1000, [[OPENED_WH + 9]]]]
    elif word == "reading":
        form |= {"boot": 1, "seq": utility.now // 1000, "reg": {"1.8.0": OPENED_WH + 9}}
    elif word == "ack":
        form |= {"cmd": "none-of-ours", "state": "done", "relay": "closed", "meter": meter}
    else:
        form |= {"boot": 1} if word == "hello" else {"type": "tamper"}
    return utility.message(f"{top}/{word}", form)


@pytest.mark.parametrize("side", ["m", "g"])
@pytest.mark.parametrize("words", WORDS)
def test_a_held_back_will_is_older_than_a_birth_of_now(utility: Any, words: str, side: str) -> None:
    gateway = "dcu-1" if side == "g" else None
    supply = utility.open(gateway=gateway)
    if gateway is not None:
        place(utility, supply.meter, "gateway", gateway)
    utility.top_up(supply, 90_000_000, "first", utility.now)
    device = f"{side}/{gateway or supply.meter}"
    for word in words.split():
        utility.now += MINUTE
        if word == "2h":
            utility.now += 2 * HOUR
            continue
        message = said(utility, device, word.strip("[]"), supply.meter)
        received_ms = None if word.startswith("[") else utility.now
        utility.record(replace(message, received_ms=received_ms))
    table = "gateway" if side == "g" else "meter_state"
    assert utility.rows(f"SELECT online FROM {table}") == [WORDS[words]]


def test_a_meter_that_is_called_away_is_heard_though_its_readings_are_steady(utility: Any) -> None:
    supply = utility.open()
    utility.top_up(supply, 90_000_000, "first", utility.now)
    for seq in (1, 2, 3):
        utility.slot(supply.meter, seq)
    for held_back in (True, False):
        will(utility, supply.meter)
        steady_before = utility.rows("SELECT count(*) FROM energy_debit")
        utility.now += QUARTER
        seq = utility.rows("SELECT max(seq) FROM reading")[0] + 1
        message = utility.reading(supply.meter, T0 + seq * QUARTER, OPENED_WH + 10 * seq, seq=seq)
        utility.record(replace(message, received_ms=None if held_back else utility.now))
        # What waited says nothing of now, and goes the short way all the same.
        moved = utility.rows("SELECT count(*) FROM energy_debit") != steady_before
        assert (utility.rows("SELECT online FROM meter_state"), moved) == (
            [not held_back],
            held_back,
        )


def steady_supply(utility: Any, gateway: str | None) -> str:
    """A meter with three slots, so that its next readings go the short way."""
    supply = utility.open(gateway=gateway)
    utility.top_up(supply, 90_000_000, f"first of {supply.meter}", utility.now)
    for seq in (1, 2, 3):
        utility.record(next_reading(utility, supply.meter, gateway, seq))
    return str(supply.meter)


def next_reading(utility: Any, meter: str, gateway: str | None, seq: int) -> Any:
    ts_ms, wh = T0 + seq * QUARTER, OPENED_WH + 10 * seq
    utility.now = max(utility.now, ts_ms)
    if gateway is None:
        said = utility.reading(meter, ts_ms, wh, seq=seq)
    else:
        form: dict[str, Any] = {"v": 1, "id": "b", "t0": format_instant(ts_ms), "dt": 900}
        form |= {"cols": ["1.8.0"], "rows": [[meter, 1, seq, [[wh]]]]}
        said = utility.message(f"pm/v1/g/{gateway}/up/batch", form)
    return replace(said, received_ms=utility.now)


@pytest.mark.parametrize("gateway", [None, "dcu-1"])
def test_in_one_commit_the_later_word_of_a_device_tells_whether_it_is_there(
    utility: Any, gateway: str | None
) -> None:
    meter = steady_supply(utility, gateway)
    device = f"m/{meter}" if gateway is None else f"g/{gateway}"
    table = "meter_state" if gateway is None else "gateway"
    for seq, will_first in ((4, True), (5, False)):
        reading = next_reading(utility, meter, gateway, seq)
        gone = replace(said(utility, device, "offline", meter), received_ms=utility.now)
        utility.record(*((gone, reading) if will_first else (reading, gone)))
        assert utility.rows(f"SELECT online FROM {table}") == [will_first]
    assert utility.rows("SELECT max(seq) FROM reading WHERE verdict = 'accepted'") == [5]


def test_a_batch_of_steady_readings_is_answered_and_its_gateway_heard_in_their_commit(
    utility: Any,
) -> None:
    meter = steady_supply(utility, "dcu-1")
    batch = next_reading(utility, meter, "dcu-1", 4)
    with patch.object(ingest, "record_in_general", side_effect=AssertionError):
        recorded = utility.record(batch)
    assert recorded.answers == [BatchAnswer("dcu-1", "b", {(meter, 1): 4})]
    assert utility.rows("SELECT ms_of(seen_at) FROM gateway") == [utility.now]


# --- outages ----------------------------------------------------------------------------------


def group(utility: Any, size: int, scope: str = "transformer", name: str = "TR-1") -> list[str]:
    """Meters behind one thing that were all heard now."""
    meters = [utility.meter() for _ in range(size)]
    for meter in meters:
        place(utility, meter, scope, name)
        utility.slot(meter, 1)
    return meters


def ids(utility: Any, meters: list[str]) -> list[int]:
    return [utility.rows("SELECT id FROM meter WHERE number = %s", each)[0] for each in meters]


def suppressed(utility: Any, meters: list[str]) -> list[bool]:
    wanted = ids(utility, meters)
    found = outages.suppressed(utility.conn, wanted, utility.now)
    return [meter in found for meter in wanted]


def will(utility: Any, meter: str) -> None:
    utility.record(utility.message(f"pm/v1/m/{meter}/up/state", b"offline"))


def test_a_last_will_alone_is_no_outage(utility: Any) -> None:
    meters = group(utility, 4)
    seen = utility.rows("SELECT seen_at FROM meter_state ORDER BY meter_id")
    utility.now += MINUTE
    will(utility, meters[0])
    assert outages.check(utility.conn, utility.now) == ([], [])
    assert suppressed(utility, meters) == [False] * 4
    # The broker's word is no sign of life.
    assert utility.rows("SELECT seen_at FROM meter_state ORDER BY meter_id") == seen


def test_most_of_a_transformers_meters_silent_is_an_outage_until_they_speak(utility: Any) -> None:
    meters, others = group(utility, 5), group(utility, 3, name="TR-2")
    heard_ms = utility.now
    utility.now += 40 * MINUTE
    for meter in (*meters[:2], *others):
        utility.slot(meter, 5, at_ms=utility.now)
    assert outages.check(utility.conn, utility.now) == ([("transformer", "TR-1")], [])
    (outage,) = outages.outages(utility.conn)
    assert (outage.cause, outage.meters, outage.silent) == ("silence", 5, 3)
    assert outage.started_ms == heard_ms
    assert suppressed(utility, [*meters, *others]) == [True] * 5 + [False] * 3
    utility.now += MINUTE
    utility.slot(meters[2], 6, at_ms=utility.now)
    assert outages.check(utility.conn, utility.now) == ([], [("transformer", "TR-1")])
    assert suppressed(utility, meters) == [False] * 5
    (outage,) = outages.outages(utility.conn, ended=True)
    assert outage.ended_ms == utility.now
    assert outages.outages(utility.conn) == []


def test_meters_that_say_that_the_power_fails_are_an_outage_at_once(utility: Any) -> None:
    meters = group(utility, 3)
    utility.now += MINUTE
    for meter in meters[:2]:
        utility.say(meter, "event", type="power_fail", ts=format_instant(utility.now))
    # Each of them already, before anybody looks at the group.
    assert suppressed(utility, meters) == [True, True, False]
    outages.check(utility.conn, utility.now)
    assert [each.cause for each in outages.outages(utility.conn)] == ["power_fail"]
    utility.now += HOUR
    for meter in meters[:2]:
        utility.say(meter, "event", type="power_return", ts=format_instant(utility.now))
    assert outages.check(utility.conn, utility.now).closed == [("transformer", "TR-1")]
    assert suppressed(utility, meters) == [False] * 3


# Words of a meter about its supply with their minutes, in the order of arrival, and how it stands.
POWER = {
    "fail 1": True,
    "fail 1, return 2": False,
    "return 2, fail 1": False,
    "fail 1, return 2, fail 1": False,
    "fail 1, return 2, fail 3": True,
    "fail 1, return 2, fail 3, return 2": True,
    "fail 1, hello 2": False,
    "hello 2, fail 1": False,
    "fail 1, return 1": False,
    "return 1, fail 1": False,
}


@pytest.mark.parametrize("together", [False, True], ids=["apart", "together"])
@pytest.mark.parametrize("words", POWER)
def test_the_newest_word_of_the_supply_counts_by_its_own_time(
    utility: Any, words: str, together: bool
) -> None:
    meter = utility.meter()
    utility.now += 5 * MINUTE
    messages = []
    for kind, minute in (word.split() for word in words.split(", ")):
        form: dict[str, Any] = {"v": 1, "ts": format_instant(T0 + int(minute) * MINUTE)}
        form |= {"boot": 1} if kind == "hello" else {"type": f"power_{kind}"}
        topic = f"pm/v1/m/{meter}/up/{'hello' if kind == 'hello' else 'event'}"
        messages.append(utility.message(topic, form))
    for batch in [messages] if together else [[each] for each in messages]:
        utility.record(*batch)
        utility.now += 20_000
    assert suppressed(utility, [meter]) == [POWER[words]]


def test_a_hello_from_the_future_hides_no_failing_supply(utility: Any) -> None:
    meter = utility.meter()
    utility.say(meter, "hello", boot=1, ts=format_instant(T0 + 30 * 365 * DAY))
    utility.now += MINUTE
    utility.say(meter, "event", type="power_fail", ts=format_instant(utility.now))
    assert suppressed(utility, [meter]) == [True]


def test_a_meter_whose_clock_has_lost_its_battery_says_that_its_supply_is_back(
    utility: Any,
) -> None:
    meter = utility.meter()
    utility.say(meter, "event", type="power_fail", ts=format_instant(utility.now))
    utility.now += MINUTE
    form = {"v": 1, "boot": 2, "ts": "1970-01-01T00:00:07Z"}
    message = utility.message(f"pm/v1/m/{meter}/up/hello", form)
    utility.record(replace(message, received_ms=utility.now))
    assert suppressed(utility, [meter]) == [False]


def test_a_gateway_that_is_gone_takes_its_meters_with_it(utility: Any) -> None:
    meters = group(utility, 3, "gateway", "dcu-1")
    utility.now += MINUTE
    utility.record(utility.message("pm/v1/g/dcu-1/up/state", b"offline"))
    outages.check(utility.conn, utility.now)
    assert [(each.scope, each.cause) for each in outages.outages(utility.conn)] == [
        ("gateway", "gateway_offline")
    ]
    assert suppressed(utility, meters) == [True] * 3
    utility.now += MINUTE
    hello = {"v": 1, "boot": 2, "ts": format_instant(utility.now)}
    utility.record(utility.message("pm/v1/g/dcu-1/up/hello", hello))
    assert outages.check(utility.conn, utility.now).closed == [("gateway", "dcu-1")]
    assert utility.rows("SELECT kind FROM event WHERE gateway_id IS NOT NULL") == ["hello"]


def test_two_meters_are_no_group_and_the_long_gone_are_no_witnesses(utility: Any) -> None:
    group(utility, 2)
    gone = group(utility, 4, name="TR-2")
    utility.now += 8 * DAY
    utility.slot(gone[0], 800, at_ms=utility.now)
    assert outages.check(utility.conn, utility.now) == ([], [])


def test_among_several_workers_one_opens_and_one_closes(utility: Any) -> None:
    meters = group(utility, 5)

    def look(_: int) -> tuple[int, int]:
        with psycopg.connect(utility.url, autocommit=True) as conn:
            found = outages.check(conn, utility.now)
            return len(found.opened), len(found.closed)

    with ThreadPoolExecutor(4) as workers:
        utility.now += 40 * MINUTE
        assert sorted(workers.map(look, range(4))) == [(0, 0)] * 3 + [(1, 0)]
        utility.now += MINUTE
        for meter in meters:
            utility.slot(meter, 7, at_ms=utility.now)
        assert sorted(workers.map(look, range(4))) == [(0, 0)] * 3 + [(0, 1)]
    assert utility.rows("SELECT count(*) FROM outage") == [1]


def test_the_next_look_at_all_waits_as_many_times_as_long_as_the_last_one_took(
    utility: Any,
) -> None:
    group(utility, 5)
    utility.now += 37 * MINUTE
    assert outages.check(utility.conn, utility.now) == ([], [])
    assert utility.rows("SELECT took > interval '0' FROM duty ORDER BY name") == [False, True]
    utility.conn.execute("UPDATE duty SET took = interval '5 s' WHERE name = 'outages among all'")
    utility.now += outages.CHECK_SHARE * 5_000 - 1
    assert outages.check(utility.conn, utility.now) == ([], [])
    assert utility.rows("SELECT took > interval '0' FROM duty WHERE name = 'outages'") == [True]
    utility.now += MINUTE
    assert len(outages.check(utility.conn, utility.now).opened) == 1


def test_a_long_look_at_suspects_is_not_for_ever_put_off_by_looks_at_all(utility: Any) -> None:
    outages.check(utility.conn, utility.now)
    utility.conn.execute("UPDATE duty SET took = interval '5 s'")
    utility.now += outages.CHECK_SHARE * 5_000  # both are due: this is one at all
    for waited_ms in (0, MINUTE):
        utility.now += waited_ms
        outages.check(utility.conn, utility.now)
        looked_at = utility.rows("SELECT ms_of(done_at) FROM duty WHERE name = 'outages'")
        assert looked_at == [utility.now]


def only_suspects(utility: Any) -> None:
    """From now on a look at all groups is not due."""
    utility.now += 2 * MINUTE
    outages.check(utility.conn, utility.now)
    utility.conn.execute("UPDATE duty SET took = interval '9 d' WHERE name = 'outages among all'")
    utility.now += MINUTE


# What strikes most of a group, and what it is called; missed readings alone make no suspect.
STRUCK = {
    "will of the gateway": "gateway_offline",
    "wills of the meters": "silence",
    "power fails": "power_fail",
    "nothing": None,
}


@pytest.mark.parametrize("scope", ["gateway", "transformer"])
@pytest.mark.parametrize("struck", STRUCK)
def test_between_looks_at_all_those_are_looked_at_to_whom_something_happened(
    utility: Any, struck: str, scope: str
) -> None:
    group(utility, 3, scope, "other")
    meters = group(utility, 4, scope, "struck")
    only_suspects(utility)
    if struck == "will of the gateway":
        for meter in meters:
            place(utility, meter, "gateway", "struck")
        utility.record(utility.message("pm/v1/g/struck/up/state", b"offline"))
    for meter in meters[:3]:
        if struck == "wills of the meters":
            will(utility, meter)
        elif struck == "power fails":
            utility.say(meter, "event", type="power_fail", ts=format_instant(utility.now))
    if struck == "nothing":
        utility.now += HOUR
    outages.check(utility.conn, utility.now)
    expected = {(scope, "struck", STRUCK[struck])} if STRUCK[struck] is not None else set()
    if struck == "will of the gateway" and scope == "transformer":
        expected = {("gateway", "struck", "gateway_offline"), (scope, "struck", "silence")}
    found = outages.outages(utility.conn)
    assert {(each.scope, each.name, each.cause) for each in found} == expected
    # Those in whose outage nobody is struck of late are still looked at, until they speak.
    utility.now += 2 * HOUR
    assert outages.check(utility.conn, utility.now) == ([], [])
    utility.record(utility.message("pm/v1/g/struck/up/state", b"online"))
    for meter in meters:
        utility.say(meter, "hello", boot=2, ts=format_instant(utility.now))
        utility.slot(meter, 9, at_ms=utility.now)
    utility.now += MINUTE
    closed = {(scope, name) for scope, name, _ in expected}
    assert set(outages.check(utility.conn, utility.now).closed) == closed


def test_who_speaks_only_in_steady_readings_is_heard_in_a_look_at_suspects(utility: Any) -> None:
    meters = [steady_supply(utility, None) for _ in range(4)]
    for meter in meters:
        place(utility, meter, "transformer", "TR-1")
    for seq in range(4, 9):
        utility.record(*(next_reading(utility, meter, None, seq) for meter in meters[1:]))
    only_suspects(utility)
    will(utility, meters[1])
    utility.now += MINUTE
    assert outages.check(utility.conn, utility.now) == ([], [])
    utility.now += 40 * MINUTE
    assert outages.check(utility.conn, utility.now).opened == [("transformer", "TR-1")]


def test_what_cannot_be_placed_is_refused(utility: Any) -> None:
    placed = {"who": "Sy", "now_ms": utility.now}
    with pytest.raises(NotFound):
        outages.place_behind(utility.conn, "99999999999", "transformer", "TR-1", **placed)
    with pytest.raises(DomainError) as caught:
        outages.place_behind(utility.conn, utility.meter(), "gateway", "a b", **placed)
    assert caught.value.code == "bad_name"
