"""A customer pays by each method, and sees where the money is at each step."""

import hashlib
import hmac
from dataclasses import replace
from typing import Any

import pytest

from schemas.quantities import parse_instant_ms
from store import grants
from store.contacts import Actor

Market = Any
OPENED = parse_instant_ms("2026-03-01T00:00:00Z")


def reached(top_up: Any) -> list[str]:
    return [each["state"] for each in top_up["states"]]


def test_a_passcode_payment_is_credited_while_the_payer_waits(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "bankily", "50.25")
    assert made["going_on"] == {
        "kind": "passcode", "merchant": "012345", "amount": "50.25",
        "url": None, "method": None, "fields": {},
    }  # fmt: skip
    assert (made["state"], made["states"][0]["owner"]) == ("started", "customer")
    code = market.bank.make_passcode("36000001", "50.25")
    # Digits of the payer's own keyboard, and the number as people write it.
    arabic = code.translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩"))
    paid = market.confirm(who, made["id"], arabic, "+222 36 00 00 01").json()
    assert paid["state"] == "token_issued"
    assert reached(paid) == ["started", "pending", "received", "credited", "token_issued"]
    owners = [each["owner"] for each in paid["states"]]
    assert owners == ["customer", "channel", "utility", "utility", "utility"]
    assert paid["energy_wh"] == 10_000
    assert len(paid["tokens"]) == 1
    assert paid["receipt_number"]
    assert market.balance(who) == "50.250000"
    assert market.counts() == (1, 1, 0)
    reference = market.one("SELECT partner_txn_id FROM top_up")
    assert reference == market.bank.operations[made["id"]].transaction
    assert market.one("SELECT msisdn FROM top_up") == "+22236000001"
    market.laws_hold()


def test_a_page_is_gone_on_with_and_credited_when_the_wallet_is_asked(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "masrvi", phone="36000001")
    assert (made["state"], made["states"][-1]["owner"]) == ("pending", "customer")
    assert made["going_on"]["fields"]["amount"] == "5000"
    assert made["going_on"]["fields"]["currency"] == "929"
    assert market.wallet.open_page(made["going_on"]) == "OK"
    market.wallet.confirm(made["id"])
    # The browser comes back first; what it says is no word of a payment.
    back = market.client.get(made["going_on"]["fields"]["accepturl"])
    assert back.json() == {"top_up": made["id"], "state": "pending"}
    assert market.counts() == (0, 0, 0)
    assert market.wallet.notify(
        market.notifications("masrvi"), market.wallet.notifications(made["id"])
    ) == [200]
    assert market.counts() == (0, 0, 0)
    market.sweep()
    assert market.show(who, made["id"])["state"] == "token_issued"
    assert market.counts() == (1, 1, 0)
    market.laws_hold()


def test_a_wallet_that_cannot_be_asked_is_believed_from_its_addresses(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "click")
    market.silent.open_page(made["going_on"])
    market.silent.confirm(made["id"])
    sent = market.silent.notifications(made["id"])
    assert market.silent.notify(market.notifications("click"), sent * 2) == [200, 200]
    assert market.show(who, made["id"])["state"] == "token_issued"
    assert market.counts() == (1, 1, 0)


@pytest.mark.parametrize("name", ["muamla", "moosyl"])
def test_an_invoice_is_credited_by_a_signed_notification(market: Market, name: str) -> None:
    who = market.customer()
    aggregator = getattr(market, name)
    made = market.started(who, name)
    assert made["going_on"]["url"].startswith(aggregator.url)
    aggregator.pay(made["id"])
    sent = [aggregator.notification(made["id"])]
    assert aggregator.deliver(market.notifications(name), sent) == [200]
    shown = market.show(who, made["id"])
    assert reached(shown) == ["started", "pending", "received", "credited", "token_issued"]
    assert market.counts() == (1, 1, 0)
    market.laws_hold()


def test_cash_is_counted_in_coins_at_a_desk_alone(market: Market) -> None:
    who = market.customer()
    refused = market.start(who, "till", "50.13")
    assert (refused.status_code, refused.json()["code"]) == (403, "cash_refused")
    paid = market.started(who, "till", "50.13", headers=market.clerk, key="receipt-1")
    assert paid["lines"][-1] == {
        "name": "cash_rounding", "amount": "0.070000", "wh": None, "price": None,
    }  # fmt: skip
    assert market.balance(who) == "50.130000"
    again = market.started(who, "till", "50.13", headers=market.clerk, key="receipt-1")
    assert again["id"] == paid["id"]
    wrong = market.start(who, "till", "50.13", headers=market.clerk, counted="50.00")
    assert (wrong.status_code, wrong.json()["code"]) == (409, "cash_miscounted")
    assert market.counts()[0] == 1
    assert market.one("SELECT count(*) FROM payment_attempt") == 1
    market.laws_hold()


