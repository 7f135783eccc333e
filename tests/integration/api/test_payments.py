from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from store import supply
from store.clockwork import settle_due
from tokens.credit import credit_of
from tokens.keys import VendingKey
from tokens.security_module import SoftwareSecurityModule

Site = Any

CHANGES = frozenset({"state", "states", "steps", "waits_for", "as_of"})


def without_state(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in CHANGES}


def test_a_payment_is_credited_with_its_lines_and_a_token_of_its_energy(site: Site) -> None:
    customer = site.open(
        debt={"outstanding": "300.00", "rules": [{"kind": "payment_share", "percent": "20"}]}
    )
    site.clock.set("2026-03-01T09:00:00Z")
    response = site.pay(customer, "200.00", "t1")
    assert response.status_code == 201
    paid = response.json()
    # A fifth goes to debt; 160.00 buys 56.0 kWh at 2.459 with 16 %: 159.73664.
    assert paid["energy_wh"] == 56_000
    assert paid["lines"] == [
        {"name": "debt", "amount": "40.000000", "wh": None, "price": None},
        {"name": "owed", "amount": "0.000000", "wh": None, "price": None},
        {"name": "energy", "amount": "137.704000", "wh": 56_000, "price": "2.459000"},
        {"name": "vat", "amount": "22.032640", "wh": None, "price": None},
        {"name": "change", "amount": "0.263360", "wh": None, "price": None},
    ]
    (digits,) = paid["tokens"]
    module = SoftwareSecurityModule({("123456", 1): VendingKey(bytes(range(20)))})
    report = site.client.get(f"/v1/meters/{customer.meter}", headers=site.operator).json()
    attributes = site.attributes()
    token = module.verify(report["sts"]["meter_pan"], attributes, digits)
    assert credit_of(token).amount == 560
    assert site.get(customer, "/balance")["balance"]["amount"] == "160.000000"
    assert site.get(customer, "/balance")["debt"]["amount"] == "260.000000"
    assert [state["state"] for state in paid["states"]] == ["received", "credited", "token_issued"]
    assert paid["receipt_number"]


def test_a_repeat_is_given_the_first_answer_with_the_state_of_now(site: Site) -> None:
    customer = site.open()
    site.clock.set("2026-03-01T09:00:00Z")
    first = site.pay(customer, "200.00", "t1")
    queued = [command for _, _, command in supply.queued_commands(site.conn, 10)]
    (carrier,) = [command for command in queued if command.type == "token"]
    supply.mark_sent(site.conn, [carrier.cmd], site.clock.now)
    word = {
        "format": True,
        "authentication": True,
        "validation": True,
        "execution": True,
        "result": "Accept",
    }
    ack = {
        "v": 1,
        "cmd": carrier.cmd,
        "state": "done",
        "relay": "closed",
        "token": word,
        "ts": "2026-03-01T09:00:05Z",
    }
    site.say(customer.meter, "ack", ack)
    # The same request in other digits and with other blanks.
    again = site.pay(customer, "٢٠٠٫٠٠", "t1")
    shown = site.signed("GET", "/payments/t1")
    assert again.status_code == 201
    assert without_state(again.json()) == without_state(first.json())
    assert again.json() == shown.json()
    assert shown.json()["state"] == "on_supply"
    (token,) = site.get(customer, "/tokens")["items"]
    assert (token["state"], token["result"]) == ("accepted", "Accept")
    assert token["digits"] == first.json()["tokens"][0]
    assert token["energy_wh"] == first.json()["energy_wh"]
    (top_up,) = site.get(customer, "/top-ups")["items"]
    assert [each["state"] for each in top_up["states"]] == [
        "received",
        "credited",
        "token_issued",
        "delivered",
        "accepted",
        "on_supply",
    ]
    assert site.get(customer, f"/top-ups/{top_up['id']}") == top_up


@pytest.mark.parametrize(
    "change",
    [
        {"amount": "200.01"},
        {"paid_at": "2026-03-01T09:00:01Z"},
        {"msisdn": "+22236000000"},
        {"currency": "MRU"},
    ],
)
def test_the_same_number_with_another_content_is_a_conflict(
    site: Site, refused: Any, change: dict[str, str]
) -> None:
    customer = site.open()
    assert site.pay(customer, "200.00", "t1").status_code == 201
    body = {"amount": "200.00", **change}
    response = site.pay(customer, body.pop("amount"), "t1", **body)
    assert refused(response) == (409, "idempotency_conflict")
    assert len(site.get(customer, "/top-ups")["items"]) == 1


def test_the_same_number_for_another_meter_is_a_conflict(site: Site, refused: Any) -> None:
    customer, other = site.open(), site.open()
    assert site.pay(customer, "200.00", "t1").status_code == 201
    assert refused(site.pay(other, "200.00", "t1")) == (409, "idempotency_conflict")


