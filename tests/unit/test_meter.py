import json
from dataclasses import dataclass, field

import pytest

from schemas.commands import Command, payload, receipt
from schemas.decoding import LIMIT_BYTES, decode_up
from schemas.errors import DomainError
from schemas.telemetry import Decoded
from schemas.topics import Topic
from simulators import meter_state
from simulators.meter import (
    BUTTON_DELAY_MS,
    RETRY_MS,
    Meter,
    Nameplate,
    Publish,
    TokenEntry,
)
from simulators.meter_state import MeterState

NUMBER = "37000000017"
T0 = 1_772_323_200_000  # 2026-03-01T00:00:00Z
MINUTE = 60_000
QUARTER = 15 * MINUTE


class SteadyLoad:
    """One Wh a minute: 60 W."""

    def energy_wh(self, ms: int) -> int:
        return (ms - T0) // MINUTE


@dataclass
class Bench:
    """A meter on a test bench: says what it said, decoded as the server would."""

    state: MeterState = field(default_factory=MeterState)
    enter_token: object = None
    ctr: int = 0

    def __post_init__(self) -> None:
        plate = Nameplate(NUMBER, 1000, QUARTER, 0)
        self.meter = Meter(plate, SteadyLoad(), self.state, self.enter_token)  # type: ignore[arg-type]

    def start(self, at_ms: int = T0) -> list[Decoded]:
        return decoded(self.meter.power_up(at_ms), at_ms) + self.connect(at_ms)

    def connect(self, at_ms: int) -> list[Decoded]:
        return decoded(self.meter.connected(at_ms), at_ms)

    def tick(self, at_ms: int) -> list[Decoded]:
        return decoded(self.meter.tick(at_ms), at_ms)

    def free(self, boot: int, seq: int, at_ms: int) -> None:
        assert self.meter.receive(at_ms, "receipt", receipt(boot, seq)) == []

    def order(
        self, at_ms: int, kind: str, ctr: int | None = None, life_ms: int = MINUTE, **args: object
    ) -> list[Decoded]:
        self.ctr = self.ctr + 1 if ctr is None else ctr
        named = {name.removesuffix("_"): value for name, value in args.items()}
        command = Command(
            f"c-{self.ctr}",
            kind,  # type: ignore[arg-type]  # the case
            self.ctr,
            at_ms - MINUTE,
            at_ms + life_ms,
            named,
        )
        return decoded(self.meter.receive(at_ms, "cmd", payload(command)), at_ms)


def decoded(said: list[Publish], now_ms: int) -> list[Decoded]:
    results = []
    for message in said:
        assert len(message.payload) <= LIMIT_BYTES["m"]
        topic = Topic("m", NUMBER, "up", message.kind)
        result = decode_up(topic, message.payload, None, now_ms)
        assert result.refused == ()
        results.append(result)
    return results


def rows(said: list[Decoded]) -> list[tuple[int, int]]:
    return [(r.ts_ms, r.value_wh) for result in said for r in result.readings]


def answers(said: list[Decoded]) -> list[tuple[str, str | None]]:
    return [(result.ack.state, result.ack.why) for result in said if result.ack]


def test_a_meter_says_hello_first_then_its_newest_reading() -> None:
    hello, newest = Bench().start()
    assert hello.hello is not None
    assert (hello.hello.boot, hello.hello.buffered) == (1, 1)
    (reading,) = newest.readings
    assert (reading.ts_ms, reading.value_wh, reading.hist, reading.rcpt) == (T0, 1000, False, True)


def test_readings_fall_on_the_grid_whenever_the_meter_is_looked_at() -> None:
    bench = Bench()
    bench.start()
    assert bench.meter.next_wake_ms() == T0 + QUARTER
    assert bench.tick(T0 + QUARTER - 1) == []
    assert rows(bench.tick(T0 + 3 * QUARTER + 5)) == [
        (T0 + QUARTER, 1015),
        (T0 + 2 * QUARTER, 1030),
        (T0 + 3 * QUARTER, 1045),
    ]


