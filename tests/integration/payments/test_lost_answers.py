"""Answers that are lost, payments that are late, sessions that end: unknown is not failed."""

from typing import Any

import pytest

from payments.simulated.channel import Plan

Market = Any


@pytest.mark.parametrize("reply", ["cut", "half", "error"])
def test_whatever_the_bank_does_and_answers_money_and_books_agree(
    market: Market, reply: Any
) -> None:
    ends = {
        "paid": "token_issued", "late_paid": "token_issued", "late_failed": "failed",
        "refused": "unknown", "nothing": "unknown",
    }  # fmt: skip
    made = {}
    for deed in ends:
        who = market.customer()
        market.bank.mischief.next_plans.append(Plan(deed, reply))  # type: ignore[arg-type] # a key
        told = market.pay_by_bank(who)
        # Nobody answered: it may have been paid, and nobody says that it failed.
        assert told["state"] == "unknown"
        made[deed] = who, told["id"]
    assert market.counts() == (0, 0, 0)
    market.sweep(after_s=70, rounds=6)
    for deed, (who, attempt) in made.items():
        assert market.show(who, attempt)["state"] == ends[deed]
        taken = attempt in market.bank.taken
        assert taken == (deed in {"paid", "late_paid"})
        assert market.balance(who) == ("50.000000" if taken else "0.000000")
    assert market.counts() == (2, 2, 0)
    # Each passcode went out once.
    assert market.bank.calls["/payment"] == len(ends)
    market.laws_hold()


def test_a_payment_under_way_is_asked_about_by_the_schedule(market: Market) -> None:
    who = market.customer()
    market.bank.mischief.next_plans.append(Plan("late_paid", late_checks=4))
    paid = market.pay_by_bank(who)
    assert paid["state"] == "pending"
    asked = []
    for second in range(1, 91):
        before = market.bank.calls["/checkTransaction"]
        market.sweep(after_s=1)
        if market.bank.calls["/checkTransaction"] > before:
            asked.append(second)
    assert asked == [5, 15, 30, 60]
    assert market.show(who, paid["id"])["state"] == "token_issued"


def test_what_the_bank_refuses_and_does_not_know_has_failed(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "bankily")
    right = market.bank.make_passcode("36000001", "50")
    wrong = f"{(int(right) + 1) % 10_000:04d}"
    told = market.confirm(who, made["id"], wrong).json()
    assert (told["state"], told["states"][-1]["owner"]) == ("failed", None)
    # It is over; the passcode of the app is still good for another one.
    over = market.confirm(who, made["id"], right)
    assert (over.status_code, over.json()["code"]) == (409, "payment_over")
    assert market.bank.taken == {}


def test_a_bank_that_is_not_there_took_nothing(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "bankily")
    market.bank.__exit__()
    try:
        told = market.confirm(who, made["id"], "1234").json()
        assert told["state"] == "failed"
    finally:
        # Its context ends it once more.
        market.bank.__enter__ = None
        market.bank._server.shutdown = lambda: None
        market.bank._thread.join = lambda: None


@pytest.mark.parametrize("renewals", [False, True])
def test_a_provider_session_that_ended_is_renewed_under_the_payment(
    market: Market, renewals: bool
) -> None:
    who = market.customer()
    market.pay_by_bank(who)
    market.clock.advance(3600)
    opened = market.bank.sessions_opened
    market.bank.end_sessions(renewals=renewals)
    assert market.pay_by_bank(who)["state"] == "token_issued"
    assert market.bank.sessions_opened == opened + 1
    assert market.counts() == (2, 2, 0)
    # The operation was asked for within one session and, when that had ended, within the next.
    assert market.bank.calls["/payment"] == 3


def test_a_confirmation_twice_takes_the_money_once(market: Market) -> None:
    who = market.customer()
    market.bank.mischief.next_plans.append(Plan("late_paid"))
    paid = market.pay_by_bank(who)
    again = market.confirm(who, paid["id"], market.bank.make_passcode("36000001", "50"))
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    assert market.bank.calls["/payment"] == 1


