"""Parts in another's account: who pays and sees nothing, who sees and pays, and their end."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from store import grants

Site = Any
PHONES: Iterator[str] = (f"+2224{number:07d}" for number in count(4000001))
SEEN = (
    ("GET", "/balance"),
    ("GET", "/consumption"),
    ("GET", "/entries"),
    ("GET", "/entries/1"),
    ("GET", "/tokens"),
    ("GET", "/events"),
    ("POST", "/emergency-credit"),
)
MANAGED = (("GET", "/grants"), ("POST", "/grants"), ("DELETE", "/grants/1"))


@pytest.fixture
def site(shared_site: Site) -> Site:
    shared_site.clock.wall += 2 * 24 * 3600
    return shared_site


def give(site: Site, headers: dict[str, str], account: str, phone: str, role: str) -> Any:
    body = {"phone": phone, "role": role}
    return site.client.post(f"/v1/accounts/{account}/grants", headers=headers, json=body)


def call(site: Site, headers: dict[str, str], account: str, method: str, path: str) -> Any:
    body = {"phone": next(PHONES), "role": "payer"} if method == "POST" else None
    return site.client.request(method, f"/v1/accounts/{account}{path}", headers=headers, json=body)


def quote(site: Site, headers: dict[str, str], account: str, **body: Any) -> Any:
    return site.client.post(f"/v1/accounts/{account}/quotes", headers=headers, json=body)


def accounts(site: Site, headers: dict[str, str]) -> dict[str, Any]:
    items = site.client.get("/v1/accounts", headers=headers).json()["items"]
    return {each["account"]: each for each in items}


def test_a_payer_may_pay_and_see_nothing(site: Site, refused: Any) -> None:
    customer, phone = site.open(), next(PHONES)
    site.reach(customer, next(PHONES))
    assert give(site, customer.headers, customer.number, phone, "payer").status_code == 201
    payer = site.signed_in(phone)
    for method, path in SEEN + MANAGED:
        found = call(site, payer, customer.number, method, path)
        nothing = call(site, payer, "A-NONE", method, path)
        assert refused(found) == (404, "not_found"), path
        without_id = {"type", "title", "status", "detail", "code"}
        assert {k: found.json()[k] for k in without_id} == {
            k: nothing.json()[k] for k in without_id
        }
    assert quote(site, payer, customer.number, amount="٥٠٫٠٠").status_code == 200
    assert quote(site, payer, customer.number, energy_wh="١٠٠٠").status_code == 200
    hidden = quote(site, payer, customer.number, days="٧")
    assert refused(hidden) == (403, "usual_use_hidden")
    (shown,) = accounts(site, payer).values()
    assert (shown["role"], shown["may"], shown["holder"]) == ("payer", ["pay"], "A••• S•••")


def test_a_granted_holder_sees_and_pays_and_manages_nothing(site: Site, refused: Any) -> None:
    customer, phone = site.open(), next(PHONES)
    give(site, customer.headers, customer.number, phone, "holder")
    holder = site.signed_in(phone)
    for path in ("/balance", "/consumption", "/entries", "/tokens"):
        assert call(site, holder, customer.number, "GET", path).status_code == 200, path
    assert quote(site, holder, customer.number, amount="50").status_code == 200
    for method, path in MANAGED:
        found = call(site, holder, customer.number, method, path)
        assert refused(found) == (404, "not_found"), path
    assert accounts(site, holder)[customer.number]["may"] == ["see", "pay"]
    # Nor is he the customer, whose contacts stay the customer's.
    assert site.client.get("/v1/customers", headers=holder).json()["items"] == []


def test_a_person_has_own_and_others_accounts_side_by_side(site: Site) -> None:
    mine, other, foreign, phone = site.open(), site.open(), site.open(), next(PHONES)
    site.reach(mine, phone)
    give(site, other.headers, other.number, phone, "payer")
    # A part in one's own account takes nothing away.
    give(site, mine.headers, mine.number, phone, "payer")
    found = accounts(site, site.signed_in(phone))
    assert {number: each["role"] for number, each in found.items()} == {
        mine.number: "owner", other.number: "payer",
    }  # fmt: skip
    assert foreign.number not in found


def test_a_withdrawn_part_is_over_at_once_in_every_session(site: Site, refused: Any) -> None:
    customer, phone = site.open(), next(PHONES)
    made = give(site, customer.headers, customer.number, phone, "holder").json()
    holder = site.signed_in(phone)
    path = f"/v1/accounts/{customer.number}/grants/{made['id']}"
    for _ in range(2):
        assert site.client.delete(path, headers=customer.headers).status_code == 204
    assert refused(call(site, holder, customer.number, "GET", "/balance")) == (404, "not_found")
    assert refused(quote(site, holder, customer.number, amount="50")) == (404, "not_found")
    assert accounts(site, holder) == {}
    site.clock.wall += 31
    site.client.post("/v1/auth/otp", json={"phone": phone})
    assert site.newest_code() is None
    (shown,) = call(site, customer.headers, customer.number, "GET", "/grants").json()["items"]
    assert shown["withdrawn_by"].startswith("customer:")
    missing = f"/v1/accounts/{site.open().number}/grants/{made['id']}"
    assert refused(site.client.delete(missing, headers=site.operator)) == (404, "not_found")


def test_giving_does_not_tell_whether_a_number_is_known(site: Site) -> None:
    known, customer = next(PHONES), site.open()
    site.reach(site.open(), known)
    answers = [
        give(site, customer.headers, customer.number, phone, "payer")
        for phone in (known, next(PHONES))
    ]
    assert {each.status_code for each in answers} == {201}
    varying = {"id", "phone"}
    first, second = ({k: v for k, v in each.json().items() if k not in varying} for each in answers)
    assert first == second


def test_another_role_replaces_the_one_before(site: Site) -> None:
    customer, phone = site.open(), next(PHONES)
    for role in ("holder", "payer", "payer"):
        give(site, customer.headers, customer.number, phone, role)
    items = call(site, customer.headers, customer.number, "GET", "/grants").json()["items"]
    assert [(each["role"], each["withdrawn_at"] is None) for each in items] == [
        ("payer", True), ("holder", False),
    ]  # fmt: skip
    assert accounts(site, site.signed_in(phone))[customer.number]["role"] == "payer"


def test_a_desk_gives_a_part_and_is_in_the_log(site: Site) -> None:
    customer, phone = site.open(), next(PHONES)
    assert give(site, site.operator, customer.number, phone, "payer").status_code == 201
    acts = site.client.get(
        "/v1/audit-log", headers=site.operator, params={"subject": f"account:{customer.number}"}
    )
    (act,) = acts.json()["items"]
    assert (act["action"], act["after"]["role"]) == ("grant.give", "payer")
    assert phone not in acts.text


def test_an_account_has_so_many_parts_and_no_more(
    site: Site, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "MOST_PER_ACCOUNT", 2)
    customer = site.open()
    for _ in range(2):
        found = give(site, customer.headers, customer.number, next(PHONES), "payer")
        assert found.status_code == 201
    last = give(site, customer.headers, customer.number, next(PHONES), "payer")
    assert refused(last) == (409, "too_many_grants")


def test_an_account_number_may_be_typed_in_other_digits(site: Site) -> None:
    customer = site.open()
    typed = customer.number.translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩"))
    assert (
        call(site, customer.headers, typed, "GET", "/balance").json()["account"] == customer.number
    )
