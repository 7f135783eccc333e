"""Readings that never came, counters that run back, and gateways that speak for their own."""

from typing import Any

import pytest

from schemas.errors import DomainError
from schemas.quantities import format_instant
from store import clockwork, flags, gaps, supply
from store.audit import audit
from store.errors import Conflict, NotFound
from store.incoming import Incoming
from tests.integration.store.conftest import receipts

OPENED_WH = 100_000
T0 = 1_772_323_200_000
MINUTE = 60_000
QUARTER = 15 * MINUTE
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def open_gaps(utility: Any) -> list[tuple[int, int]]:
    return [(gap.after.seq, gap.before.seq) for gap in reversed(gaps.gaps(utility.conn))]


# --- gaps -------------------------------------------------------------------------------------


def test_a_count_that_is_missing_is_a_gap_until_it_comes(utility: Any) -> None:
    supply = utility.open()
    for seq in (1, 2, 6, 7):
        utility.slot(supply.meter, seq)
    assert open_gaps(utility) == [(2, 6)]
    utility.slot(supply.meter, 4, hist=True)
    assert open_gaps(utility) == [(2, 4), (4, 6)]
    utility.slot(supply.meter, 3, hist=True)
    utility.slot(supply.meter, 5, hist=True)
    assert open_gaps(utility) == []
    assert {gap.reason for gap in gaps.gaps(utility.conn, closed=True)} == {"filled"}
    assert all(check.passed for check in audit(utility.conn))


def test_a_receipt_promises_nothing_beyond_a_gap(utility: Any) -> None:
    """What lies in it may be with another worker or lost with a broker: the meter must keep it."""
    supply = utility.open()
    for seq in (1, 2):
        utility.slot(supply.meter, seq)
    assert receipts(utility.slot(supply.meter, 5, rcpt=True)) == [(1, 2)]
    assert receipts(utility.slot(supply.meter, 3, hist=True)) == [(1, 3)]
    # A new boot frees nothing of itself while the one before has a gap.
    assert receipts(utility.slot(supply.meter, 6, boot=2, rcpt=True)) == [(1, 3)]
    utility.slot(supply.meter, 4, hist=True)
    assert receipts(utility.slot(supply.meter, 7, boot=2, rcpt=True)) == [(2, 7)]
    # Another meter's gap is its own.
    other = utility.open()
    assert receipts(utility.slot(other.meter, 1, rcpt=True)) == [(1, 1)]


def test_a_receipt_goes_on_once_the_meter_says_that_it_has_no_more(utility: Any) -> None:
    supply = utility.open()
    for seq in (1, 5):
        utility.slot(supply.meter, seq)
    assert receipts(utility.slot(supply.meter, 6, rcpt=True)) == [(1, 1)]
    utility.now += 10 * MINUTE
    gaps.ask(utility.conn, utility.now)
    answer(utility, supply.meter, "failed", why="not_kept")
    utility.now += MINUTE
    gaps.ask(utility.conn, utility.now)
    assert receipts(utility.slot(supply.meter, 8, rcpt=True)) == [(1, 6)]
    assert receipts(utility.slot(supply.meter, 7, rcpt=True)) == [(1, 7)]


def test_what_a_batch_brings_in_disorder_leaves_no_gap(utility: Any) -> None:
    supply = utility.open()
    utility.now = T0 + 9 * QUARTER
    order = [3, 1, 5, 4, 2]
    utility.slot(supply.meter, 0, at_ms=T0 + 1)
    utility.record(
        *(
            utility.reading(supply.meter, T0 + seq * QUARTER, OPENED_WH + seq * 10, seq=seq)
            for seq in order
        )
    )
    assert gaps.gaps(utility.conn, closed=True) == []


def test_a_device_whose_instants_stand_for_its_counter_has_no_gaps(utility: Any) -> None:
    meter = utility.open().meter
    for quarter in (1, 2, 9):
        at_ms = T0 + quarter * QUARTER
        utility.now = at_ms
        utility.record(utility.reading(meter, at_ms, OPENED_WH + quarter, boot=0, seq=at_ms))
    assert gaps.gaps(utility.conn, closed=True) == []


def asked(utility: Any) -> list[dict[str, int]]:
    return list(utility.rows("SELECT args FROM command WHERE type = 'resend' ORDER BY ctr"))


def answer(utility: Any, meter: str, state: str, **more: Any) -> None:
    """The meter gets and answers every request that it has not answered yet."""
    sql = "SELECT id::text FROM command WHERE type = 'resend' AND answered_at IS NULL"
    for cmd in utility.rows(sql):
        supply.mark_sent(utility.conn, [cmd], utility.now)
        utility.say(meter, "ack", cmd=cmd, state=state, ts=format_instant(utility.now), **more)


def test_a_gap_is_asked_for_once_a_day_and_closed_with_the_reason(utility: Any) -> None:
    supply = utility.open()
    for seq in (1, 5):
        utility.slot(supply.meter, seq)
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
    utility.slot(supply.meter, 3, hist=True)
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
        utility.slot(supply.meter, seq)
    utility.now += gaps.GRACE_MS
    gaps.ask(utility.conn, utility.now)
    answer(utility, supply.meter, state, why=why)
    utility.now += gaps.SETTLE_MS
    assert gaps.ask(utility.conn, utility.now) == (0, 1)
    assert [gap.reason for gap in gaps.gaps(utility.conn, closed=True)] == [reason]


