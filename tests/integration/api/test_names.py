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
