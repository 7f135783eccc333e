"""Passcodes and secrets stand in no log, no answer and no table."""

import json
from typing import Any

import pytest

from payments.bpay import BPay
from payments.port import Confirmation
from payments.simulated.channel import Plan

Market = Any


def kept(market: Market) -> str:
    """Every row of every table of ours, as text."""
    names = market.conn.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    ).fetchall()
    rows = []
    for (name,) in names:
        rows += market.conn.execute(f'SELECT row_to_json(t)::text FROM "{name}" t').fetchall()
    return "\n".join(row[0] for row in rows)


def test_nothing_that_is_secret_is_logged_answered_or_kept(
    open_market: Any, spoken: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with open_market() as market:
        who = market.customer()
        secrets: list[str] = [
            market.bank.password,
            market.muamla.access_key,
            market.muamla.signing_key,
            market.moosyl.signing_key,
        ]
        answers = []
        plans = [
            Plan(), Plan("refused"), Plan("late_paid"), Plan("paid", "cut"), Plan("paid", "error"),
            Plan("nothing", "cut"),
        ]  # fmt: skip
        for plan in plans:
            market.bank.mischief.next_plans.append(plan)
            made = market.started(who, "bankily")
            passcode = market.bank.make_passcode("36000001", "50", digits=12)
            secrets.append(passcode)
            answers.append(market.confirm(who, made["id"], passcode).text)
            answers.append(market.confirm(who, made["id"], passcode + "x").text)
            market.clock.advance(700)
        secrets += [*market.bank._sessions, *market.bank._renewals]
        pages = ("masrvi", "click", "muamla", "moosyl")
        answers += [json.dumps(market.started(who, name)) for name in pages]
        market.client.post(market.notifications("muamla"), content=b"{}")
        market.sweep(after_s=70, rounds=2)
        stored = kept(market)
    said = "\n".join([*spoken, *(record.getMessage() for record in caplog.records)])
    # The watch sees what is logged at all, from our words to the lowest of the client's.
    assert "payment_heard" in said
    assert "httpcore" in {record.name.split(".")[0] for record in caplog.records}
    assert len(set(secrets)) >= 10
    for secret in secrets:
        assert len(secret) >= 12
        assert secret not in said
        assert secret not in "\n".join(answers)
        assert secret not in stored


def test_a_defect_in_a_connector_is_logged_without_the_passcode(
    open_market: Any, spoken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: BPay, attempt: Any, given: Confirmation) -> Any:
        form = {"passcode": given.passcode.get_secret_value()}
        raise RuntimeError(f"defect in {sorted(form)}")

    monkeypatch.setattr(BPay, "confirm", broken)
    with open_market() as market:
        who = market.customer()
        made = market.started(who, "bankily")
        passcode = market.bank.make_passcode("36000001", "50", digits=12)
        answer = market.confirm(who, made["id"], passcode)
        assert answer.status_code == 500
        # It was to be asked: so it is asked about, and told as what it is.
        assert market.show(who, made["id"])["state"] == "pending"
    said = "\n".join(spoken)
    assert "payment_call_failed" in said
    assert passcode not in said
    assert passcode not in answer.text