def test_a_repeat_is_answered_after_the_meter_was_exchanged(site: Site) -> None:
    customer = site.open()
    site.clock.set("2026-03-01T09:00:00Z")
    first = site.pay(customer, "200.00", "t1")
    site.exchange(customer, "2026-03-02T00:00:00Z")
    assert without_state(site.pay(customer, "200.00", "t1").json()) == without_state(first.json())
    # A new payment for the meter that left: the money is here, and waits for a person.
    waits = site.pay(customer, "200.00", "t2")
    assert (waits.status_code, waits.json()["state"]) == (202, "suspect")


def test_partners_number_their_payments_apart(site: Site, refused: Any) -> None:
    customer = site.open()
    site.clock.set("2026-03-01T09:00:00Z")
    first = site.pay(customer, "200.00", "t1").json()
    body = {
        "partner_txn_id": "t1",
        "meter": customer.meter,
        "amount": "50.00",
        "paid_at": "2026-03-01T09:00:00Z",
    }
    key = site.wallet_key()
    other = site.signed("POST", "/payments", body, partner="wallet", key=key)
    assert other.status_code == 201
    assert other.json()["id"] != first["id"]
    unseen = site.signed("GET", "/payments/t2", partner="wallet", key=key)
    assert refused(unseen) == (404, "not_found")


def test_sixteen_identical_payments_at_once_are_one_top_up_and_one_token(site: Site) -> None:
    customer = site.open()
    site.clock.set("2026-03-01T09:00:00Z")
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: site.pay(customer, "200.00", "t1"), range(16)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len({tuple(answer.json()["tokens"]) for answer in answers}) == 1
    assert len(site.get(customer, "/top-ups")["items"]) == 1
    assert len(site.get(customer, "/tokens")["items"]) == 1
    assert site.get(customer, "/balance")["balance"]["amount"] == "200.000000"


def test_payments_of_one_minute_have_different_tokens(site: Site) -> None:
    customer = site.open()
    site.clock.set("2026-03-01T09:00:00Z")
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda n: site.pay(customer, "20.00", f"t{n}"), range(4)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["tokens"][0] for answer in answers}) == 4
    assert site.get(customer, "/balance")["balance"]["amount"] == "80.000000"


def test_a_payment_is_reversed_while_it_has_no_token(site: Site) -> None:
    customer = site.open(sts=False)
    site.clock.set("2026-03-01T09:00:00Z")
    assert site.pay(customer, "200.00", "t1").json()["tokens"] == []
    for _ in range(2):
        response = site.signed("POST", "/payments/t1/reversals", {"reason": "wrong meter"})
        assert (response.status_code, response.json()["state"]) == (201, "reversed")
    assert site.get(customer, "/balance")["balance"]["amount"] == "0.000000"


def test_a_reversal_for_another_reason_is_another_request(site: Site, refused: Any) -> None:
    customer = site.open(sts=False)
    held = {"partner_txn_id": "t2", "meter": "99999999999", "amount": "50.00"}
    site.pay(customer, "200.00", "t1")
    site.signed("POST", "/payments", {**held, "paid_at": "2026-03-01T09:00:00Z"})
    for number in ("t1", "t2"):
        path = f"/payments/{number}/reversals"
        first = site.signed("POST", path, {"reason": "paid twice"})
        assert (first.status_code, first.json()["state"]) == (201, "reversed")
        other = site.signed("POST", path, {"reason": "wrong meter"})
        assert refused(other) == (409, "idempotency_conflict")
        assert site.signed("POST", path, {"reason": "paid twice"}).json() == first.json()


def test_what_an_operator_took_back_is_told_to_its_bank_whatever_its_reason(site: Site) -> None:
    customer = site.open(sts=False)
    paid = site.pay(customer, "200.00", "t1").json()
    done = site.client.post(
        "/v1/reversals",
        headers={**site.operator, "Idempotency-Key": "k"},
        json={"top_up": paid["id"], "reason": "the payer came to the desk"},
    )
    assert done.status_code == 201
    asked = site.signed("POST", "/payments/t1/reversals", {"reason": "paid twice"})
    assert (asked.status_code, asked.json()["state"]) == (201, "reversed")


def test_a_token_that_left_is_not_reversed(site: Site, refused: Any) -> None:
    customer = site.open()
    site.pay(customer, "200.00", "t1")
    response = site.signed("POST", "/payments/t1/reversals", {"reason": "wrong meter"})
    assert refused(response) == (409, "token_issued")
    unknown = site.signed("POST", "/payments/t9/reversals", {"reason": "wrong meter"})
    assert refused(unknown) == (404, "not_found")


def test_a_quote_is_what_the_payment_then_gives(site: Site) -> None:
    customer = site.open()
    site.clock.set("2026-03-01T09:00:00Z")
    quoted = site.signed("POST", "/quotes", {"meter": customer.meter, "amount": "300"}).json()
    own = site.client.post(
        f"/v1/accounts/{customer.number}/quotes",
        headers=customer.headers,
        json={"amount": "300.00"},
    ).json()
    paid = site.pay(customer, "300.00", "t1").json()
    assert quoted["lines"] == own["lines"] == paid["lines"]
    assert quoted["energy_wh"] == paid["energy_wh"]
    assert quoted["valid_until"] == "2026-03-01T09:15:00Z"


