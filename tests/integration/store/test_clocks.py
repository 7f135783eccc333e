"""Clocks that are wrong, and what a person makes of the readings that they dated."""

from collections.abc import Callable
from typing import Any

import pytest

from schemas.errors import DomainError
from schemas.quantities import format_instant
from store import clocks
from store.audit import audit
from store.errors import Conflict
from store.incoming import Incoming

OPENED_WH = 100_000
T0 = 1_772_323_200_000
MINUTE = 60_000
QUARTER = 15 * MINUTE
HOUR = 60 * MINUTE
DAY = 24 * HOUR


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
        received_ms=received_ms,
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
    utility.slot(supply.meter, 4)
    assert utility.rows("SELECT clock FROM meter_state") == ["sync"]
    assert utility.rows("SELECT verdict FROM reading") == ["accepted"]


def test_a_live_reading_from_the_future_is_taken_and_noticed(utility: Any) -> None:
    supply = utility.open()
    utility.now = T0 + HOUR
    message = utility.reading(supply.meter, utility.now + 2 * MINUTE, OPENED_WH + 5)
    utility.record(message_at(message, utility.now))
    assert utility.rows("SELECT clock FROM meter_state") == ["drift"]
    assert utility.rows("SELECT verdict FROM reading") == ["accepted"]


def live(utility: Any, meter: str, ts_ms: int, wh: int, received_ms: int, **form: Any) -> None:
    """A reading that the broker is known not to have held back."""
    utility.record(message_at(utility.reading(meter, ts_ms, wh, **form), received_ms))


def test_a_live_reading_of_just_now_shows_that_a_lost_clock_is_right_again(utility: Any) -> None:
    supply = utility.open()
    utility.now = T0 + HOUR
    # Our own clock went back: the meter's seems to be ahead.
    heard(
        utility,
        supply.meter,
        "hello",
        utility.now - 20 * MINUTE,
        boot=1,
        ts=format_instant(utility.now),
    )
    assert utility.rows("SELECT clock FROM meter_state") == ["lost"]
    live(utility, supply.meter, utility.now, OPENED_WH + 5, utility.now + MINUTE)
    assert utility.rows("SELECT clock FROM meter_state") == ["sync"]
    assert utility.rows("SELECT verdict FROM reading") == ["accepted"]
    changes = utility.rows("SELECT judged, offset_ms FROM clock_change ORDER BY id")
    assert changes == [("lost", 20 * MINUTE), ("sync", -MINUTE)]


@pytest.mark.parametrize(
    ("late_ms", "form"),
    [(MINUTE + 1, {}), (0, {"hist": True}), (0, {"tq": "lost"})],
    ids=["late", "replayed", "lost by its own word"],
)
def test_no_other_reading_puts_a_lost_clock_right(utility: Any, late_ms: int, form: Any) -> None:
    supply = utility.open()
    utility.now = T0 + HOUR
    heard(utility, supply.meter, "hello", utility.now, boot=1, ts=format_instant(T0))
    live(utility, supply.meter, utility.now, OPENED_WH + 5, utility.now + late_ms, **form)
    assert utility.rows("SELECT clock FROM meter_state") == ["lost"]
    assert utility.rows("SELECT verdict FROM reading") == ["clock_lost"]


BEHIND = 3 * HOUR


def lost_meter(utility: Any) -> Any:
    """A meter whose clock is found three hours behind, with two readings since."""
    supply = utility.open()
    utility.top_up(supply, 500_000_000, "p-1", T0)
    utility.slot(supply.meter, 1, at_ms=T0 + HOUR)
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
    utility.slot(supply.meter, 4, tq="lost")
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
    utility.slot(supply.meter, 4, boot=2, at_ms=T0 + 9 * HOUR)
    assert utility.rows("SELECT verdict FROM reading ORDER BY ts DESC LIMIT 1") == ["accepted"]
