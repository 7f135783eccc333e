"""A simulated meter and the store: what got lost on the way is asked for and comes again."""

from typing import Any

from schemas.commands import payload, receipt
from schemas.topics import Topic, build
from simulators.meter import Meter, Nameplate, Publish
from simulators.meter_state import MeterState
from store import gaps, supply

QUARTER = 15 * 60_000


class SteadyLoad:
    def energy_wh(self, ms: int) -> int:
        return ms // 60_000 % 10**8


def test_readings_that_got_lost_are_asked_for_and_billed_as_history(utility: Any) -> None:
    number = utility.meter()
    start_ms = utility.now
    opening_wh = 100_000 - SteadyLoad().energy_wh(start_ms)
    meter = Meter(Nameplate(number, opening_wh, QUARTER, 0), SteadyLoad(), MeterState())
    supply_point = utility.open(meter=number)
    meter.power_up(start_ms)

    def deliver(said: list[Publish], lost: frozenset[int] = frozenset()) -> None:
        for place, message in enumerate(said):
            if place in lost:
                continue
            topic = build(Topic("m", number, "up", message.kind))
            recorded = utility.record(utility.message(topic, message.payload))
            for each in recorded.receipts:
                meter.receive(utility.now, "receipt", receipt(each.boot, each.seq))

    deliver(meter.connected(start_ms))
    for slot in range(1, 9):
        utility.now = start_ms + slot * QUARTER
        said = meter.tick(utility.now)
        deliver(said, frozenset({0}) if slot in {3, 4, 5} else frozenset())
    # No receipt covers what got lost on the way: the meter keeps it, and said two of them again.
    assert [row.seq for row in meter.state.pending] == [6, 7, 8, 9]
    (gap,) = gaps.gaps(utility.conn)
    assert gap.before.seq - gap.after.seq == 2
    utility.now += gaps.GRACE_MS
    assert gaps.ask(utility.conn, utility.now).asked == 1
    queued = [row[2] for row in supply.queued_commands(utility.conn, 10)]
    (order,) = [command for command in queued if command.type == "resend"]
    deliver(meter.receive(utility.now, "cmd", payload(order)))
    assert gaps.gaps(utility.conn) == []
    assert [each.reason for each in gaps.gaps(utility.conn, closed=True)] == ["filled"]
    assert utility.rows("SELECT count(*) FROM reading WHERE historical") == [3]
    assert utility.state(supply_point).balance_micro < 0
