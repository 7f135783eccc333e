"""Whose relay is ordered, and by what."""

from typing import Any

from store import clockwork
from store.audit import audit

OPENED_WH = 100_000
T0 = 1_772_323_200_000  # 2026-03-01T00:00:00Z, when the accounts of these tests are opened
HOUR = 3_600_000
DAY = 24 * HOUR


def test_the_former_account_of_a_meter_orders_nothing_from_it(utility: Any) -> None:
    former = utility.open()
    utility.top_up(former, 2_000_000, "p-1", T0)
    utility.now = T0 + HOUR
    present = utility.open(meter=former.meter, opened=T0 + HOUR)
    utility.top_up(present, 900_000_000, "p-2", T0 + HOUR)
    assert utility.rows("SELECT desired_relay FROM meter_state") == ["closed"]
    # Midnights go on costing the former account, and one of them takes it below zero.
    utility.now = T0 + 3 * DAY
    clockwork.settle_due(utility.conn, utility.terms, utility.now, 10)
    assert utility.state(former).supply == "disconnected"
    assert utility.state(present).supply == "connected"
    assert utility.rows("SELECT desired_relay FROM meter_state") == ["closed"]
    assert all(check.passed for check in audit(utility.conn))


def test_a_replayed_reading_that_lowers_the_bill_puts_the_supply_back(utility: Any) -> None:
    supply = utility.open()
    utility.top_up(supply, 29_000_000, "p-1", T0)
    # Two thirds of 12 kWh fall into the dear band, until the night is told to have had them all.
    utility.read(supply, T0 + DAY - 1, OPENED_WH + 12_000)
    assert utility.state(supply).supply == "disconnected"
    assert utility.rows("SELECT desired_relay FROM meter_state") == ["open"]
    utility.read(supply, T0 + 6 * HOUR, OPENED_WH + 11_900, hist=True)
    assert utility.state(supply).supply == "connected"
    assert utility.rows("SELECT desired_relay FROM meter_state") == ["closed"]
    assert all(check.passed for check in audit(utility.conn))