def test_every_fourth_reading_asks_for_a_receipt_and_each_one_while_it_is_overdue() -> None:
    bench = Bench()
    bench.start()
    said = [bench.tick(T0 + i * QUARTER)[0].readings[0] for i in range(1, 9)]
    assert [r.seq for r in said if r.rcpt] == [4, 6, 7, 8, 9]
    bench.free(1, 9, T0 + 8 * QUARTER)
    said = [bench.tick(T0 + i * QUARTER)[0].readings[0] for i in range(9, 13)]
    assert [r.seq for r in said if r.rcpt] == [12]


def test_a_receipt_frees_its_boot_up_to_its_seq_and_nothing_else() -> None:
    bench = Bench()
    bench.start()
    bench.tick(T0 + 4 * QUARTER)
    bench.meter.power_up(T0 + 5 * QUARTER - 1)
    bench.free(1, 3, T0 + 5 * QUARTER - 1)
    bench.free(9, 99, T0 + 5 * QUARTER - 1)
    bench.meter.receive(T0 + 5 * QUARTER - 1, "receipt", b"{}")
    assert [(row.boot, row.seq) for row in bench.state.pending] == [(1, 4), (1, 5), (2, 6)]


def test_after_an_outage_come_hello_the_newest_reading_and_the_buffer_oldest_first() -> None:
    bench = Bench()
    bench.start()
    bench.meter.disconnected()
    end_ms = T0 + 40 * QUARTER
    assert bench.tick(end_ms - QUARTER) == []
    hello, newest, *history = bench.connect(end_ms)
    assert hello.hello is not None
    assert hello.hello.buffered == 41
    assert rows([newest]) == [(end_ms, 1600)]
    # Its receipt would free the rows that have not been said yet.
    assert newest.readings[0].rcpt is False
    assert rows(history) == [(T0 + i * QUARTER, 1000 + 15 * i) for i in range(40)]
    assert all(r.hist for result in history for r in result.readings)


def test_unanswered_rows_are_said_again_after_an_hour() -> None:
    bench = Bench()
    bench.start()
    bench.tick(T0 + 3 * QUARTER)
    (live, again) = bench.tick(T0 + RETRY_MS)
    assert rows([live]) == [(T0 + 4 * QUARTER, 1060)]
    assert rows([again]) == [(T0, 1000)]
    assert again.readings[0].hist


def test_a_full_buffer_loses_its_oldest_row() -> None:
    bench = Bench()
    bench.start()
    bench.meter.disconnected()
    bench.tick(T0 + 5000 * QUARTER)
    assert len(bench.state.pending) == meter_state.BUFFER_ROWS
    assert bench.state.pending[-1].seq == 5001


def test_nothing_is_used_while_the_power_is_off() -> None:
    bench = Bench()
    bench.start()
    bench.tick(T0 + QUARTER)
    again = Bench(meter_state.load(meter_state.dump(bench.state)))
    event, hello, newest, *_ = again.start(T0 + 9 * QUARTER)
    assert event.event is not None
    assert event.event.type == "power_return"
    assert hello.hello is not None
    assert hello.hello.boot == 2
    assert rows([newest]) == [(T0 + 9 * QUARTER, 1015)]


def test_a_meter_does_not_start_before_it_has_lived() -> None:
    bench = Bench()
    bench.start(T0 + QUARTER)
    with pytest.raises(DomainError) as caught:
        bench.meter.power_up(T0)
    assert caught.value.code == "clock_behind"


def test_memory_survives_as_it_was_but_for_the_archive() -> None:
    bench = Bench()
    bench.start()
    bench.order(T0 + 1, "limit", w=10)
    bench.order(T0 + 2, "relay", to="open")
    bench.order(T0 + 3, "display", text="مرحبا")
    bench.tick(T0 + 5 * QUARTER)
    assert meter_state.load(meter_state.dump(bench.state)) == bench.state


