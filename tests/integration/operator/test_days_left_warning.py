"""Low credit by the days that a balance lasts: one decision, with the weekday in mind."""

from typing import Any

import pytest

from schemas.errors import DomainError
from store import decisions, holds

UNIT = 1_000_000


def live(desk: Any, account: int, days: range, wh: int) -> None:
    """So many Wh each day, at 2.00 a kWh."""
    for day in days:
        used = (day - 1) * wh + wh
        desk.read(account, f"2026-03-{day + 1:02d}T00:00:00Z", used)


def test_an_account_is_warned_once_when_its_credit_lasts_the_days(desk: Any) -> None:
    account = desk.open()
    desk.pay(account, 100, "2026-03-01T00:00:00Z")
    holds.set_low_credit(desk.conn, desk.terms, account, 0, desk.now, who="vera", days=3)
    # 5 kWh cost 10 a day: after nine days 10 is left, after seven 30, which is three days.
    live(desk, account, range(1, 10), 5_000)
    told = [one for one in desk.decided(account) if one[0].startswith("low_credit")]
    assert [kind for kind, _, _ in told] == ["low_credit_cleared", "low_credit"]
    assert told[1][1] == "2026-03-08T00:00:00Z"
    # 40 more is 5 days: above five quarters of three.
    desk.pay(account, 40, "2026-03-10T01:00:00Z")
    assert desk.kinds(account)[-1] == "low_credit_cleared"
    before = desk.kinds(account)
    desk.tick("2026-03-10T02:00:00Z")
    assert desk.kinds(account) == before


def test_a_forecast_that_moves_is_its_own_cause(desk: Any) -> None:
    account = desk.open()
    desk.pay(account, 200, "2026-03-01T00:00:00Z")
    live(desk, account, range(1, 7), 5_000)
    state = desk.state(account)
    assert not state.low_credit
    # From now on the same balance is too little for so many days.
    holds.set_low_credit(desk.conn, desk.terms, account, 0, desk.now, who="vera", days=30)
    newest = decisions.of_account(desk.conn, account, limit=1)[0]
    assert (newest.kind, newest.cause) == ("low_credit", "forecast")
    assert newest.balance_micro == state.balance_micro


def test_a_centre_sets_it_for_its_accounts_of_now_and_later(desk: Any) -> None:
    account = desk.open()
    changed = holds.set_low_credit_of_centre(
        desk.conn, desk.centre, 7 * UNIT, desk.now, who="vera", days=2
    )
    assert changed == 1
    later = desk.open()
    for each in (account, later):
        state = desk.state(each)
        assert (state.low_credit_micro, state.low_credit_days) == (7 * UNIT, 2)
    for amount, days in ((-1, 2), (1, 0), (1, 61)):
        with pytest.raises(DomainError) as refusal:
            holds.set_low_credit_of_centre(
                desk.conn, desk.centre, amount, desk.now, who="vera", days=days
            )
        assert refusal.value.code == "threshold_refused"