def test_a_quote_for_an_energy_is_the_least_amount_that_buys_it(site: Site) -> None:
    customer = site.open()
    path = f"/v1/accounts/{customer.number}/quotes"
    asked = site.client.post(path, headers=customer.headers, json={"energy_wh": 120_000}).json()
    # 100 kWh at 2.459 and 20 at 5.903, with 16 %: 422.1936, paid in hundredths.
    assert asked["amount"]["amount"] == "422.200000"
    assert asked["energy_wh"] == 120_000
    less = site.client.post(path, headers=customer.headers, json={"amount": "422.19"}).json()
    assert less["energy_wh"] < 120_000


def test_a_quote_for_days_is_of_the_usual_day(site: Site, refused: Any) -> None:
    customer = site.open()
    site.clock.set("2026-03-01T00:30:00Z")
    path = f"/v1/accounts/{customer.number}/quotes"
    early = site.client.post(path, headers=customer.headers, json={"days": 10})
    assert refused(early) == (409, "too_few_days")
    register = 100_000
    for day, wh in enumerate([2000, 2000, 9000, 2000], start=2):
        register += wh
        site.read(customer, f"2026-03-{day:02d}T00:00:00Z", register)
    asked = site.client.post(path, headers=customer.headers, json={"days": 10}).json()
    assert asked["energy_wh"] == 20_000


def test_lookup_shows_enough_to_ask_is_this_you(site: Site) -> None:
    customer = site.open(
        debt={"outstanding": "300.00", "rules": [{"kind": "payment_share", "percent": "20"}]}
    )
    for body in ({"meter": customer.meter}, {"account": customer.number}):
        found = site.signed("POST", "/lookup", body).json()
        assert found == {
            "account": customer.number,
            "meter": customer.meter,
            "holder": "A••• S•••",
            "min": {"amount": "1.000000", "currency": "MRU"},
            "max": {"amount": "100000.000000", "currency": "MRU"},
            "debt_share_percent": "20.0000",
            "status": "active",
            "as_of": "2026-03-01T00:00:00Z",
        }


@pytest.mark.parametrize(
    ("rules", "debt", "paid", "at", "share"),
    [
        ([{"kind": "payment_share", "percent": "20"}], "300.00", "100.00", "2026-03-02", "20.0000"),
        ([{"kind": "payment_share", "percent": "20", "cap_per_month": "50.00"}],
         "300.00", "100.00", "2026-03-02", "20.0000"),
        ([{"kind": "payment_share", "percent": "20", "cap_per_month": "50.00"}],
         "300.00", "250.00", "2026-03-02", None),
        # Another month has a cap of its own, whether or not anything was settled in it.
        ([{"kind": "payment_share", "percent": "20", "cap_per_month": "50.00"}],
         "300.00", "250.00", "2026-04-02", "20.0000"),
        ([{"kind": "payment_share", "percent": "20"}], "20.00", "100.00", "2026-03-02", None),
        ([{"kind": "daily", "amount": "10.00"}], "300.00", "100.00", "2026-03-02", None),
        # What midnight charges took of a debt that no worker has posted yet.
        ([{"kind": "payment_share", "percent": "20"}, {"kind": "daily", "amount": "10.00"}],
         "25.00", "100.00", "2026-03-09", None),
    ],
)  # fmt: skip
def test_lookup_names_the_share_that_the_next_payment_leaves_to_debt(
    site: Site, rules: list[Any], debt: str, paid: str, at: str, share: str | None
) -> None:
    customer = site.open(debt={"outstanding": debt, "rules": rules})
    assert site.pay(customer, paid, "t-1").status_code == 201
    site.clock.set(f"{at}T09:00:00Z")
    found = site.signed("POST", "/lookup", {"meter": customer.meter}).json()
    assert (found["debt_share_percent"], found["as_of"]) == (share, f"{at}T09:00:00Z")
    quoted = site.signed("POST", "/quotes", {"meter": customer.meter, "amount": "10.00"}).json()
    (line,) = [each for each in quoted["lines"] if each["name"] == "debt"]
    assert (line["amount"] != "0.000000") == (share is not None)


def test_the_ledger_of_payments_holds_after_the_schedule_has_run(site: Site) -> None:
    customer = site.open()
    site.clock.set("2026-03-01T09:00:00Z")
    site.pay(customer, "200.00", "t1")
    site.clock.set("2026-03-03T09:00:00Z")
    looked = site.get(customer, "/balance")["balance"]
    settle_due(site.conn, site.terms, site.clock.now, 10)
    assert site.get(customer, "/balance")["balance"] == looked
    assert site.get(customer, "/entries")["items"][0]["balance_after"] == looked