def test_an_open_relay_stops_the_register_and_a_closed_one_lets_it_run() -> None:
    bench = Bench()
    bench.start()
    opened = bench.order(T0 + 5 * MINUTE, "relay", to="open", why="out_of_credit")
    assert answers(opened) == [("accepted", None), ("done", None)]
    assert opened[-1].ack is not None
    assert (opened[-1].ack.relay, opened[-1].ack.reg) == ("open", {"1.8.0": 1005})
    assert rows(bench.tick(T0 + QUARTER)) == [(T0 + QUARTER, 1005)]
    bench.order(T0 + 20 * MINUTE, "relay", to="close")
    assert rows(bench.tick(T0 + 2 * QUARTER)) == [(T0 + 2 * QUARTER, 1015)]


def test_opening_twice_withholds_once() -> None:
    bench = Bench()
    bench.start()
    bench.order(T0 + 5 * MINUTE, "relay", to="open")
    bench.order(T0 + 8 * MINUTE, "relay", to="open")
    bench.order(T0 + 10 * MINUTE, "relay", to="close")
    bench.order(T0 + 11 * MINUTE, "relay", to="close")
    assert rows(bench.tick(T0 + QUARTER)) == [(T0 + QUARTER, 1010)]


def test_an_armed_meter_waits_for_its_button() -> None:
    bench = Bench()
    bench.start()
    assert answers(bench.order(T0, "arm")) == [("done", None)]
    assert bench.state.relay == "closed"  # nothing to reconnect
    bench.order(T0 + MINUTE, "relay", to="open")
    armed = bench.order(T0 + 2 * MINUTE, "arm")
    assert armed[-1].ack is not None
    assert armed[-1].ack.relay == "armed"
    pressed_ms = T0 + 2 * MINUTE + BUTTON_DELAY_MS
    assert bench.meter.next_wake_ms() == pressed_ms
    (event,) = bench.tick(pressed_ms)
    assert event.event is not None
    assert (event.event.type, bench.state.relay) == ("relay_by_hand", "closed")
    assert rows(bench.tick(T0 + QUARTER)) == [(T0 + QUARTER, 1012)]


@pytest.mark.parametrize(
    ("ctr", "life_ms", "expected"),
    [
        (8, MINUTE, [("accepted", None), ("done", None)]),
        (7, MINUTE, [("done", None)]),  # a repeat gets the stored result and moves nothing
        (6, MINUTE, [("refused", "stale")]),
        (8, -1, [("failed", "expired")]),
    ],
)
def test_commands_follow_their_counter(
    ctr: int, life_ms: int, expected: list[tuple[str, str | None]]
) -> None:
    bench = Bench()
    bench.start()
    bench.order(T0 + 1, "relay", ctr=7, to="close")
    said = bench.order(T0 + 2, "relay", ctr=ctr, life_ms=life_ms, to="open")
    assert answers(said) == expected
    assert (bench.state.relay == "open") == (len(expected) == 2)


def test_a_late_opening_cannot_overtake_a_closing() -> None:
    bench = Bench()
    bench.start()
    bench.order(T0 + 1, "relay", ctr=2, to="close")
    assert answers(bench.order(T0 + 2, "relay", ctr=1, to="open")) == [("refused", "stale")]
    assert bench.state.relay == "closed"


def test_a_repeat_after_a_reboot_still_gets_the_stored_result() -> None:
    bench = Bench()
    bench.start()
    first = bench.order(T0 + 1, "relay", ctr=3, to="open")
    again = Bench(meter_state.load(meter_state.dump(bench.state)))
    again.start(T0 + MINUTE)
    assert again.order(T0 + MINUTE, "relay", ctr=3, to="open") == [first[-1]]


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("relay", {"to": "ajar"}),
        ("token", {"tokens": []}),
        ("token", {"tokens": [5]}),
        ("credit", {"wh": "5"}),
        ("limit", {"w": -1}),
        ("limit", {"w": True}),
        ("resend", {"boot": 1, "from_": 1, "to": "x"}),
        ("display", {"text": 5}),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused(kind: str, args: dict[str, object]) -> None:
    bench = Bench(enter_token=lambda memory, digits: pytest.fail("entered"))
    bench.start()
    assert answers(bench.order(T0 + 1, kind, **args)) == [("refused", "bad_command")]