def test_the_list_shows_attempts_and_what_came_by_other_ways_newest_first(market: Market) -> None:
    who, other = market.customer(), market.customer()
    first = market.pay_by_bank(who)
    market.clock.advance(1)
    till = market.started(who, "till", headers=market.clerk)
    market.clock.advance(1)
    begun = market.started(who, "masrvi")
    market.pay_by_bank(other)
    path = f"/v1/accounts/{who.number}/top-ups"
    page = market.client.get(path, headers=who.headers, params={"limit": 2}).json()
    assert [each["id"] for each in page["items"]] == [begun["id"], till["id"]]
    rest = market.client.get(
        path, headers=who.headers, params={"limit": 2, "cursor": page["next_cursor"]}
    ).json()
    assert [each["id"] for each in rest["items"]] == [first["id"]]
    # By the number that the desk knows it by, too.
    assert market.show(who, first["top_up"])["receipt_number"] == first["receipt_number"]
    methods = market.client.get("/v1/payment-methods", headers=who.headers).json()["items"]
    assert [each["code"] for each in methods] == ["bankily", "masrvi", "click", "muamla", "moosyl"]
    assert market.client.get("/v1/payment-methods", headers=market.clerk).json()["items"][-1] == {
        "code": "till", "name": "Cash", "kind": "cash",
    }  # fmt: skip
    channels = market.client.get("/readyz").json()["payment_channels"]
    assert channels[-1] == {"code": "till", "kind": "cash"}
    assert [each["code"] for each in channels[:-1]] == [each["code"] for each in methods]


def test_the_same_key_is_the_same_payment_and_another_body_a_conflict(market: Market) -> None:
    who = market.customer()
    first = market.started(who, "bankily", key="k")
    assert market.started(who, "bankily", key="k")["id"] == first["id"]
    changed = market.start(who, "bankily", "60.00", key="k")
    assert (changed.status_code, changed.json()["code"]) == (409, "idempotency_conflict")
    # Keys are each caller's own.
    assert market.started(who, "bankily", key="k", headers=market.clerk)["id"] != first["id"]
    assert market.one("SELECT count(*) FROM payment_attempt") == 2
    bare = market.client.post(
        f"/v1/accounts/{who.number}/top-ups", headers=who.headers,
        json={"method": "bankily", "amount": "50.00"},
    )  # fmt: skip
    assert bare.status_code == 422


def test_what_cannot_be_paid_is_refused_before_anybody_is_asked(market: Market) -> None:
    who = market.customer()
    cases = [
        ({"method": "nobody"}, 422, "method_unknown"),
        ({"amount": "0.50"}, 422, "amount_below_minimum"),
        ({"amount": "50.001"}, 422, "amount_too_precise"),
        ({"currency": "EUR"}, 422, "currency_mismatch"),
        ({"phone": "12"}, 422, "bad_phone"),
        ({"phone": "25000000"}, 422, "phone_not_mobile"),
        ({"counted": "50.00"}, 422, "counted_refused"),
        ({"color": "red"}, 422, "invalid_request"),
    ]
    for change, status, code in cases:
        answer = market.start(who, **{"method": "bankily", "amount": "50.00", **change})
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert market.one("SELECT count(*) FROM payment_attempt") == 0
    assert market.bank.calls == {}


def test_an_amount_that_is_unusual_is_asked_about_once(market: Market) -> None:
    who = market.customer()
    for _ in range(3):
        market.pay_by_bank(who, "10.00")
        market.clock.advance(3600)
    refused = market.start(who, "bankily", "100.00")
    assert (refused.status_code, refused.json()["code"]) == (409, "unusual_amount")
    paid = market.pay_by_bank(who, "100.00", unusual_confirmed=True)
    # What the payer confirmed does not wait for a person.
    assert paid["state"] == "token_issued"
    assert market.counts() == (4, 4, 0)


def test_an_account_without_end_of_starts_is_told_to_wait(market: Market) -> None:
    who = market.customer()
    answers = [market.start(who, "bankily").status_code for _ in range(31)]
    assert answers == [202] * 30 + [429]


