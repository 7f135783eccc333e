"""The meter's own credit against its tokens: what agrees is silent, the rest waits for a person."""

from typing import Any

import pytest

from store import credit_checks
from store.errors import Conflict, NotFound

Desk = Any
MINUTE = 60_000


def seen(desk: Desk, *, every: bool = False) -> list[tuple[str, int, str | None]]:
    found = credit_checks.exceptions(desk.conn, all_states=every, limit=9)
    return [(each.verdict, each.gap_wh, each.closed_by) for each in found]


def check(desk: Desk) -> None:
    """The clockwork comes by until it has seen everything."""
    desk.now += 20 * MINUTE
    while True:
        before = desk.conn.execute("SELECT received_at::text FROM credit_compared").fetchone()
        credit_checks.compare_credit(desk.conn, desk.now)
        if desk.conn.execute("SELECT received_at::text FROM credit_compared").fetchone() == before:
            return


def read(desk: Desk, account: int, at: str, wh: int, credit: object, **more: Any) -> None:
    desk.read(account, at, wh, credit={"mode": "hybrid", "wh": credit}, **more)
    check(desk)


def token(desk: Desk, account: int, at: str, tenths: int, result: str | None) -> None:
    """A credit token that the meter answered at an instant, or did not."""
    desk.conn.execute(
        "INSERT INTO token (meter_id, top_up_id, ordinal, digits, class, subclass, amount, sgc,"
        " krn, base_date, tid, issued_at, result, answered_at)"
        " SELECT t.meter_id, t.id, 1 + (SELECT count(*) FROM token), '01234567890123456789', 0, 0,"
        " %(tenths)s, '123456', 1, 2014, 2 + (SELECT count(*) FROM token), %(at)s::timestamptz,"
        " %(result)s, CASE WHEN %(result)s::text IS NULL THEN NULL ELSE %(at)s::timestamptz END"
        " FROM top_up t WHERE t.account_id = %(account)s ORDER BY t.id LIMIT 1",
        {"account": account, "tenths": tenths, "at": at, "result": result},
    )


@pytest.fixture
def account(desk: Desk) -> int:
    """In credit for long; its meter's own credit is 50 kWh at register 1 000."""
    account = desk.open()
    desk.pay(account, 5000, "2026-03-01T01:00:00Z")
    check(desk)
    read(desk, account, "2026-03-01T02:00:00Z", 1_000, 50_000)
    return int(account)


def test_use_and_accepted_tokens_agree(desk: Desk, account: int) -> None:
    read(desk, account, "2026-03-01T03:00:00Z", 4_000, 47_000)
    token(desk, account, "2026-03-01T04:00:00Z", 120, "Accept")
    read(desk, account, "2026-03-01T05:00:00Z", 5_000, 58_000)
    token(desk, account, "2026-03-01T06:00:00Z", 10, "UsedError")
    # The reading is of the same minute: with the token in it, or not.
    read(desk, account, "2026-03-01T06:00:30Z", 5_500, 57_500)
    read(desk, account, "2026-03-01T07:00:00Z", 6_000, 58_000)
    assert seen(desk, every=True) == []
    balance = desk.state(account).balance_micro
    assert balance == 5_000_000_000 - 6_000 * 2_000


def test_a_token_from_the_keypad_is_missed_until_its_answer_comes(desk: Desk, account: int) -> None:
    token(desk, account, "2026-03-01T03:00:00Z", 100, None)
    read(desk, account, "2026-03-01T04:00:00Z", 2_000, 59_000)
    read(desk, account, "2026-03-01T05:00:00Z", 3_000, 58_000)
    assert seen(desk) == [("missed_token", 10_000, None)]
    desk.conn.execute("UPDATE token SET result = 'UsedError', answered_at = '2026-03-01T05:01Z'")
    read(desk, account, "2026-03-01T06:00:00Z", 4_000, 57_000)
    assert seen(desk, every=True) == [("missed_token", 10_000, "time")]


def test_energy_that_credit_did_not_pay_for_is_a_suspicion_and_no_debit(
    desk: Desk, account: int
) -> None:
    balance = desk.state(account).balance_micro
    read(desk, account, "2026-03-01T03:00:00Z", 1_000, 60_000)
    assert seen(desk) == [("tamper_suspect", 10_000, None)]
    assert desk.state(account).balance_micro == balance


def test_readings_that_did_not_come_explain_a_gap_first(desk: Desk, account: int) -> None:
    for _ in range(3):
        next(desk.seqs)
    read(desk, account, "2026-03-01T03:00:00Z", 2_000, 45_000)
    assert seen(desk) == [("missed_reading", -4_000, None)]


def test_small_differences_add_up_to_one_that_is_seen(desk: Desk, account: int) -> None:
    for hour in range(3, 7):
        read(desk, account, f"2026-03-01T{hour:02}:00:00Z", 1_000, 50_000 + 60 * (hour - 2))
    assert seen(desk) == [("tamper_suspect", 240, None)]


def test_a_closed_exception_begins_anew_where_the_meter_stands(desk: Desk, account: int) -> None:
    read(desk, account, "2026-03-01T03:00:00Z", 1_000, 60_000)
    (found,) = credit_checks.exceptions(desk.conn, all_states=False, limit=9)
    of = {"by": "a", "note": "meter was reset in the workshop", "now_ms": desk.now}
    with pytest.raises(Conflict, match="what was found"):
        credit_checks.close(desk.conn, found.id, **{**of, "note": " "})
    credit_checks.close(desk.conn, found.id, **of)
    read(desk, account, "2026-03-01T04:00:00Z", 2_000, 59_000)
    read(desk, account, "2026-03-01T05:00:00Z", 3_000, 58_000)
    assert seen(desk) == []
    with pytest.raises(Conflict) as caught:
        credit_checks.close(desk.conn, found.id, **of)
    assert caught.value.code == "exception_closed"
    with pytest.raises(NotFound):
        credit_checks.close(desk.conn, found.id + 1, **of)


def test_credit_that_is_no_number_is_kept_and_compared_with_nothing(
    desk: Desk, account: int
) -> None:
    for hour, credit in enumerate(["9", None, 1.5, {"wh": 3}], start=3):
        read(desk, account, f"2026-03-01T{hour:02}:00:00Z", 2_000, credit)
    assert seen(desk) == []
