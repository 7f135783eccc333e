"""The audit proves its laws on a database with everything that operators enter."""

from datetime import date
from typing import Any

from store import adjustments, holds, tariffs, unsettled
from store.audit import audit

Desk = Any


def test_the_audit_passes_with_holds_adjustments_and_assignments(desk: Desk) -> None:
    account, held = desk.open(desk.tariff()), desk.open()
    code = desk.conn.execute(
        "SELECT code FROM tariff WHERE id = %s", (desk.tariff(price="1", standing="2"),)
    ).fetchone()[0]
    tariffs.assign(desk.conn, account, code, date(2026, 3, 2), who="a", reason="r", now_ms=desk.now)
    holds.place(
        desk.conn, held, kind="medical", from_ms=desk.now, until_ms=None, who="a", reason="r",
        now_ms=desk.now,
    )  # fmt: skip
    for each in (account, held):
        desk.pay(each, 5, "2026-03-01T01:00:00Z", f"p{each}")
        desk.read(each, "2026-03-01T20:00:00Z", 4_000)
        adjustments.enter(
            desk.conn, desk.terms, adjustment=f"k{each}", account_id=each, amount_micro=-10**6,
            reason="r", who="a", now_ms=desk.now,
        )  # fmt: skip
        desk.read(each, "2026-03-02T20:00:00Z", 5_000)
        desk.read(each, "2026-03-01T12:00:00Z", 3_000)
    assert desk.orders(held) == []
    failed = [check for check in audit(desk.conn, lambda _: None) if not check.passed]
    assert failed == []


def test_the_audit_passes_while_a_cut_waits_for_a_payment(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    unsettled.note(
        desk.conn, account, "wallet", "w-1", "pending", amount_micro=5, received_ms=desk.now
    )
    desk.read(account, "2026-03-01T02:00:00Z", 8_000)
    # The schedule asks the guard again, sooner than anything of the account changes.
    assert desk.orders(account) == []
    assert [check.name for check in audit(desk.conn) if not check.passed] == []