def test_nobody_confirms_and_the_attempt_is_over_before_money_moved(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "bankily")
    market.sweep(after_s=14 * 60)
    assert market.show(who, made["id"])["state"] == "started"
    market.sweep(after_s=61)
    assert market.show(who, made["id"])["state"] == "expired"
    late = market.confirm(who, made["id"], "1234")
    assert (late.status_code, late.json()["code"]) == (409, "payment_over")
    assert market.bank.calls == {}


def test_after_a_day_a_person_decides_what_nobody_knows(market: Market) -> None:
    who = market.customer()
    market.bank.mischief.next_plans.append(Plan("nothing", "cut"))
    lost = market.pay_by_bank(who)
    market.sweep(after_s=900, rounds=99)
    shown = market.show(who, lost["id"])
    assert (shown["state"], shown["states"][-1]["owner"]) == ("unknown", "utility")
    checks = market.bank.calls["/checkTransaction"]
    market.sweep(after_s=3600, rounds=5)
    assert market.bank.calls["/checkTransaction"] == checks


def test_a_page_left_alone_is_never_begun_or_unknown(market: Market) -> None:
    who = market.customer()
    asked, silent = market.started(who, "masrvi"), market.started(who, "click")
    begun = market.started(who, "click")
    market.silent.open_page(begun["going_on"])
    market.sweep(after_s=60, rounds=4)
    assert market.show(who, asked["id"])["state"] == "pending"
    market.sweep(after_s=300, rounds=5)
    # The wallet that can be asked knows of no order; the other says nothing, which is no word.
    assert market.show(who, asked["id"])["state"] == "expired"
    assert market.show(who, silent["id"])["state"] == "unknown"
    assert market.show(who, begun["id"])["state"] == "unknown"
    # And its word is money, however late it comes.
    market.silent.confirm(begun["id"])
    market.silent.notify(market.notifications("click"), market.silent.notifications(begun["id"]))
    assert market.show(who, begun["id"])["state"] == "token_issued"
    assert market.counts() == (1, 1, 0)


def test_a_wallets_session_ends_and_the_page_says_so(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "masrvi")
    market.clock.advance(301)
    assert market.wallet.open_page(made["going_on"]) == "EXPIRED_SESSION"


@pytest.mark.parametrize("name", ["muamla", "moosyl"])
def test_an_invoice_whose_answer_was_lost_is_made_again_as_the_same(
    market: Market, name: str
) -> None:
    who = market.customer()
    aggregator = getattr(market, name)
    aggregator.mischief.next_plans.append(Plan("paid", "cut"))
    made = market.started(who, name)
    assert (made["state"], made["going_on"]) == ("started", None)
    market.sweep(after_s=6)
    shown = market.show(who, made["id"])
    assert shown["state"] == "pending"
    assert shown["going_on"]["url"].endswith(aggregator.invoices[made["id"]].reference)
    assert len(aggregator.invoices) == 1


def test_an_invoice_is_asked_about_where_its_notification_is_lost(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "muamla")
    market.muamla.pay(made["id"])
    market.sweep(after_s=6)
    assert market.show(who, made["id"])["state"] == "token_issued"
    other = market.started(who, "muamla", "20.00")
    market.muamla.fail(other["id"], "expired")
    market.sweep(after_s=6)
    assert market.show(who, other["id"])["state"] == "expired"
    assert market.counts() == (1, 1, 0)


def test_a_desk_that_is_full_asks_nothing_and_says_when_to_come_again(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "bankily")
    code = market.bank.make_passcode("36000001", "50")
    taken = 0
    while market.desk._room.acquire(blocking=False):
        taken += 1
    full = market.confirm(who, made["id"], code)
    assert (full.status_code, full.headers["retry-after"]) == (429, "5")
    # What begins is recorded all the same, and gone on with later.
    page = market.started(who, "masrvi")
    assert (page["state"], page["going_on"]) == ("started", None)
    for _ in range(taken):
        market.desk._room.release()
    assert market.bank.calls == {}
    assert market.confirm(who, made["id"], code).json()["state"] == "token_issued"
    market.sweep(after_s=6)
    assert market.show(who, page["id"])["state"] == "pending"