def test_another_customers_payment_looks_like_none(market: Market) -> None:
    who, other = market.customer(), market.customer()
    made = market.started(who, "bankily")
    path = f"/v1/accounts/{other.number}/top-ups/{made['id']}"
    assert market.client.get(path, headers=other.headers).status_code == 404
    assert market.confirm(other, made["id"], "1234").status_code == 404
    theirs = f"/v1/accounts/{who.number}/top-ups"
    body = {"method": "bankily", "amount": "50.00"}
    keyed = {**other.headers, "Idempotency-Key": "k"}
    assert market.client.post(theirs, headers=keyed, json=body).status_code == 404
    assert market.bank.calls == {}


def test_a_confirmation_counts_once_under_its_key_and_another_passcode_is_a_conflict(
    market: Market,
) -> None:
    who = market.customer()
    made = market.started(who, "bankily")
    code = market.bank.make_passcode("36000001", "50.00")
    first = market.confirm(who, made["id"], code, key="k")
    assert first.json()["state"] == "token_issued"
    assert market.confirm(who, made["id"], code, key="k").json() == first.json()
    other = market.confirm(who, made["id"], code + "1", key="k")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    bare = market.client.post(
        f"/v1/accounts/{who.number}/top-ups/{made['id']}/confirmation", headers=who.headers,
        json={"phone": "36000001", "passcode": code},
    )  # fmt: skip
    assert bare.status_code == 422
    assert market.bank.calls["/payment"] == 1
    assert market.counts() == (1, 1, 0)


def test_a_refused_confirmation_leaves_its_key_free(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "bankily")
    market.clock.advance(24 * 3600)
    for _ in range(2):
        late = market.confirm(who, made["id"], "1234", key="k")
        assert (late.status_code, late.json()["code"]) == (409, "payment_over")
    assert market.one("SELECT count(*) FROM customer_answer") == 0


def test_who_reads_the_table_of_keys_does_not_find_a_passcode_by_trying(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "bankily")
    path = f"/v1/accounts/{who.number}/top-ups/{made['id']}/confirmation"
    market.confirm(who, made["id"], "1234", key="k")
    kept = bytes(market.one("SELECT request_sha256 FROM customer_answer"))
    asked = f'POST\0{path}\0{{"passcode":"1234","phone":"36000001"}}'.encode()
    tried = hashlib.sha256(asked).digest()
    access_key = who.headers["Authorization"].removeprefix("Bearer ").encode()
    # The trial is of the right form: only the caller's own key is missing to it.
    assert kept == hmac.digest(access_key, tried, "sha256") != tried


def payer_of(market: Market, who: Any) -> Any:
    """Somebody else who may pay for an account and see nothing of it."""
    by = Actor("clerk", is_operator=True, place="north")
    grants.give(market.conn, who.account_id, "+22236000009", "payer", by=by, now_ms=OPENED)
    market.client.post("/v1/auth/otp", json={"phone": "36000009"})
    body = {"phone": "36000009", "code": market.one("SELECT code FROM code_message")}
    session = market.client.post("/v1/auth/otp/verify", json=body).json()["session"]
    return replace(who, headers={"Authorization": f"Bearer {session}"})


def test_who_may_pay_and_not_see_neither_sees_nor_confirms_the_holders_payment(
    market: Market,
) -> None:
    who = market.customer()
    payer = payer_of(market, who)
    made = market.started(who, "bankily")
    path = f"/v1/accounts/{who.number}/top-ups/{made['id']}"
    code = market.bank.make_passcode("36000001", "50.00")
    assert market.client.get(path, headers=payer.headers).status_code == 404
    assert market.confirm(payer, made["id"], code).status_code == 404
    assert market.counts() == (0, 0, 0)
    assert market.confirm(who, made["id"], code).json()["state"] == "token_issued"


def test_each_number_of_a_payment_shows_the_same_to_all_who_may_see_it(market: Market) -> None:
    who = market.customer()
    payer = payer_of(market, who)
    own = market.pay_by_bank(payer)
    for each in (who, payer):
        assert market.show(each, own["id"]) == market.show(each, own["top_up"]) == own
    market.clock.advance(3600)
    theirs = market.pay_by_bank(who, "60.00")
    for number in (theirs["id"], theirs["top_up"]):
        path = f"/v1/accounts/{who.number}/top-ups/{number}"
        assert market.client.get(path, headers=payer.headers).status_code == 404


def test_a_page_is_not_confirmed_here_and_a_passcode_is_digits(market: Market) -> None:
    who = market.customer()
    page = market.started(who, "masrvi")
    answer = market.confirm(who, page["id"], "1234")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_confirmed_here")
    made = market.started(who, "bankily")
    answer = market.confirm(who, made["id"], "secret-word")
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_passcode")
    assert "secret-word" not in answer.text
    short = market.confirm(who, made["id"], "123")
    assert short.status_code == 422
    assert "123" not in short.json()["detail"] + str(short.json()["errors"])
