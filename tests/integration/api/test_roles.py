"""Every route as every caller, against what it declares; and what lies in another centre."""

import re
from pathlib import Path
from typing import Any

import pytest

from api.openapi import described_app
from api.roles import ANYONE, CALLERS, PARTNER, declared, roles_text
from store import holds, operators, registry
from store.operators import ROLES

Site = Any
ROLES_FILE = Path(__file__).parents[3] / "docs" / "roles.md"
DECLARED = declared(described_app())


@pytest.fixture
def site(shared_site: Site) -> Site:
    return shared_site


def operator(site: Site, name: str, role: str, *centres: str) -> dict[str, str]:
    """The headers of an operator's program; the same name again is the same operator."""
    if all(each.name != name for each in operators.listed(site.conn)):
        operators.add(site.conn, name, role, centres, who="test", now_ms=site.clock.now)  # type: ignore[arg-type] # a role by its name
    key = operators.add_access_key(site.conn, name, "t", who="test", now_ms=site.clock.now)
    return {"Authorization": f"Bearer {key}"}


def test_every_route_declares_its_callers() -> None:
    assert [each for each in DECLARED if not each.callers] == []
    assert len({(each.method, each.path) for each in DECLARED}) == len(DECLARED) > 40


def test_the_committed_table_is_that_of_the_code() -> None:
    assert ROLES_FILE.read_text(encoding="utf-8") == roles_text(described_app()), (
        "run scripts/generate_roles.py"
    )


def call(site: Site, method: str, path: str, headers: dict[str, str], *, signed: bool) -> Any:
    """(status, code) of a request to a route, with values that lead nowhere."""
    filled = re.sub(r"\{(\w+)\}", lambda found: "999999" if found[1] != "number" else "0", path)
    if signed:
        answer = site.signed(method, filled.removeprefix("/v1/partners"), {})
        return answer.status_code, answer.json().get("code")
    # A stream would never end: what was decided stands in its head.
    with site.client.stream(
        method, filled, headers={**headers, "Idempotency-Key": "k"}, json={}
    ) as answer:
        code = None
        if answer.status_code >= 400:
            answer.read()
            code = answer.json().get("code")
        return answer.status_code, code


@pytest.mark.parametrize("caller", CALLERS)
def test_a_route_answers_those_whom_it_declares_and_nobody_else(site: Site, caller: str) -> None:
    headers: dict[str, str] = {}
    if caller == "customer":
        headers = site.open().headers
    elif caller in ROLES:
        headers = operator(site, f"a.{caller}", caller)
    wrong = []
    for each in DECLARED:
        signed = caller == PARTNER and each.path.startswith("/v1/partners")
        status, code = call(site, each.method, each.path, headers, signed=signed)
        known = caller not in {ANYONE, PARTNER} and PARTNER not in each.callers
        if caller in each.callers:
            # The door to sign in says 422 to an empty body; only a session is 401 there.
            fits = code not in {
                "access_key_missing", "access_key_unknown", "role_refused", "scope_refused",
                "signature_missing", "signature_mismatch",
            } and status != 500  # fmt: skip
        else:
            fits = (status, code) == (403, "role_refused") if known else status == 401
        if not fits:
            wrong.append((each.method, each.path, status, code))
    assert wrong == []


def test_what_concerns_every_centre_refuses_an_operator_of_one(site: Site) -> None:
    site_wide = [each for each in DECLARED if each.everywhere]
    assert site_wide
    for each in site_wide:
        role = next(role for role in ROLES if role in each.callers)
        headers = operator(site, f"one.{role}", role, "north")
        assert call(site, each.method, each.path, headers, signed=False) == (403, "scope_refused")


@pytest.fixture
def south(site: Site) -> dict[str, str]:
    """An administrator of a centre where nothing is."""
    registry.add_centre(site.conn, "south", "South")
    return operator(site, "south.admin", "admin", "south")


