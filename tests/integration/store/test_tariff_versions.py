"""A tariff version that is entered late prices what was used since it is in force."""

from typing import Any

import pytest

from credit_engine.errors import CreditError
from store import clockwork, registry
from store.audit import audit

OPENED_WH = 100_000
T0 = 1_772_323_200_000  # 2026-03-01T00:00:00Z, when the accounts of these tests are opened
HOUR = 3_600_000
DAY = 24 * HOUR
DEARER = {
    "valid_from": "2026-03-02",
    "period": "month",
    "bands": [{"name": "day", "method": "graduated", "blocks": [{"price": "9"}]}],
}


def test_a_version_that_is_entered_late_is_charged_from_its_day(utility: Any) -> None:
    supply = utility.open()
    utility.top_up(supply, 500_000_000, "p-1", T0)
    utility.read(supply, T0 + DAY, OPENED_WH + 10_000)
    first_day = utility.state(supply).balance_micro
    for day in range(2, 5):
        utility.read(supply, T0 + day * DAY, OPENED_WH + day * 10_000)
    registry.add_tariff_version(utility.conn, utility.tariff, DEARER)
    # Until the clockwork comes, the audit leaves the account to it.
    assert all(check.passed for check in audit(utility.conn))
    assert clockwork.settle_due(utility.conn, utility.terms, utility.now, 10) == 1
    # Three days of 10 kWh at 9, and the standing charge of the second day, tax included, is undone.
    expected = first_day + 1_392_000 - 30 * 9_000_000
    assert abs(utility.state(supply).balance_micro - expected) <= 1  # the tax of a month is rounded
    assert all(check.passed for check in audit(utility.conn))
    utility.read(supply, T0 + 5 * DAY, OPENED_WH + 50_000)
    utility.read(supply, T0 + 2 * DAY + HOUR, OPENED_WH + 20_100)
    assert all(check.passed for check in audit(utility.conn))


def test_a_version_of_the_future_changes_nothing_before_its_day(utility: Any) -> None:
    supply = utility.open()
    utility.read(supply, T0 + DAY + HOUR, OPENED_WH + 1000)
    before = utility.state(supply)
    registry.add_tariff_version(utility.conn, utility.tariff, DEARER | {"valid_from": "2026-03-09"})
    clockwork.settle_due(utility.conn, utility.terms, utility.now, 10)
    after = utility.state(supply)
    assert (after.balance_micro, after.position) == (before.balance_micro, before.position)
    assert after.terms_revision == before.terms_revision + 1
    utility.now = T0 + 12 * DAY
    utility.read(supply, utility.now, OPENED_WH + 90_000)
    assert all(check.passed for check in audit(utility.conn))


def test_a_second_version_of_one_day_is_refused(utility: Any) -> None:
    registry.add_tariff_version(utility.conn, utility.tariff, DEARER)
    with pytest.raises(CreditError):
        registry.add_tariff_version(utility.conn, utility.tariff, DEARER)
