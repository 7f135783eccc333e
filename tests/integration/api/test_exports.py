"""Whole lists as CSV: every row once, of the caller's centres, and who took them."""

import csv
import io
from typing import Any

import pytest

from store import exports, operators, registry

Site = Any


def operator(site: Site, name: str, role: str, *centres: str) -> dict[str, str]:
    operators.add(site.conn, name, role, centres, who="test", now_ms=site.clock.now)  # type: ignore[arg-type] # a role by its name
    key = operators.add_access_key(site.conn, name, "t", who="test", now_ms=site.clock.now)
    return {"Authorization": f"Bearer {key}"}


def taken(site: Site, what: str, headers: dict[str, str] | None = None, **query: str) -> Any:
    answer = site.client.get(f"/v1/exports/{what}", headers=headers or site.operator, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


@pytest.fixture
def utility(site: Site) -> Site:
    """Three accounts of the north and two of the south, each with a payment."""
    for centre in (site.centre,) * 3 + (registry.add_centre(site.conn, "south", "South"),) * 2:
        site.centre = centre
        customer = site.open()
        assert site.pay(customer, "20.00", f"of-{customer.number}").status_code == 201
    return site


@pytest.mark.parametrize("portion", [1, 2, 5, 2000])
def test_every_row_comes_once_whatever_a_portion_holds(
    utility: Site, monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    monkeypatch.setattr(exports, "PORTION", portion)
    numbers = [f"A-{serial}" for serial in range(1, 6)]
    for what in ("accounts", "meters", "top-ups"):
        assert sorted(row["account"] for row in taken(utility, what)) == numbers, what
    ids = [int(row["id"]) for row in taken(utility, "audit-log")]
    assert ids == sorted(set(ids))
    assert len(ids) > portion or portion > 5


@pytest.mark.parametrize("what", ["accounts", "meters", "top-ups"])
@pytest.mark.parametrize(
    ("centres", "centre", "found"),
    [((), None, 5), (("north",), None, 3), ((), "south", 2), (("north",), "south", 0)],
)
def test_a_list_holds_what_is_in_the_callers_centres(
    utility: Site, what: str, centres: tuple[str, ...], centre: str | None, found: int
) -> None:
    caller = operator(utility, "finn", "finance", *centres)
    query = {} if centre is None else {"centre": centre}
    assert len(taken(utility, what, caller, **query)) == found


def test_figures_are_those_of_the_contract(site: Site) -> None:
    customer = site.open()
    site.clock.set("2026-03-01T09:00:00Z")
    top_up = site.pay(customer, "20.00", "t-1").json()
    (row,) = taken(site, "top-ups")
    assert (row["amount"], row["currency"], row["paid_at"], row["credited_at"]) == (
        "20.000000", "MRU", "2026-03-01T09:00:00Z", "2026-03-01T09:00:00Z",
    )  # fmt: skip
    assert (row["top_up"], row["receipt_number"], row["reversed_at"]) == (
        top_up["id"], top_up["receipt_number"], "",
    )  # fmt: skip
    (row,) = taken(site, "accounts")
    assert (row["balance"], row["debt"], row["as_of"], row["supply"]) == (
        "20.000000", "0.000000", "2026-03-01T09:00:00Z", "connected",
    )  # fmt: skip
    assert top_up["tokens"][0] not in str(taken(site, "top-ups"))


def test_a_time_bounds_what_has_one(utility: Site, refused: Any) -> None:
    utility.clock.set("2026-06-01T00:00:00Z")
    assert taken(utility, "top-ups") == []
    assert len(taken(utility, "top-ups", **{"from": "2026-02-01T00:00:00Z"})) == 5
    march = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-01T00:00:00Z"}
    for what, query in (
        ("top-ups", march),
        ("top-ups", {"from": "2020-01-01T00:00:00Z"}),
        ("accounts", {"from": "2026-03-01T00:00:00Z"}),
        ("meters", {"to": "2026-03-01T00:00:00Z"}),
    ):
        answer = utility.client.get(f"/v1/exports/{what}", headers=utility.operator, params=query)
        assert refused(answer) == (422, "range_refused"), (what, query)
    bad = utility.client.get("/v1/exports/top-ups?from=x", headers=utility.operator)
    assert refused(bad) == (422, "bad_instant")
    none = utility.client.get("/v1/exports/secrets", headers=utility.operator)
    assert refused(none) == (422, "invalid_request")


def test_who_takes_a_list_is_kept_with_what_and_why(utility: Site) -> None:
    auditor = operator(utility, "ada", "auditor", "north")
    taken(utility, "top-ups", auditor, reason="the yearly audit", centre="north")
    act = utility.client.get(
        "/v1/audit-log", headers=utility.operator, params={"action": "export.take"}
    ).json()["items"][0]
    assert (act["who"], act["subject"], act["reason"]) == (
        "ada", "export:top-ups", "the yearly audit",
    )  # fmt: skip
    assert act["after"]["centre"] == "north"
    (row,) = [row for row in taken(utility, "audit-log") if row["action"] == "export.take"][:1]
    assert (row["who"], row["reason"]) == ("ada", "the yearly audit")


def test_the_audit_log_is_for_auditors_alone(utility: Site, refused: Any) -> None:
    finance = operator(utility, "finn", "finance")
    answer = utility.client.get("/v1/exports/audit-log", headers=finance)
    assert refused(answer) == (403, "role_refused")
    listed = utility.client.get("/v1/exports", headers=finance).json()["items"]
    assert [each["what"] for each in listed] == ["accounts", "meters", "top-ups"]
    for each in utility.client.get("/v1/exports", headers=utility.operator).json()["items"]:
        rows = taken(utility, each["what"])
        assert list(rows[0]) == each["columns"]


def test_no_cell_is_a_formula(site: Site) -> None:
    for name in ("=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-1-1", "-1.5", 'Me, "too"\nhere'):
        customer = site.open()
        site.conn.execute(
            "UPDATE customer SET name = %s WHERE id = %s", [name, site.holder_of(customer)]
        )
    assert [row["holder"] for row in taken(site, "accounts")] == [
        "'=1+1", "'@SUM(A1)", "'+cmd|' /C calc'!A0", "'-1-1", "-1.5", 'Me, "too"\nhere',
    ]  # fmt: skip
