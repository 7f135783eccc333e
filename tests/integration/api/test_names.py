"""Names in paths: what is taken under a name is found under it; and people's typing is read."""

from typing import Any
from urllib.parse import quote

import pytest

Site = Any


@pytest.fixture
def site(shared_site: Site) -> Site:
    return shared_site


@pytest.mark.parametrize(
    "number",
    [
        "2026/03/01-17",
        "/a",
        "a/",
        "a//b",
        "x/reversals",
        "a?b",
        "a#b",
        "a%2Fb",
        "...",
        ".a",
        "a..b",
    ],
)
def test_a_payment_is_asked_for_and_taken_back_by_whatever_number_it_was_taken_under(
    site: Site, number: str
) -> None:
    customer = site.open(sts=False)
    assert site.pay(customer, "20.00", number).status_code == 201
    path = f"/payments/{quote(number, safe='')}"
    assert site.signed("GET", path).json()["partner_txn_id"] == number
    back = site.signed("POST", f"{path}/reversals", {"reason": "paid twice"})
    assert (back.status_code, back.json()["state"]) == (201, "reversed")


@pytest.mark.parametrize("number", [".", "..", "a/..", "../b", "a/./b"])
def test_a_number_that_leads_elsewhere_in_a_path_is_refused(
    site: Site, refused: Any, number: str
) -> None:
    answer = site.pay(site.open(), "20.00", number)
    assert refused(answer) == (422, "invalid_request")
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/partner_txn_id"]


@pytest.mark.parametrize("name", ["N/12", ".", "..", "/"])
def test_what_gets_a_path_of_its_own_has_a_name_that_fits_one(
    site: Site, refused: Any, name: str
) -> None:
    account = {"number": name, "holder": "Me", "tariff": "social"}
    meter = {"number": "37000000017", "centre": "north", "account": account}
    for path, body, pointer in (
        ("meters", meter, "/account/number"),
        ("centres", {"code": name, "name": "A centre"}, "/code"),
    ):
        answer = site.client.post(f"/v1/{path}", headers=site.operator, json=body)
        assert refused(answer) == (422, "invalid_request")
        assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
PERSIAN = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")
TYPINGS = {
    "arabic": lambda text: text.translate(ARABIC),
    "persian": lambda text: text.translate(PERSIAN),
    "marked": lambda text: f"\u200e{text}\u200f",
    "both": lambda text: f"\u2067{text.translate(ARABIC)}\u2069",
}


@pytest.mark.parametrize("typing", TYPINGS)
def test_an_account_and_a_meter_are_found_however_their_numbers_are_typed(
    site: Site, typing: str
) -> None:
    customer, op = site.open(), site.operator
    number, meter = TYPINGS[typing](customer.number), TYPINGS[typing](customer.meter)
    for body in ({"account": number}, {"meter": meter}):
        assert site.signed("POST", "/lookup", body).json()["account"] == customer.number
    keyed = {**op, "Idempotency-Key": f"{typing}-1"}
    for path, more in (("holds", {"kind": "other"}), ("adjustments", {"amount": "1"})):
        body = {"account": number, "reason": "x", **more}
        made = site.client.post(f"/v1/{path}", json=body, headers=keyed)
        assert (made.status_code, made.json()["account"]) == (201, customer.number)
    site.pay(customer, "20.00", f"{typing}-paid")
    for path, query in (
        ("accounts", {"search": number}), ("accounts", {"search": meter}),
        ("holds", {"account": number}), ("adjustments", {"account": number}),
        ("payments", {"account": number}), ("payments", {"meter": meter}),
    ):  # fmt: skip
        (found,) = site.client.get(f"/v1/{path}", params=query, headers=op).json()["items"]
        assert found["account"] == customer.number, path
    path = f"/v1/accounts/{quote(number)}"
    for each in ("", "/balance", "/entries"):
        assert site.client.get(path + each, headers=op).status_code == 200


@pytest.mark.parametrize("typing", TYPINGS)
def test_a_payer_is_the_same_however_his_phone_is_typed(site: Site, typing: str) -> None:
    customer, number = site.open(), f"{typing}-phone"
    for phone in (TYPINGS[typing]("22334455"), "22334455"):
        assert site.pay(customer, "20.00", number, msisdn=phone).status_code == 201