def test_a_meter_that_never_answers_is_asked_on_so_many_days_and_no_more(utility: Any) -> None:
    supply = utility.open()
    for seq in (1, 5):
        utility.slot(supply.meter, seq)
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
            utility.slot(meter, seq)
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
        utility.slot(supply.meter, seq, boot=boot)
    assert reasons(utility) == ["boot_reused"]
    (flag,) = flags.flags(utility.conn)
    assert (flag.meter, flag.kind, flag.times) == (supply.meter, "boot_reused", 1)
    # Its balance is what the one of the newer boot says.
    assert utility.rows("SELECT count(*) FROM reading") == [3]
    utility.slot(supply.meter, 5, boot=4)
    assert [flag.times for flag in flags.flags(utility.conn)] == [2]
    assert utility.rows("SELECT kind FROM event") == ["clone_suspected"]


@pytest.mark.parametrize("place", [(99, 1), (1, 11), (1, 500)])
def test_a_refused_reading_is_never_a_meters_newest_place(
    utility: Any, place: tuple[int, int]
) -> None:
    boot, seq = place
    supply = utility.open()
    utility.slot(supply.meter, 10)
    at_ms = T0 + 10 * QUARTER
    utility.record(utility.reading(supply.meter, at_ms, OPENED_WH + 7, boot=boot, seq=seq))
    utility.slot(supply.meter, 11)
    assert reasons(utility) == ["conflict"]
    assert utility.rows("SELECT seq FROM reading ORDER BY seq") == [10, 11]
    assert open_gaps(utility) == []


def test_a_refused_reading_is_what_a_gap_missed(utility: Any) -> None:
    supply = utility.open()
    for seq in (1, 2, 4):
        utility.slot(supply.meter, seq)
    assert open_gaps(utility) == [(2, 4)]
    # The third was dated like the second: to ask for it again would change nothing.
    at_ms = T0 + 2 * QUARTER
    utility.record(utility.reading(supply.meter, at_ms, OPENED_WH + 7, seq=3))
    assert (reasons(utility), open_gaps(utility)) == (["conflict"], [])


# Of a meter at (2, 10), with (1, 20) before its boot, that misses (2, 4) and (2, 5): the count of
# another reading, its minutes after the one that was counted so, and why it is refused.
COUNTS = {
    "the newest, older": ((2, 10, -7), "seq_reused"),
    "the newest, newer": ((2, 10, 7), "seq_reused"),
    "one before, older": ((2, 8, -7), "seq_reused"),
    "one before, hours older": ((2, 8, -180), "seq_reused"),
    "of an earlier boot": ((1, 20, -7), "seq_reused"),
    "of a gap": ((2, 4, -7), None),
    "a clock set back": ((2, 11, -187), None),
}


@pytest.mark.parametrize("together", [False, True], ids=["apart", "together"])
@pytest.mark.parametrize("hist", [False, True], ids=["live", "replayed"])
@pytest.mark.parametrize("case", COUNTS)
def test_a_count_is_of_one_instant(utility: Any, case: str, hist: bool, together: bool) -> None:
    (boot, seq, minutes), reason = COUNTS[case]
    supply, counts = utility.open(), [(1, 20), *((2, seq) for seq in (1, 2, 3, 6, 7, 8, 9, 10))]

    def reading(boot: int, seq: int, minutes: int = 0, **more: Any) -> Incoming:
        at_ms = T0 + (20 * boot + seq) * QUARTER + minutes * MINUTE
        wh = OPENED_WH + (at_ms - T0) // MINUTE
        said: Incoming = utility.reading(supply.meter, at_ms, wh, boot=boot, seq=seq, **more)
        return said

    utility.now = T0 + DAY
    messages = [*(reading(*count) for count in counts), reading(boot, seq, minutes, hist=hist)]
    for batch in [messages] if together else [[each] for each in messages]:
        utility.record(*batch)
    assert reasons(utility) == ([] if reason is None else [reason])
    assert [flag.kind for flag in flags.flags(utility.conn)] == reasons(utility)
    said = utility.rows("SELECT count(*) FROM reading")
    assert said == [len(counts) + (reason is None)]
    before = utility.state(supply)
    for message in reversed(messages):
        utility.record(message)
    assert utility.rows("SELECT count(*) FROM reading") == said
    assert utility.state(supply).balance_micro == before.balance_micro


def test_a_replayed_row_of_an_earlier_boot_is_no_clone(utility: Any) -> None:
    supply = utility.open()
    utility.slot(supply.meter, 3, boot=2)
    utility.slot(supply.meter, 1, boot=1, hist=True)
    utility.slot(supply.meter, 2, boot=1)
    assert (reasons(utility), flags.flags(utility.conn)) == ([], [])


def test_a_hello_with_an_older_count_is_a_clone_and_a_late_one_is_not(utility: Any) -> None:
    supply = utility.open()
    utility.slot(supply.meter, 50, boot=3)
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
    utility.slot(supply.meter, 20)
    utility.slot(supply.meter, 20, at_ms=T0 + 21 * QUARTER)
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
    utility.slot(supply.meter, 1, at_ms=T0 + 22 * QUARTER)
    assert utility.rows("SELECT count(*) FROM reading") == [2]
    assert [flag.note for flag in flags.flags(utility.conn, cleared=True)] == ["board exchanged"]


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
