"""Prices change through the API by two people, with what they would have cost."""

from typing import Any

import pytest

from store import operators, registry

Site = Any
VERSION = {
    "valid_from": "2026-05-01",
    "period": "month",
    "bands": [{"name": "all", "method": "graduated", "blocks": [{"price": "3.000"}]}],
    "standing_per_day": "1.20",
}


@pytest.fixture
def site(shared_site: Site) -> Site:
    return shared_site


@pytest.fixture(scope="module")
def people(shared_site: Site) -> dict[str, dict[str, str]]:
    made = {}
    for name, role in (("finn", "finance"), ("fay", "finance"), ("dora", "desk")):
        operators.add(shared_site.conn, name, role, who="test", now_ms=0)  # type: ignore[arg-type] # a role by its name
        key = operators.add_access_key(shared_site.conn, name, "t", who="test", now_ms=0)
        made[name] = {"Authorization": f"Bearer {key}"}
    return made


def post(site: Site, headers: dict[str, str], path: str, body: object = None) -> Any:
    return site.client.post(f"/v1/{path}", headers=headers, json=body)


def test_a_version_is_drafted_by_one_and_approved_by_another(
    site: Site, people: dict[str, dict[str, str]], refused: Any
) -> None:
    site.open()
    body = {"version": VERSION, "note": "the regulator's order 12"}
    drafted = post(site, people["finn"], "tariffs/social/drafts", body).json()
    assert (drafted["state"], drafted["drafted_by"]) == ("drafted", "finn")
    assert drafted["version"] == VERSION
    waiting = site.client.get("/v1/tariff-drafts?state=drafted", headers=people["dora"]).json()
    assert [each["id"] for each in waiting["items"]] == [drafted["id"]]
    path = f"tariff-drafts/{drafted['id']}"
    assert refused(post(site, people["finn"], f"{path}/approval")) == (409, "second_person_needed")
    done = post(site, people["fay"], f"{path}/approval").json()
    assert (done["state"], done["decided_by"]) == ("approved", "fay")
    shown = site.client.get("/v1/tariffs/social", headers=people["dora"]).json()
    assert shown["versions"][-1] == VERSION
    assert [each["valid_from"] for each in shown["versions"]] == ["2026-01-01", "2026-05-01"]
    listed = site.client.get("/v1/tariffs", headers=people["dora"]).json()["items"]
    assert shown in listed
    late = post(site, people["fay"], f"{path}/withdrawal")
    assert refused(late) == (409, "draft_approved")
    log = site.client.get(
        "/v1/audit-log", headers=site.operator,
        params={"subject": f"tariff:social/draft:{drafted['id']}"},
    ).json()["items"]  # fmt: skip
    assert [(act["who"], act["action"]) for act in log] == [
        ("fay", "tariff.approve"), ("finn", "tariff.draft")
    ]  # fmt: skip
    assert log[1]["reason"] == "the regulator's order 12"


def test_a_draft_is_withdrawn(site: Site, people: dict[str, dict[str, str]]) -> None:
    body = {"version": {**VERSION, "valid_from": "2026-07-01"}, "note": "a try"}
    drafted = post(site, people["finn"], "tariffs/social/drafts", body).json()
    done = post(site, people["finn"], f"tariff-drafts/{drafted['id']}/withdrawal").json()
    assert (done["state"], done["decided_by"]) == ("withdrawn", "finn")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"version": {}}, 422, "invalid_request"),
        ({"version": {"valid_from": "2026-05-01"}}, 422, "bad_input"),
        ({"version": {**VERSION, "valid_from": "2026-02-30"}}, 422, "bad_input"),
        ({"version": {**VERSION, "valid_from": "2026-02-01"}}, 409, "version_in_past"),
        ({"note": ""}, 422, "invalid_request"),
    ],
)
def test_a_version_that_is_none_is_refused(
    site: Site, people: dict[str, dict[str, str]], refused: Any, change: Any, status: int, code: str
) -> None:
    site.open()
    body = {"version": VERSION, "note": "why", **change}
    assert refused(post(site, people["finn"], "tariffs/social/drafts", body)) == (status, code)


def test_a_version_is_simulated_on_what_was_really_used(
    site: Site, people: dict[str, dict[str, str]], refused: Any
) -> None:
    tariff = site.free_of_charges()
    customer = site.open(tariff=tariff)
    site.read(customer, "2026-03-01T12:00:00Z", 101_000)
    site.read(customer, "2026-03-02T00:00:00Z", 102_000)
    site.clock.set("2026-03-03T00:00:00Z")
    version = {key: value for key, value in VERSION.items() if key != "valid_from"}
    window = {"from": "2026-03-01", "to": "2026-03-02"}
    body = {"version": {**version, "standing_per_day": "0"}, **window}
    told = post(site, people["finn"], "tariffs/plain/simulations", body).json()
    assert (told["accounts"], told["dearer_for"], told["energy_wh"]) == (1, 1, 2000)
    assert told["old"]["amount"] == "4.918000"
    assert told["new"]["amount"] == "6.000000"
    assert told["moved_most"] == [
        {
            "account": customer.number,
            "energy_wh": 2000,
            "old": "4.918000",
            "new": "6.000000",
            "difference": "1.082000",
        }
    ]
    future = {**body, "to": "2026-03-05"}
    assert refused(post(site, people["finn"], "tariffs/plain/simulations", future)) == (
        409, "window_refused"
    )  # fmt: skip
    wrong = {**body, "version": {"period": "year"}}
    assert refused(post(site, people["finn"], "tariffs/plain/simulations", wrong)) == (
        422, "bad_input"
    )  # fmt: skip


def test_an_account_is_priced_by_another_tariff_from_tomorrow(
    site: Site, people: dict[str, dict[str, str]], refused: Any
) -> None:
    site.in_zone("Africa/Dakar")
    customer = site.open()
    body = {"tariff": "social", "from": "2030-01-01", "reason": "a shop now"}
    path = f"accounts/{customer.number}/tariffs"
    made = post(site, people["finn"], path, body)
    assert made.json() == {
        "account": customer.number, "tariff": "social", "from_day": "2030-01-01"
    }  # fmt: skip
    assert post(site, people["finn"], path, body).json() == made.json()
    acts = site.client.get(
        "/v1/audit-log", headers=site.operator, params={"subject": f"account:{customer.number}"}
    ).json()["items"]
    assert [(act["who"], act["action"], act["after"]["tariff"]) for act in acts] == [
        ("finn", "tariff.assign", "social")
    ]
    past = {**body, "from": "2026-01-01"}
    assert refused(post(site, people["finn"], path, past)) == (409, "assignment_in_past")
    elsewhere = {**body, "tariff": "Africa/Dakar", "from": "2031-01-01"}
    assert refused(post(site, people["finn"], path, elsewhere)) == (409, "tariff_incompatible")
    assert refused(post(site, people["dora"], path, body)) == (403, "role_refused")


@pytest.mark.parametrize(("tariff", "day"), [("social", "9999-12-31"), ("later", "2026-03-15")])
def test_a_date_that_no_version_serves_is_named_by_its_pointer(
    site: Site, people: dict[str, dict[str, str]], refused: Any, tariff: str, day: str
) -> None:
    if tariff == "later":
        form = registry.tariff_form(site.conn, site.tariff)
        registry.add_tariff(site.conn, tariff, "Later", {**form, "tariff": {"versions": [VERSION]}})
    body = {"tariff": tariff, "from": day, "reason": "he moved"}
    answer = post(site, people["fay"], f"accounts/{site.open().number}/tariffs", body)
    assert refused(answer) == (422, "bad_input")
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/from"]
