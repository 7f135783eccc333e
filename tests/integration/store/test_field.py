"""Meters in the field: readings that never came, counters that run back, clocks, outages."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from schemas.errors import DomainError
from schemas.quantities import format_instant
from store import clocks, clockwork, flags, gaps, outages
from store.audit import audit
from store.errors import Conflict, NotFound
from store.ingest import Incoming

OPENED_WH = 100_000
T0 = 1_772_323_200_000
MINUTE = 60_000
QUARTER = 15 * MINUTE
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def say(
    utility: Any, meter: str, seq: int, *, boot: int = 1, at_ms: int | None = None, **more: Any
) -> Any:
    """The reading of slot `seq`, as of its instant or later."""
    ts_ms = T0 + seq * QUARTER if at_ms is None else at_ms
    utility.now = max(utility.now, ts_ms)
    message = utility.reading(meter, ts_ms, OPENED_WH + seq * 10, boot=boot, seq=seq, **more)
    return utility.record(message)


def open_gaps(utility: Any) -> list[tuple[int, int]]:
    return [(gap.after.seq, gap.before.seq) for gap in reversed(gaps.gaps(utility.conn))]


# --- gaps -------------------------------------------------------------------------------------


def test_a_count_that_is_missing_is_a_gap_until_it_comes(utility: Any) -> None:
    supply = utility.open()
    for seq in (1, 2, 6, 7):
        say(utility, supply.meter, seq)
    assert open_gaps(utility) == [(2, 6)]
    say(utility, supply.meter, 4, hist=True)
    assert open_gaps(utility) == [(2, 4), (4, 6)]
    say(utility, supply.meter, 3, hist=True)
    say(utility, supply.meter, 5, hist=True)
    assert open_gaps(utility) == []
    assert {gap.reason for gap in gaps.gaps(utility.conn, closed=True)} == {"filled"}
    assert all(check.passed for check in audit(utility.conn))


def test_what_a_batch_brings_in_disorder_leaves_no_gap(utility: Any) -> None:
    supply = utility.open()
    utility.now = T0 + 9 * QUARTER
    order = [3, 1, 5, 4, 2]
    say(utility, supply.meter, 0, at_ms=T0 + 1)
    utility.record(
        *(
            utility.reading(supply.meter, T0 + seq * QUARTER, OPENED_WH + seq * 10, seq=seq)
            for seq in order
        )
    )
    assert gaps.gaps(utility.conn, closed=True) == []


def asked(utility: Any) -> list[dict[str, int]]:
    return list(utility.rows("SELECT args FROM command WHERE type = 'resend' ORDER BY ctr"))


def answer(utility: Any, meter: str, state: str, **more: Any) -> None:
    """The meter answers every request that it has not answered yet."""
    sql = "SELECT id::text FROM command WHERE type = 'resend' AND answered_at IS NULL"
    for cmd in utility.rows(sql):
        utility.say(meter, "ack", cmd=cmd, state=state, ts=format_instant(utility.now), **more)


def test_a_gap_is_asked_for_once_a_day_and_closed_with_the_reason(utility: Any) -> None:
    supply = utility.open()
    for seq in (1, 5):
        say(utility, supply.meter, seq)
    conn = utility.conn
    # The meter's own replay has the first word.
    assert gaps.ask(conn, utility.now) == (0, 0)
    utility.now += gaps.GRACE_MS
    assert gaps.ask(conn, utility.now) == (1, 0)
    assert asked(utility) == [{"boot": 1, "from": 2, "to": 4}]
    assert gaps.ask(conn, utility.now + DAY - 1) == (0, 0)
    utility.now += DAY
    assert gaps.ask(conn, utility.now) == (1, 0)
    # It sends one, and says that it is done: it has no more.
    say(utility, supply.meter, 3, hist=True)
    answer(utility, supply.meter, "done")
    assert gaps.ask(conn, utility.now) == (0, 0)
    utility.now += gaps.SETTLE_MS
    assert gaps.ask(conn, utility.now) == (0, 2), "one on each side of the reading that came"
    assert {gap.reason for gap in gaps.gaps(conn, closed=True)} == {"not_kept"}


@pytest.mark.parametrize(
    ("state", "why", "reason"),
    [("failed", "not_kept", "not_kept"), ("refused", "unknown_type", "not_supported")],
)
def test_a_gap_that_the_meter_cannot_fill_is_closed(
    utility: Any, state: str, why: str, reason: str
) -> None:
    supply = utility.open()
    for seq in (1, 5):
        say(utility, supply.meter, seq)
    utility.now += gaps.GRACE_MS
    gaps.ask(utility.conn, utility.now)
    answer(utility, supply.meter, state, why=why)
    utility.now += gaps.SETTLE_MS
    assert gaps.ask(utility.conn, utility.now) == (0, 1)
    assert [gap.reason for gap in gaps.gaps(utility.conn, closed=True)] == [reason]


def test_a_meter_that_never_answers_is_asked_on_so_many_days_and_no_more(utility: Any) -> None:
    supply = utility.open()
    for seq in (1, 5):
        say(utility, supply.meter, seq)
    utility.now += gaps.GRACE_MS
    rounds = []
    for _ in range(gaps.MOST_ASKS + 2):
        clockwork.close_overdue(utility.conn, utility.now)
        rounds.append(gaps.ask(utility.conn, utility.now))
        utility.now += DAY
    assert [each.asked for each in rounds] == [1] * gaps.MOST_ASKS + [0, 0]
    assert sum(each.closed for each in rounds) == 1
    assert [gap.reason for gap in gaps.gaps(utility.conn, closed=True)] == ["no_answer"]


def test_asking_is_limited_over_all_meters_and_leaves_out_who_is_away(utility: Any) -> None:
    meters = [utility.open().meter for _ in range(4)]
    for meter in meters:
        for seq in (1, 5):
            say(utility, meter, seq)
    utility.record(utility.message(f"pm/v1/m/{meters[0]}/up/state", b"offline"))
    utility.now += gaps.GRACE_MS
    assert gaps.ask(utility.conn, utility.now, limit=2).asked == 2
    assert gaps.ask(utility.conn, utility.now, limit=2).asked == 0
    utility.now += MINUTE
    assert gaps.ask(utility.conn, utility.now, limit=2).asked == 1
    (silent,) = gaps.gaps(utility.conn, meter=meters[0])
    assert silent.asks == 0
    with pytest.raises(NotFound):
        gaps.gaps(utility.conn, meter="99999999999")


# --- counters that run back -------------------------------------------------------------------


def reasons(utility: Any) -> list[str]:
    return sorted(utility.rows("SELECT reason FROM quarantine"))


def test_two_boots_that_interleave_are_a_clone(utility: Any) -> None:
    supply = utility.open()
    for boot, seq in ((4, 1), (9, 2), (4, 3), (9, 4)):
        say(utility, supply.meter, seq, boot=boot)
    assert reasons(utility) == ["boot_reused"]
    (flag,) = flags.flags(utility.conn)
    assert (flag.meter, flag.kind, flag.times) == (supply.meter, "boot_reused", 1)
    # Its balance is what the one of the newer boot says.
    assert utility.rows("SELECT count(*) FROM reading") == [3]
    say(utility, supply.meter, 5, boot=4)
    assert [flag.times for flag in flags.flags(utility.conn)] == [2]
    assert utility.rows("SELECT kind FROM event") == ["clone_suspected"]


def test_a_replayed_row_of_an_earlier_boot_is_no_clone(utility: Any) -> None:
    supply = utility.open()
    say(utility, supply.meter, 3, boot=2)
    say(utility, supply.meter, 1, boot=1, hist=True)
    say(utility, supply.meter, 2, boot=1)
    assert (reasons(utility), flags.flags(utility.conn)) == ([], [])


def test_a_hello_with_an_older_count_is_a_clone_and_a_late_one_is_not(utility: Any) -> None:
    supply = utility.open()
    say(utility, supply.meter, 50, boot=3)
    at_ms = utility.now
    for boot, seq, ts_ms in ((3, 40, at_ms - 1), (3, 50, at_ms + 1), (4, 1, at_ms + 1)):
        utility.say(supply.meter, "hello", boot=boot, seq=seq, ts=format_instant(ts_ms))
    assert flags.flags(utility.conn) == []
    utility.say(supply.meter, "hello", boot=3, seq=49, ts=format_instant(at_ms + 2))
    assert [flag.kind for flag in flags.flags(utility.conn)] == ["seq_reused"]


def test_connections_that_take_the_name_from_each_other_are_flagged(utility: Any) -> None:
    supply, calm = utility.open(), utility.open()
    for seq in range(flags.TAKE_OVERS):
        assert flags.flags(utility.conn) == []
        for meter in (supply.meter, calm.meter) if seq % 2 else (supply.meter,):
            utility.say(meter, "hello", boot=1, seq=seq, ts=format_instant(utility.now + seq))
        utility.now += flags.TAKE_OVER_WINDOW_MS // flags.TAKE_OVERS
    assert [(flag.meter, flag.kind) for flag in flags.flags(utility.conn)] == [
        (supply.meter, "take_over")
    ]


def test_a_cleared_meter_begins_anew(utility: Any) -> None:
    supply = utility.open()
    say(utility, supply.meter, 20)
    say(utility, supply.meter, 20, at_ms=T0 + 21 * QUARTER)
    assert reasons(utility) == ["seq_reused"]
    for who, note in (("", "x"), ("Sy", " ")):
        with pytest.raises(DomainError) as caught:
            flags.clear(utility.conn, supply.meter, who, note, utility.now)
        assert caught.value.code == "no_reason"
    assert flags.clear(utility.conn, supply.meter, "Sy", "board exchanged", utility.now) == 1
    with pytest.raises(Conflict):
        flags.clear(utility.conn, supply.meter, "Sy", "again", utility.now)
    with pytest.raises(NotFound):
        flags.clear(utility.conn, "99999999999", "Sy", "who", utility.now)
    say(utility, supply.meter, 1, at_ms=T0 + 22 * QUARTER)
    assert utility.rows("SELECT count(*) FROM reading") == [2]
    assert [flag.note for flag in flags.flags(utility.conn, cleared=True)] == ["board exchanged"]


# --- clocks -----------------------------------------------------------------------------------


def heard(utility: Any, meter: str, kind: str, received_ms: int, **form: Any) -> None:
    """A message that the broker is known not to have held back."""
    message = utility.message(f"pm/v1/m/{meter}/up/{kind}", {"v": 1, **form})
    utility.record(message_at(message, received_ms))


def message_at(message: Incoming, received_ms: int) -> Incoming:
    return Incoming(
        message.topic,
        message.topic_text,
        message.payload,
        message.content_type,
        message.decoded,
        received_ms,
    )


CLOCKS = [
    (0, "sync"),
    (60_000, "sync"),
    (-60_000, "sync"),
    (60_001, "drift"),
    (-15 * MINUTE, "drift"),
    (-15 * MINUTE - 1, "lost"),
    (-3 * DAY, "lost"),
    (20 * MINUTE, "lost"),
]


@pytest.mark.parametrize("kind", ["hello", "time"])
def test_a_clock_is_judged_where_the_meter_says_what_time_it_is(utility: Any, kind: str) -> None:
    utility.now = T0 + 4 * DAY
    for offset_ms, judged in CLOCKS:
        meter, said_ms = utility.meter(), utility.now + offset_ms
        form = {"t1": said_ms} if kind == "time" else {"boot": 1, "ts": format_instant(said_ms)}
        heard(utility, meter, kind, utility.now, **form)
        assert (judged,) in utility.conn.execute(
            "SELECT clock FROM meter_state JOIN meter m ON m.id = meter_id WHERE number = %s",
            (meter,),
        ).fetchall(), offset_ms
    wrong = [(judged, offset_ms) for offset_ms, judged in CLOCKS if judged != "sync"]
    assert utility.rows("SELECT judged, offset_ms FROM clock_change ORDER BY id") == wrong
    events = utility.rows("SELECT kind FROM event WHERE kind LIKE 'clock%%' ORDER BY id")
    assert events == [f"clock_{judged}" for judged, _ in wrong]


def test_a_message_that_may_have_waited_judges_no_clock(utility: Any) -> None:
    supply = utility.open()
    utility.now = T0 + DAY
    utility.say(supply.meter, "hello", boot=1, ts=format_instant(T0 + HOUR))
    say(utility, supply.meter, 4)
    assert utility.rows("SELECT clock FROM meter_state") == ["sync"]
    assert utility.rows("SELECT verdict FROM reading") == ["accepted"]


def test_a_live_reading_from_the_future_is_taken_and_noticed(utility: Any) -> None:
    supply = utility.open()
    utility.now = T0 + HOUR
    message = utility.reading(supply.meter, utility.now + 2 * MINUTE, OPENED_WH + 5)
    utility.record(message_at(message, utility.now))
    assert utility.rows("SELECT clock FROM meter_state") == ["drift"]
    assert utility.rows("SELECT verdict FROM reading") == ["accepted"]


BEHIND = 3 * HOUR


def lost_meter(utility: Any) -> Any:
    """A meter whose clock is found three hours behind, with two readings since."""
    supply = utility.open()
    utility.top_up(supply, 500_000_000, "p-1", T0)
    say(utility, supply.meter, 1, at_ms=T0 + HOUR)
    utility.now = T0 + 6 * HOUR
    heard(
        utility, supply.meter, "hello", utility.now, boot=2, ts=format_instant(utility.now - BEHIND)
    )
    for seq, hour in ((2, 7), (3, 8)):
        utility.now = T0 + hour * HOUR
        said_ms = utility.now - BEHIND
        wh = OPENED_WH + hour * 100
        utility.record(utility.reading(supply.meter, said_ms, wh, boot=2, seq=seq))
    return supply


def test_readings_of_a_lost_clock_charge_nothing_until_somebody_decides(utility: Any) -> None:
    supply = lost_meter(utility)
    before = utility.state(supply).balance_micro
    waiting = clocks.lost_readings(utility.conn)
    assert [each.ts_ms for each in waiting] == [T0 + 4 * HOUR, T0 + 5 * HOUR]
    assert [each.proposed_ms for each in waiting] == [T0 + 7 * HOUR, T0 + 8 * HOUR]
    first, second = waiting
    clocks.accept(utility.conn, utility.terms, first, None, "Sy", "3 h behind", utility.now)
    assert utility.state(supply).balance_micro < before
    assert utility.rows("SELECT energy_wh FROM ledger_transaction WHERE kind = 'energy'")
    assert sum(utility.rows("SELECT energy_wh FROM ledger_transaction")) == 700
    clocks.discard(utility.conn, second, "Sy", "no trust", utility.now)
    assert clocks.lost_readings(utility.conn) == []
    for again in (first, second):
        with pytest.raises(Conflict) as caught:
            clocks.discard(utility.conn, again, "Sy", "once more", utility.now)
        assert caught.value.code == "resolved"
    kept = utility.rows("SELECT ms_of(ts), clock, verdict FROM reading ORDER BY ts")
    assert kept == [
        (T0 + HOUR, "sync", "accepted"),
        (T0 + 4 * HOUR, "lost", "clock_lost"),
        (T0 + 5 * HOUR, "lost", "clock_lost"),
        (T0 + 7 * HOUR, "edited", "accepted"),
    ]
    assert all(check.passed for check in audit(utility.conn))


def test_a_decision_on_a_lost_reading_is_refused_where_it_cannot_be(utility: Any) -> None:
    supply = lost_meter(utility)
    first, second = clocks.lost_readings(utility.conn)
    refusals: list[tuple[str, Callable[[], None]]] = []

    def attempt(code: str, *values: Any) -> None:
        refusals.append(
            (code, lambda: clocks.accept(utility.conn, utility.terms, *values, utility.now))
        )

    attempt("no_reason", first, None, " ", "note")
    attempt("no_reason", first, None, "Sy", "")
    attempt("future", first, utility.now + 1, "Sy", "note")
    attempt("conflict", first, T0 + HOUR, "Sy", "note")
    for code, act in refusals:
        with pytest.raises(DomainError) as caught:
            act()
        assert caught.value.code == code
    assert len(clocks.lost_readings(utility.conn, meter=supply.meter)) == 2
    assert second.boot == 2


def test_a_meter_that_says_itself_that_its_clock_is_lost_proposes_nothing_until_it_is_set(
    utility: Any,
) -> None:
    supply = utility.open()
    say(utility, supply.meter, 4, tq="lost")
    (lost,) = clocks.lost_readings(utility.conn)
    assert lost.proposed_ms is None
    with pytest.raises(DomainError) as caught:
        clocks.accept(utility.conn, utility.terms, lost, None, "Sy", "note", utility.now)
    assert caught.value.code == "no_instant"
    info = {"before": format_instant(T0 + HOUR), "after": format_instant(T0 + 3 * HOUR)}
    utility.now = T0 + 4 * HOUR
    at = format_instant(utility.now)
    utility.say(supply.meter, "event", type="clock_set", ts=at, info=info)
    (lost,) = clocks.lost_readings(utility.conn)
    assert lost.proposed_ms == T0 + HOUR + 2 * HOUR
    clocks.accept(utility.conn, utility.terms, lost, None, "Sy", "was set", utility.now)
    assert all(check.passed for check in audit(utility.conn))


def test_a_clock_that_is_right_again_bills_again(utility: Any) -> None:
    supply = lost_meter(utility)
    utility.now = T0 + 9 * HOUR
    heard(utility, supply.meter, "time", utility.now, t1=utility.now + 5)
    say(utility, supply.meter, 4, boot=2, at_ms=T0 + 9 * HOUR)
    assert utility.rows("SELECT verdict FROM reading ORDER BY ts DESC LIMIT 1") == ["accepted"]


# --- outages ----------------------------------------------------------------------------------


def group(utility: Any, size: int, scope: str = "transformer", name: str = "TR-1") -> list[str]:
    """Meters behind one thing that were all heard now."""
    meters = [utility.meter() for _ in range(size)]
    for meter in meters:
        outages.place_behind(utility.conn, meter, scope, name)  # type: ignore[arg-type] # a test's words
        say(utility, meter, 1)
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
        say(utility, meter, 5, at_ms=utility.now)
    assert outages.check(utility.conn, utility.now) == ([("transformer", "TR-1")], [])
    (outage,) = outages.outages(utility.conn)
    assert (outage.cause, outage.meters, outage.silent) == ("silence", 5, 3)
    assert outage.started_ms == heard_ms
    assert suppressed(utility, [*meters, *others]) == [True] * 5 + [False] * 3
    utility.now += MINUTE
    say(utility, meters[2], 6, at_ms=utility.now)
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
    say(utility, gone[0], 800, at_ms=utility.now)
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
            say(utility, meter, 7, at_ms=utility.now)
        assert sorted(workers.map(look, range(4))) == [(0, 0)] * 3 + [(0, 1)]
    assert utility.rows("SELECT count(*) FROM outage") == [1]


def test_what_cannot_be_placed_is_refused(utility: Any) -> None:
    with pytest.raises(NotFound):
        outages.place_behind(utility.conn, "99999999999", "transformer", "TR-1")
    with pytest.raises(DomainError) as caught:
        outages.place_behind(utility.conn, utility.meter(), "gateway", "a b")
    assert caught.value.code == "bad_name"


# --- gateways speak for their own -------------------------------------------------------------


def test_a_gateway_reports_for_its_own_meters_only(utility: Any) -> None:
    mine, foreign = utility.open(gateway="dcu-1"), utility.open(gateway="dcu-2")
    at = format_instant(utility.now)
    for meter in (mine.meter, foreign.meter, "37000000017"):
        form = {"v": 1, "type": "tamper", "ts": at, "meter": meter}
        utility.record(utility.message("pm/v1/g/dcu-1/up/event", form))
        ack = {"v": 1, "cmd": "x", "state": "done", "ts": at, "meter": meter, "relay": "open"}
        utility.record(utility.message("pm/v1/g/dcu-1/up/ack", ack))
    nobody = {"v": 1, "cmd": "x", "state": "done", "ts": at}
    utility.record(utility.message("pm/v1/g/dcu-1/up/ack", nobody))
    assert reasons(utility) == sorted(
        ["not_assigned", "unknown_meter"] * 2 + ["unknown_meter", "unknown_command"]
    )
    assert utility.rows(
        "SELECT m.number FROM event JOIN meter m ON m.id = meter_id WHERE kind = 'tamper'"
    ) == [mine.meter]
    assert utility.rows(
        "SELECT m.number FROM meter_state JOIN meter m ON m.id = meter_id"
        " WHERE reported_relay = 'open'"
    ) == [mine.meter]


def test_a_gateway_that_nobody_registered_is_kept_apart(utility: Any) -> None:
    utility.record(utility.message("pm/v1/g/stranger/up/state", b"online"))
    assert reasons(utility) == ["unknown_gateway"]


def test_a_refused_reading_is_receipted_so_that_it_is_not_said_for_ever(utility: Any) -> None:
    supply = utility.open()
    bad = utility.reading(supply.meter, T0 + HOUR, {"1.8.0": -1}, seq=3, rcpt=True)
    assert [tuple(each) for each in utility.record(bad).receipts] == [(supply.meter, 1, 3)]
