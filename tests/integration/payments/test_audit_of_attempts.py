"""`prepaid audit` sees what is wrong with attempts; and their steps are never edited."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from store.audit import DATABASE_LAWS, audit
from store.sql import query

Market = Any

DAMAGES = {
    "another number of the payment": "UPDATE payment_attempt SET provider_reference = 'x' "
    "WHERE top_up_id IS NOT NULL",
    "another amount": "UPDATE payment_attempt SET told_micro = 1 WHERE top_up_id IS NOT NULL",
    "another method": "UPDATE payment_attempt SET method = 'click' WHERE top_up_id IS NOT NULL",
    "held under another amount": "UPDATE payment_attempt SET told_micro = NULL "
    "WHERE suspect_id IS NOT NULL",
    "a state that nobody brought": "UPDATE payment_attempt SET state = 'failed' "
    "WHERE state = 'started'",
    "received and credited": "UPDATE payment_attempt SET state = 'received', top_up_id = NULL "
    "WHERE top_up_id IS NOT NULL; ALTER TABLE payment_step DISABLE TRIGGER USER; "
    "UPDATE payment_step SET state = 'received' WHERE state = 'paid'",
    "steps that may be edited": "ALTER TABLE payment_step DISABLE TRIGGER USER",
}


def broken(market: Market) -> set[str]:
    return {check.name for check in audit(market.conn) if not check.passed}


def test_the_audit_sees_each_damage(market: Market, as_owner: Callable[[str], str]) -> None:
    who = market.customer()
    market.pay_by_bank(who)
    market.started(who, "bankily", "20.00")
    other = market.started(who, "moosyl", "30.00")
    market.moosyl.pay(other["id"], amount=2_000)
    sent = market.moosyl.notification(other["id"])
    market.moosyl.deliver(market.notifications("moosyl"), [sent])
    assert market.counts() == (1, 1, 1)
    assert broken(market) == set()
    with psycopg.connect(as_owner(market.url), autocommit=False) as owner:
        for name, damage in DAMAGES.items():
            owner.execute(damage)  # type: ignore[arg-type] # of this file's own
            found = broken_within(owner)
            law = "append_only_in_force" if "edited" in name else "attempts_accounted"
            assert law in found, name
            owner.rollback()
    assert broken(market) == set()


def broken_within(owner: Any) -> set[str]:
    """The laws about the whole database that are broken in the transaction of the damage."""
    of = {"limit": 10, "skew_ms": 0}
    return {
        law.name
        for law in DATABASE_LAWS
        if owner.execute(query(law.broken_by), of).fetchone() is not None
    }


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE payment_step SET state = 'failed'",
        "DELETE FROM payment_step",
        "TRUNCATE payment_step CASCADE",
        "DELETE FROM payment_attempt",
        "UPDATE payment_attempt SET amount_micro = 1",
        "UPDATE payment_attempt SET account_id = account_id",
        "UPDATE payment_attempt SET method = 'x'",
    ],
)
def test_what_is_recorded_of_a_payment_stays(database_url: str, change: str) -> None:
    with (
        psycopg.connect(database_url, autocommit=True) as conn,
        pytest.raises(psycopg.Error) as refusal,
    ):
        conn.execute(change)  # type: ignore[arg-type] # of this test's own
    assert refusal.value.sqlstate in {"42501", "23001", "P0001"}