def test_what_is_in_another_centre_looks_like_what_does_not_exist(
    site: Site, south: dict[str, str], refused: Any
) -> None:
    site.clock.now = max(site.clock.now, site.clock.now)
    customer = site.open()
    paid = site.pay(customer, "20.00", f"roles-{customer.number}").json()
    site.say(customer.meter, "reading", {"v": 9, "of": customer.meter})
    (item, *_) = site.client.get("/v1/quarantine", headers=site.operator).json()["items"]
    hold = holds.place(
        site.conn, customer.account_id, kind="other", from_ms=site.clock.now, until_ms=None,
        who="vera", reason="test", now_ms=site.clock.now,
    )  # fmt: skip
    asked = send(site, site.operator, "/v1/tokens/engineering", engineering(customer.meter)).json()
    large = {"account": customer.number, "amount": "600.00", "reason": "test"}
    adjusted = send(site, site.operator, "/v1/adjustments", large).json()
    assert adjusted["state"] == "requested"
    note, account = {"note": "seen"}, {"account": customer.number, "reason": "why"}
    cases: list[tuple[str, str, object]] = [
        ("GET", f"/v1/accounts/{customer.number}", None),
        ("GET", f"/v1/accounts/{customer.number}/balance", None),
        ("GET", f"/v1/accounts/{customer.number}/entries", None),
        ("GET", f"/v1/accounts/{customer.number}/tokens", None),
        ("GET", f"/v1/accounts/{customer.number}/decisions", None),
        ("PUT", f"/v1/accounts/{customer.number}/low-credit", {"amount": "5"}),
        ("POST", f"/v1/accounts/{customer.number}/tariffs",
         {"tariff": "social", "from": "2027-01-01", "reason": "x"}),
        ("GET", f"/v1/meters/{customer.meter}", None),
        ("POST", f"/v1/meters/{customer.meter}/key-change/confirmation", note),
        ("PUT", f"/v1/meters/{customer.meter}/gateway", {"gateway": "GW-1", "reason": "why"}),
        ("POST", "/v1/holds", {**account, "kind": "other"}),
        ("POST", f"/v1/holds/{hold}/release", note),
        ("POST", "/v1/adjustments", {**account, "amount": "1.00"}),
        ("POST", f"/v1/adjustments/{adjusted['id']}/approval", None),
        ("POST", f"/v1/adjustments/{adjusted['id']}/refusal", None),
        ("POST", "/v1/reversals", {"top_up": paid["id"], "reason": "x"}),
        ("POST", "/v1/tokens/reprints", {"top_up": paid["id"], "reason": "x"}),
        ("POST", "/v1/tokens/engineering", engineering(customer.meter)),
        ("GET", f"/v1/tokens/engineering/{asked['id']}", None),
        ("POST", f"/v1/tokens/engineering/{asked['id']}/approval", None),
        ("POST", f"/v1/tokens/engineering/{asked['id']}/refusal", note),
        ("POST", "/v1/tokens/decode", {"digits": paid["tokens"][0], "meter": customer.meter}),
        ("POST", f"/v1/quarantine/{item['id']}/closing", note),
        ("POST", "/v1/meters", {"number": "37000000017", "centre": "north"}),
    ]  # fmt: skip
    for method, path, body in cases:
        answer = send(site, south, path, body, method=method)
        assert refused(answer) == (404, "not_found"), (path, answer.text)
    for path in ("accounts", "holds", "adjustments", "tokens/engineering", "quarantine",
                 "commands", "audit-log", "meters"):  # fmt: skip
        assert site.client.get(f"/v1/{path}", headers=site.operator).json()["items"] != [], path
        assert site.client.get(f"/v1/{path}", headers=south).json()["items"] == [], path
    decoded = send(site, south, "/v1/tokens/decode", {"digits": paid["tokens"][0]}).json()
    assert decoded["issued_by_us"] == []
    centres = site.client.get("/v1/centres", headers=south).json()["items"]
    assert [each["code"] for each in centres] == ["south"]


def engineering(meter: str) -> dict[str, object]:
    return {"meter": meter, "work": "clear_tamper_condition", "reason": "cover was open"}


def send(
    site: Site, headers: dict[str, str], path: str, body: object, *, method: str = "POST"
) -> Any:
    return site.client.request(
        method,
        path,
        headers={**headers, "Idempotency-Key": f"k{next(site.ids)}"},
        json=body,
    )


def test_digits_are_shown_to_those_alone_who_may_enter_them(site: Site, refused: Any) -> None:
    customer = site.open()
    (digits,) = site.pay(customer, "20.00", f"digits-{customer.number}").json()["tokens"]
    for role in ROLES:
        headers = operator(site, f"a.{role}", role)
        listed = site.client.get(f"/v1/accounts/{customer.number}/top-ups", headers=headers)
        shown = site.client.get(f"/v1/accounts/{customer.number}/tokens", headers=headers)
        if role in {"desk", "supervisor", "admin"}:
            assert digits in listed.text
            assert digits in shown.text
        else:
            assert listed.json()["items"][0]["tokens"] == ["*" * 16 + digits[-4:]]
            assert digits not in listed.text
            assert refused(shown) == (403, "role_refused")
