"""Centres and paper: who can be reached without it, where it ended, and who asked for it."""

from typing import Any

import pytest

from store import operators, registry

Site = Any


def centre(site: Site, code: str = "north") -> Any:
    return site.client.get(f"/v1/centres/{code}", headers=site.operator).json()


def end(site: Site, code: str, headers: dict[str, str], *, ended: bool = True) -> Any:
    body = {"ended": ended, "reason": "most are registered"}
    return site.client.put(f"/v1/centres/{code}/paper", headers=headers, json=body)


def paper(site: Site, holder: int) -> Any:
    return site.client.get(f"/v1/customers/{holder}", headers=site.operator).json()["paper"]


def test_the_share_counts_customers_who_can_be_written_to(site: Site) -> None:
    assert centre(site)["registered_percent"] == "0.0000"
    first, *others = [site.open() for _ in range(3)]
    holder = site.reach(first, "+22222000001")
    found = centre(site)
    assert (found["customers"], found["registered"]) == (3, 1)
    assert found["registered_percent"] == "33.3333"
    # Waiting to be verified, or without consent, is not yet reached.
    body = {"channel": "email", "address": "a@example.org", "wording": "w-1"}
    other = site.holder_of(others[0])
    site.client.post(f"/v1/customers/{other}/contacts", headers=site.operator, json=body)
    assert centre(site)["registered"] == 1
    withdrawn = site.client.put(
        f"/v1/customers/{holder}/contacts/phone/consent",
        headers=site.operator,
        json={"wording": None},
    )
    assert withdrawn.status_code == 200
    assert centre(site)["registered"] == 0


def test_paper_ends_for_a_centre_and_for_nobody_who_asked_for_it(site: Site) -> None:
    wanting, other = site.holder_of(site.open()), site.holder_of(site.open())
    path = f"/v1/customers/{wanting}/paper"
    asked = site.client.put(path, headers=site.operator, json={"wanted": True}).json()
    assert asked["paper"]["requested"]
    assert paper(site, other) == {"requested": False, "requested_at": None, "sent": True}
    ended = end(site, "north", site.operator).json()
    assert ended["paper"]["ended"]
    assert ended["paper"]["requested"] == 1
    assert (paper(site, wanting)["sent"], paper(site, other)["sent"]) == (True, False)
    site.client.put(path, headers=site.operator, json={"wanted": False})
    assert not paper(site, wanting)["sent"]
    again = end(site, "north", site.operator, ended=False).json()
    assert again["paper"] == {"ended": False, "ended_at": None, "requested": 0}
    assert paper(site, other)["sent"]


def test_who_ended_paper_when_and_why_is_in_the_log_once(site: Site) -> None:
    first = end(site, "north", site.operator).json()
    site.clock.now += 60_000
    assert end(site, "north", site.operator).json()["paper"] == first["paper"]
    acts = site.client.get(
        "/v1/audit-log", headers=site.operator, params={"action": "centre.paper"}
    ).json()["items"]
    (act,) = acts
    assert (act["who"], act["reason"]) == ("admin", "most are registered")
    assert act["before"] == {"paper_ended": False}
    assert act["after"] == {"paper_ended": True, "customers": 0, "registered": 0}


def test_a_customer_asks_for_paper_himself(site: Site) -> None:
    customer = site.open()
    holder = site.holder_of(customer)
    asked = site.client.put(
        f"/v1/customers/{holder}/paper", headers=customer.headers, json={"wanted": True}
    )
    assert asked.json()["paper"]["requested"]


@pytest.mark.parametrize("code", ["south", "nowhere"])
def test_another_centre_looks_like_none(site: Site, refused: Any, code: str) -> None:
    registry.add_centre(site.conn, "south", "South")
    operators.add(site.conn, "sue", "supervisor", ["north"], who="test", now_ms=site.clock.now)
    key = operators.add_access_key(site.conn, "sue", "t", who="test", now_ms=site.clock.now)
    headers = {"Authorization": f"Bearer {key}"}
    assert refused(end(site, code, headers)) == (404, "not_found")
    assert refused(site.client.get(f"/v1/centres/{code}", headers=headers)) == (404, "not_found")
    assert end(site, "north", headers).status_code == 200
