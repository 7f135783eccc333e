"""After old readings are dropped, what was charged for them stays charged."""

from typing import Any

import pytest

from store.clockwork import drop_old_readings
from store.errors import SettlementError

T0 = 1_772_323_200_000  # 2026-03-01T00:00:00Z, when the accounts of these tests are opened
HOUR = 3_600_000
DAY = 24 * HOUR
OPENED_WH = 100_000
KEPT_FROM = T0 + 20 * DAY


def test_a_fact_from_before_what_is_kept_is_refused_and_takes_nothing_back(utility: Any) -> None:
    supply = utility.open()
    for day in range(1, 30):
        utility.read(supply, T0 + day * DAY + HOUR, OPENED_WH + day * 1000)
    before = utility.state(supply)
    assert drop_old_readings(utility.conn, KEPT_FROM) > 0

    with pytest.raises(SettlementError, match="enter what is owed as an adjustment"):
        utility.read(supply, T0 + 3 * DAY, OPENED_WH + 2900)
    assert utility.state(supply) == before

    # What is kept can still come late, and new readings go on.
    utility.read(supply, T0 + 25 * DAY, OPENED_WH + 24_900)
    utility.read(supply, T0 + 31 * DAY, OPENED_WH + 31_000)
    charged = utility.rows("SELECT sum(energy_wh)::bigint FROM ledger_transaction")
    assert charged == [31_000]