def test_what_is_no_command_is_answered_where_it_names_one() -> None:
    bench = Bench()
    bench.start()
    form = json.loads(payload(Command("c", "arm", 1, T0, T0 + 5)))
    said = bench.meter.receive(T0, "cmd", json.dumps({**form, "type": "dance"}).encode())
    assert answers(decoded(said, T0)) == [("refused", "unknown_type")]
    assert bench.meter.receive(T0, "cmd", b"\x00") == []
    assert bench.meter.receive(T0, "cfg", b"{}") == []


def test_read_gives_a_reading_of_this_very_moment() -> None:
    bench = Bench()
    bench.start()
    said = bench.order(T0 + 7 * MINUTE + 1, "read")
    assert rows(said) == [(T0 + 7 * MINUTE + 1, 1007)]
    assert answers(said) == [("done", None)]


def test_resend_gives_freed_and_waiting_rows_alike() -> None:
    bench = Bench()
    bench.start()
    bench.tick(T0 + 5 * QUARTER)
    bench.free(1, 4, T0 + 5 * QUARTER)
    said = bench.order(T0 + 5 * QUARTER, "resend", boot=1, from_=3, to=5)
    assert rows(said) == [(T0 + i * QUARTER, 1000 + 15 * i) for i in (2, 3, 4)]
    missing = bench.order(T0 + 5 * QUARTER, "resend", boot=4, from_=3, to=5)
    assert answers(missing) == [("failed", "not_kept")]


def test_credit_and_display_are_shown() -> None:
    bench = Bench()
    bench.start()
    bench.order(T0 + 1, "credit", wh=41230, as_of_seq=1)
    bench.order(T0 + 2, "display", text="Solde faible")
    assert (bench.state.credit_wh, bench.state.display) == (41230, "Solde faible")
    (message,) = bench.meter.tick(T0 + QUARTER)
    # What the register counts since then, a Wh a minute, is taken off.
    assert json.loads(message.payload)["credit"] == {"mode": "hybrid", "wh": 41215}


def test_a_household_over_its_limit_is_reported_and_zero_lifts_the_limit() -> None:
    bench = Bench()
    bench.start()
    bench.order(T0 + 1, "limit", w=59)
    reading, event = bench.tick(T0 + QUARTER)
    assert reading.readings
    assert event.event is not None
    assert (event.event.type, event.event.info) == ("over_power", {"w": 60})
    bench.order(T0 + QUARTER, "limit", w=0)
    assert [result.event for result in bench.tick(T0 + 2 * QUARTER)] == [None]


def outcome(result: str) -> dict[str, object]:
    good = result == "Accept"
    return {
        "format": True,
        "authentication": True,
        "validation": good,
        "execution": good,
        "result": result,
    }


@pytest.mark.parametrize(
    ("results", "state", "credit_wh"),
    [
        (["Accept"], "done", 500),
        (["UsedError"], "done", None),
        (["OldError"], "failed", None),
        (["Accept", "OldError"], "failed", 500),
        (["1stKCT", "Accept"], "done", 500),
    ],
)
def test_tokens_are_answered_one_by_one(
    results: list[str], state: str, credit_wh: int | None
) -> None:
    def enter(memory: str | None, digits: str) -> TokenEntry:
        result = results[int(digits)]
        credited_wh = 500 if result == "Accept" else 0
        return TokenEntry(outcome(result), digits, credited_wh)  # type: ignore[arg-type]

    bench = Bench(enter_token=enter)
    bench.start()
    digits = [str(i) for i in range(len(results))]
    accepted, final = bench.order(T0 + 1, "token", tokens=digits, tid=5)
    assert accepted.ack is not None
    assert final.ack is not None
    assert (accepted.ack.state, final.ack.state) == ("accepted", state)
    assert [token["result"] for token in final.ack.tokens] == results
    assert (bench.state.credit_wh, bench.state.token_memory) == (credit_wh, digits[-1])


def test_a_meter_without_a_key_takes_no_tokens() -> None:
    bench = Bench()
    bench.start()
    assert answers(bench.order(T0 + 1, "token", tokens=["1" * 20])) == [("refused", "bad_command")]
    with pytest.raises(DomainError) as caught:
        bench.meter.enter_token(T0, "1" * 20)
    assert caught.value.code == "no_key"
