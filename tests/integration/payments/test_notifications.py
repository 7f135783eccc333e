"""What is said in a channel's name: repeated, out of order, forged, altered, of other money."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from store import suspects

Market = Any


def post(market: Market, method: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    answer = market.client.post(
        f"/v1/payments/{method}/notifications", content=body, headers=headers
    )
    return answer.status_code, answer.json().get("code", "")


def get(market: Market, method: str, query: str) -> tuple[int, str]:
    answer = market.client.get(f"/v1/payments/{method}/notifications?{query}")
    return answer.status_code, answer.json().get("code", "")


@pytest.mark.parametrize("name", ["muamla", "moosyl"])
def test_twenty_deliveries_of_one_payment_at_once_are_one_credit(market: Market, name: str) -> None:
    who = market.customer()
    aggregator = getattr(market, name)
    made = market.started(who, name)
    aggregator.pay(made["id"])
    sent = aggregator.notification(made["id"])
    headers = aggregator.headers(sent)
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: post(market, name, sent, headers)[0], range(20)))
    assert answers == [200] * 20
    assert market.counts() == (1, 1, 0)
    assert market.balance(who) == "50.000000"
    assert market.states(made["id"])[-1] == "paid"
    market.laws_hold()


@pytest.mark.parametrize("code", ["masrvi", "click"])
def test_twenty_unsigned_deliveries_at_once_are_one_credit(market: Market, code: str) -> None:
    who = market.customer()
    wallet = market.wallet if code == "masrvi" else market.silent
    made = market.started(who, code)
    wallet.open_page(made["going_on"])
    wallet.confirm(made["id"])
    (query,) = wallet.notifications(made["id"])
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: get(market, code, query)[0], range(20)))
    assert answers == [200] * 20
    # Several processes sweep at once.
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: market.sweep(), range(4)))
    assert market.counts() == (1, 1, 0)
    assert market.balance(who) == "50.000000"


def test_twenty_confirmations_of_one_payment_at_once_are_one_credit(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "bankily")
    code = market.bank.make_passcode("36000001", "50")
    with ThreadPoolExecutor(20) as threads:
        answers = list(
            threads.map(lambda _: market.confirm(who, made["id"], code).status_code, range(20))
        )
    assert set(answers) == {202}
    assert market.bank.calls["/payment"] == 1
    assert market.counts() == (1, 1, 0)
    assert market.balance(who) == "50.000000"


def test_a_refusal_that_overtakes_or_follows_a_payment_takes_nothing_back(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "muamla")
    market.muamla.pay(made["id"])
    bodies = [
        market.muamla.notification(made["id"], status="failed"),
        market.muamla.notification(made["id"]),
        market.muamla.notification(made["id"], status="pending"),
    ]
    address = market.notifications("muamla")
    # As the seed shuffles them, each three times; then the refusal once more.
    assert set(market.muamla.deliver(address, bodies, copies=3)) == {200}
    market.muamla.deliver(address, bodies[:1])
    assert market.show(who, made["id"])["state"] == "token_issued"
    assert market.counts() == (1, 1, 0)


def test_a_wrong_one_time_password_and_then_the_right_one_is_paid(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "click")
    market.silent.open_page(made["going_on"])
    assert market.silent.confirm(made["id"], right=False) == "AUTHENTICATION"
    market.silent.confirm(made["id"])
    queries = market.silent.notifications(made["id"])
    address = market.notifications("click")
    assert market.silent.notify(address, queries[:1]) == [200]
    assert market.show(who, made["id"])["state"] == "failed"
    # The payment comes after the refusal, and once more the refusal after it.
    market.silent.notify(address, [queries[1], queries[0]])
    assert market.show(who, made["id"])["state"] == "token_issued"
    assert market.counts() == (1, 1, 0)


@pytest.mark.parametrize(
    ("reason", "state"),
    [("CANCEL", "failed"), ("EXPIRED_SESSION", "expired"), ("GREEDY", "failed")],
)
def test_why_a_page_took_no_money_is_kept(market: Market, reason: str, state: str) -> None:
    who = market.customer()
    made = market.started(who, "click")
    market.silent.open_page(made["going_on"])
    market.silent.cancel(made["id"], reason)
    market.silent.notify(market.notifications("click"), market.silent.notifications(made["id"]))
    assert market.show(who, made["id"])["state"] == state
    word = market.one("SELECT word FROM payment_step ORDER BY id DESC LIMIT 1")
    assert word == ("other" if reason == "GREEDY" else reason)


def test_forged_short_and_altered_notifications_are_refused_and_counted(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "muamla")
    market.muamla.pay(made["id"])
    body = market.muamla.notification(made["id"])
    good = market.muamla.headers(body)["x-muamla-signature"]
    name = "x-muamla-signature"
    altered = body.replace(b'"amount": 5000', b'"amount": 9000')
    assert altered != body
    flipped = ("0" if good[0] != "0" else "1") + good[1:]
    cases = [
        (body, {}, "signature_absent"),
        (altered, {name: good}, "signature_wrong"),
        (body + b" ", {name: good}, "signature_wrong"),
        (body, {name: flipped}, "signature_wrong"),
        (body, {name: good[:-2]}, "signature_wrong"),
        (body, {name: ""}, "signature_wrong"),
        (body, {name: good + "00"}, "signature_wrong"),
        (body, {name: "ß" * 64}, "signature_wrong"),
        # Of another aggregator's form.
        (body, {"x-webhook-signature": f"sha256={good}"}, "signature_absent"),
    ]
    for content, headers, code in cases:
        sent = {each: value.encode("latin-1") for each, value in headers.items()}
        assert post(market, "muamla", content, sent) == (401, code), headers
    assert market.refusals() == {
        ("muamla", "signature_absent"): 2,
        ("muamla", "signature_wrong"): 7,
    }
    assert market.counts() == (0, 0, 0)
    assert market.states(made["id"]) == ["started", "pending"]
    # In upper case it is the same signature.
    assert post(market, "muamla", body, {name: good.upper()}) == (200, "")


def test_what_is_signed_and_says_nothing_is_refused_and_counted(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "muamla")
    market.muamla.pay(made["id"])
    whole = market.muamla.notification(made["id"])
    payment = market.muamla.invoices[made["id"]].payment
    cases = [
        (b"", 422, "notification_malformed"),
        (whole[:40], 422, "notification_malformed"),
        (b"[]", 422, "notification_malformed"),
        (b'{"event": "invoice.verified", "data": {}}', 422, "notification_malformed"),
        (whole.replace(b"5000", b"-5000"), 422, "notification_malformed"),
        (whole.replace(b"5000", b"50.5"), 422, "notification_malformed"),
        (whole.replace(b"5000", b"0"), 422, "notification_malformed"),
        (whole.replace(b"5000", b"9" * 30), 422, "notification_malformed"),
        (whole.replace(f'"{payment}"'.encode(), b'""').replace(b'"reference"', b'"r"'), 422,
         "notification_malformed"),
        (whole.replace(made["id"].encode(), b"another").replace(b'"reference"', b'"r"'), 404,
         "not_found"),
    ]  # fmt: skip
    for body, status, code in cases:
        found = post(market, "muamla", body, market.muamla.headers(body))
        assert found == (status, code), body
    assert market.refusals() == {
        ("muamla", "notification_malformed"): 9,
        ("muamla", "not_found"): 1,
    }
    assert market.counts() == (0, 0, 0)
    # An event of no consequence is taken, and changes nothing.
    other = whole.replace(b"invoice.verified", b"invoice.seen").replace(b'"verified"', b'"seen"')
    assert post(market, "muamla", other, market.muamla.headers(other)) == (200, "")
    assert market.counts() == (0, 0, 0)


def test_an_unsigned_notification_counts_from_the_wallets_addresses_alone(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "click")
    market.silent.open_page(made["going_on"])
    market.silent.confirm(made["id"])
    (query,) = market.silent.notifications(made["id"])
    for source in ("10.0.0.1", "::1", "", "not an address", "128.0.0.1"):
        with pytest.raises(Exception, match="address") as refusal:
            market.desk.take_notification("click", source=source, query=query, headers={}, body=b"")
        assert refusal.value.code == "source_refused"
    assert market.refusals() == {("click", "source_refused"): 5}
    assert market.counts() == (0, 0, 0)
    mapped = "::ffff:127.0.0.1"
    market.desk.take_notification("click", source=mapped, query=query, headers={}, body=b"")
    assert market.counts() == (1, 1, 0)


def test_an_unsigned_notification_that_is_short_is_refused(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "click")
    cases = [
        ("", 422),
        ("status=Ok", 422),
        ("status=Ok&purchaseref={ref}", 422),
        ("status=Ok&purchaseref={ref}&paymentref=&amount=5000", 422),
        ("status=Yes&purchaseref={ref}&paymentref=1&amount=5000", 422),
        ("status=Ok&purchaseref={ref}&paymentref=1&amount=-5000", 422),
        ("status=Ok&purchaseref={ref}&paymentref=1&amount=5e3", 422),
        ("status=Ok&purchaseref={ref}&paymentref=1&amount=5000&amount=1", 422),
        ("status=Ok&purchaseref={ref}&paymentref=1&amount=5000" + "&a=1" * 40, 422),
        ("status=Ok&purchaseref=nobody&paymentref=1&amount=5000", 404),
    ]
    for query, status in cases:
        assert get(market, "click", query.format(ref=made["id"]))[0] == status, query
    assert market.counts() == (0, 0, 0)
    assert sum(market.refusals().values()) == len(cases)


def test_a_spoofed_payment_is_not_believed_where_the_wallet_can_be_asked(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "masrvi")
    market.wallet.open_page(made["going_on"])
    query = f"status=Ok&purchaseref={made['id']}&paymentref=1&amount=5000"
    assert get(market, "masrvi", query) == (200, "")
    market.sweep()
    assert market.show(who, made["id"])["state"] == "pending"
    assert market.counts() == (0, 0, 0)


def test_the_bank_with_passcodes_sends_no_notifications(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "bankily")
    query = f"status=Ok&purchaseref={made['id']}&paymentref=1&amount=5000"
    assert get(market, "bankily", query) == (401, "no_notifications")
    assert get(market, "nobody", query) == (404, "not_found")
    assert get(market, "till", query) == (404, "not_found")
    assert market.refusals() == {("bankily", "no_notifications"): 1}


@pytest.mark.parametrize("told", [9000, 4999])
def test_another_amount_waits_for_a_person(market: Market, told: int) -> None:
    who = market.customer()
    made = market.started(who, "muamla")
    market.muamla.pay(made["id"], amount=told)
    market.muamla.deliver(market.notifications("muamla"), [market.muamla.notification(made["id"])])
    shown = market.show(who, made["id"])
    assert (shown["state"], shown["states"][-1]["owner"]) == ("suspect", "utility")
    assert market.counts() == (0, 0, 1)
    row = market.conn.execute(
        "SELECT suspicion, amount_micro, decision, meter FROM suspect_payment"
    ).fetchone()
    assert row == ("amount_differs", told * 10_000, None, who.meter)
    assert market.balance(who) == "0.000000"
    market.laws_hold()
    (waits,) = suspects.waiting(market.conn, limit=10)
    of = {"who": "vera", "reason": "the payer was asked", "now_ms": market.clock.now + 1}
    if told == 9000:
        ears = market.ears
        suspects.credit(market.conn, ears.terms, ears.module, waits.id, meter=who.meter, **of)
        assert market.balance(who) == "90.000000"
    else:
        suspects.send_back(market.conn, waits.id, **of)
    shown = market.show(who, made["id"])
    reached = [each["state"] for each in shown["states"]]
    then = ["credited", "token_issued"] if told == 9000 else ["reversed"]
    assert reached == ["started", "pending", "received", "suspect", *then]
    assert shown["state"] == then[-1]
    # Decided either way, it holds nothing back any more.
    assert market.one("SELECT count(*) FROM unsettled_payment WHERE settled_ms IS NULL") == 0


def test_a_wallet_that_names_no_amount_waits_for_a_person(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "click")
    query = f"status=Ok&purchaseref={made['id']}&paymentref=77"
    assert get(market, "click", query) == (200, "")
    assert market.show(who, made["id"])["state"] == "suspect"
    assert market.counts() == (0, 0, 1)


def test_money_that_comes_twice_for_one_order_waits_for_a_person(market: Market) -> None:
    who = market.customer()
    made = market.started(who, "click")
    market.silent.open_page(made["going_on"])
    market.silent.confirm(made["id"])
    market.silent.confirm(made["id"])
    queries = market.silent.notifications(made["id"])
    market.silent.notify(market.notifications("click"), queries * 2)
    assert market.counts() == (1, 1, 1)
    assert market.one("SELECT suspicion FROM suspect_payment") == "paid_twice"
    assert market.balance(who) == "50.000000"
    assert market.show(who, made["id"])["state"] == "token_issued"
    market.laws_hold()
    # Its number is taken: it does not pay for another order, either.
    thief = market.customer()
    unpaid = market.started(thief, "click")
    second = queries[1].replace(made["id"], unpaid["id"])
    assert get(market, "click", second) == (409, "reference_reused")
    assert market.show(thief, unpaid["id"])["state"] == "pending"


def test_a_payment_number_of_another_order_credits_nobody(market: Market) -> None:
    who, thief = market.customer(), market.customer()
    paid, unpaid = market.started(who, "click"), market.started(thief, "click")
    right = f"status=Ok&purchaseref={paid['id']}&paymentref=77&amount=5000"
    wrong = f"status=Ok&purchaseref={unpaid['id']}&paymentref=77&amount=5000"
    assert get(market, "click", right) == (200, "")
    assert get(market, "click", wrong) == (409, "reference_reused")
    assert market.counts() == (1, 1, 0)
    assert market.refusals() == {("click", "reference_reused"): 1}
    assert market.show(thief, unpaid["id"])["state"] == "pending"
