"""Every write of an operator leaves who, when, why, before and after."""

from collections.abc import Callable
from typing import Any

import pytest

from store import operators
from tokens.numbers import check_digit

Site = Any
WHY = "the customer wrote to us"
NUMBER = "37" + "00000001" + check_digit("3700000001")
VERSION = {
    "valid_from": "2026-05-01",
    "period": "month",
    "bands": [{"name": "all", "method": "graduated", "blocks": [{"price": "3"}]}],
}


class Desk:
    """An account of the centre north, what operators do to it, and what the log says of that."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.customer = site.open(emergency={"limit": "20.00", "activation": "on_request"})
        self.other = site.open()
        self.holder = site.reach(self.customer, "+22236000001")
        self.account = f"accounts/{self.customer.number}"
        operators.add(site.conn, "second", "admin", who="test", now_ms=site.clock.now)
        key = operators.add_access_key(site.conn, "second", "t", who="test", now_ms=0)
        self.second = {"Authorization": f"Bearer {key}"}
        self.serial = 0

    def send(self, method: str, path: str, body: object = None, *, second: bool = False) -> Any:
        self.serial += 1
        headers = self.second if second else self.site.operator
        return self.site.client.request(
            method,
            f"/v1/{path}",
            headers={**headers, "Idempotency-Key": f"k{self.serial}"},
            json=body,
        )

    def done(self, method: str, path: str, body: object = None, *, second: bool = False) -> Any:
        answer = self.send(method, path, body, second=second)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def acts(self, action: str) -> list[Any]:
        of = {"action": action}
        found: list[Any] = self.site.client.get(
            "/v1/audit-log", headers=self.site.operator, params=of
        ).json()["items"]
        return found


@pytest.fixture
def desk(site: Site) -> Desk:
    return Desk(site)


def low_credit(desk: Desk) -> None:
    desk.done("PUT", f"{desk.account}/low-credit", {"amount": "7", "reason": WHY})


def grant(desk: Desk) -> None:
    body = {"phone": "36000002", "role": "payer", "reason": WHY}
    desk.done("POST", f"{desk.account}/grants", body)


def greater_grant(desk: Desk) -> None:
    body = {"phone": "36000002", "role": "payer"}
    desk.done("POST", f"{desk.account}/grants", body)
    desk.done("POST", f"{desk.account}/grants", {**body, "role": "holder", "reason": WHY})


def end_grant(desk: Desk) -> None:
    body = {"phone": "36000002", "role": "payer"}
    made = desk.done("POST", f"{desk.account}/grants", body)
    desk.done("DELETE", f"{desk.account}/grants/{made['id']}?reason={WHY}")


def centre(desk: Desk) -> None:
    desk.done("POST", "centres", {"code": "west", "name": "West", "reason": WHY})


def meter(desk: Desk) -> None:
    desk.done("POST", "meters", {"number": NUMBER, "centre": "north", "reason": WHY})


def language(desk: Desk) -> None:
    body = {"language": "fr", "reason": WHY}
    desk.done("PUT", f"customers/{desk.holder}/language", body)


def paper(desk: Desk) -> None:
    desk.done("PUT", f"customers/{desk.holder}/paper", {"wanted": True, "reason": WHY})


def contact(desk: Desk) -> None:
    body = {"channel": "email", "address": "a@example.org", "reason": WHY}
    desk.done("POST", f"customers/{desk.holder}/contacts", body)


def end_contact(desk: Desk) -> None:
    desk.done("DELETE", f"customers/{desk.holder}/contacts/phone?reason={WHY}")


def consent(desk: Desk) -> None:
    body = {"wording": "w-2", "reason": WHY}
    desk.done("PUT", f"customers/{desk.holder}/contacts/phone/consent", body)


def end_consent(desk: Desk) -> None:
    body = {"wording": None, "reason": WHY}
    desk.done("PUT", f"customers/{desk.holder}/contacts/phone/consent", body)


def correction(desk: Desk) -> str:
    body = {"account": desk.customer.number, "amount": "900", "reason": "asked"}
    made: str = desk.done("POST", "adjustments", body)["id"]
    return made


def approve_correction(desk: Desk) -> None:
    path = f"adjustments/{correction(desk)}/approval"
    desk.done("POST", path, {"reason": WHY}, second=True)


def refuse_correction(desk: Desk) -> None:
    path = f"adjustments/{correction(desk)}/refusal"
    desk.done("POST", path, {"reason": WHY}, second=True)


def approve_token(desk: Desk) -> None:
    body = {"meter": desk.customer.meter, "work": "clear_tamper_condition", "reason": "open"}
    made = desk.done("POST", "tokens/engineering", body)
    path = f"tokens/engineering/{made['id']}/approval"
    desk.done("POST", path, {"reason": WHY}, second=True)


def drafted(desk: Desk) -> str:
    made = desk.done("POST", "tariffs/social/drafts", {"version": VERSION, "note": "order 12"})
    return f"tariff-drafts/{made['id']}"


def approve_draft(desk: Desk) -> None:
    desk.done("POST", f"{drafted(desk)}/approval", {"reason": WHY}, second=True)


def withdraw_draft(desk: Desk) -> None:
    desk.done("POST", f"{drafted(desk)}/withdrawal", {"reason": WHY})


def assign(desk: Desk) -> None:
    desk.site.free_of_charges()
    body = {"tariff": "plain", "from": "2026-04-01", "reason": WHY}
    desk.done("POST", f"{desk.account}/tariffs", body)


def assign_back(desk: Desk) -> None:
    desk.site.free_of_charges()
    body = {"tariff": "plain", "from": "2026-04-01", "reason": "first"}
    desk.done("POST", f"{desk.account}/tariffs", body)
    body = {"tariff": "social", "from": "2026-05-01", "reason": WHY}
    desk.done("POST", f"{desk.account}/tariffs", body)


def release(desk: Desk) -> None:
    body = {"account": desk.customer.number, "kind": "dispute", "reason": "asked"}
    made = desk.done("POST", "holds", body)
    desk.done("POST", f"holds/{made['id']}/release", {"note": WHY})


def emergency(desk: Desk) -> None:
    desk.done("POST", f"{desk.account}/emergency-credit", {"reason": WHY})


def reverse_late(desk: Desk) -> None:
    paid = desk.site.pay(desk.customer, "20.00", "t-1").json()
    for _ in range(2):
        answer = desk.send("POST", "reversals", {"top_up": paid["id"], "reason": WHY})
        assert answer.json()["code"] == "token_issued"


def move_late(desk: Desk) -> None:
    paid = desk.site.pay(desk.customer, "20.00", "t-1").json()
    body = {"meter": desk.other.meter, "reason": WHY}
    answer = desk.send("POST", f"{desk.account}/top-ups/{paid['id']}/moves", body)
    assert answer.json()["code"] == "token_issued"


OTHER = "*"
CASES: list[tuple[str, Callable[[Desk], object], object, object]] = [
    ("account.low_credit", low_credit,
     {"threshold": "20.000000", "days": None}, {"threshold": "7.000000", "days": None}),
    ("grant.give", grant, None, {"phone": "+222••••••02", "role": "payer"}),
    ("grant.give", greater_grant,
     {"phone": "+222••••••02", "role": "payer"}, {"phone": "+222••••••02", "role": "holder"}),
    ("grant.withdraw", end_grant, {"phone": "+222••••••02", "role": "payer"}, None),
    ("centre.open", centre, None, {"name": "West"}),
    ("meter.register", meter, None, {"centre": "north", "account": None, "tariff": None}),
    ("customer.language", language, {"language": "ar"}, {"language": "fr"}),
    ("customer.paper", paper, {"wanted": False}, {"wanted": True}),
    ("contact.register", contact, None, {"channel": "email", "address": OTHER}),
    ("contact.remove", end_contact, {"channel": "phone"}, None),
    ("contact.consent", consent,
     {"channel": "phone", "wording": "w-1"}, {"channel": "phone", "wording": "w-2"}),
    ("contact.consent", end_consent,
     {"channel": "phone", "wording": "w-1"}, {"channel": "phone", "wording": None}),
    ("adjustment.approve", approve_correction,
     {"state": "requested", "amount": "900.000000"}, {"state": "posted", "amount": "900.000000"}),
    ("adjustment.refuse", refuse_correction,
     {"state": "requested", "amount": "900.000000"}, {"state": "refused", "amount": "900.000000"}),
    ("engineering_token.approve", approve_token,
     {"decision": None}, {"decision": "approved", "meter": OTHER, "work": OTHER}),
    ("tariff.approve", approve_draft,
     {"state": "drafted"}, {"state": "approved", "tariff_version": "2026-05-01"}),
    ("tariff.withdraw", withdraw_draft,
     {"state": "drafted"}, {"state": "withdrawn", "tariff_version": "2026-05-01"}),
    ("tariff.assign", assign,
     {"tariff": "social"}, {"tariff": "plain", "tariff_version": "2026-04-01"}),
    ("tariff.assign", assign_back,
     {"tariff": "plain"}, {"tariff": "social", "tariff_version": "2026-05-01"}),
    ("hold.release", release,
     {"kind": "dispute", "from": "2026-03-01T00:00:00Z"},
     {"released": "2026-03-01T00:00:00Z"}),
    ("account.emergency_credit", emergency, {"in_use": False}, {"in_use": OTHER}),
    ("appeal.open", reverse_late, None, {"appeal": OTHER, "kind": "reversal", "to_meter": None}),
    ("appeal.open", move_late, None, {"appeal": OTHER, "kind": "move", "to_meter": OTHER}),
]  # fmt: skip


def shape(found: Any, wanted: Any) -> Any:
    """What was found, without the values that are left open."""
    if not isinstance(found, dict) or not isinstance(wanted, dict):
        return found
    return {name: OTHER if wanted.get(name) == OTHER else each for name, each in found.items()}


@pytest.mark.parametrize(
    ("action", "act", "before", "after"), CASES, ids=[case[1].__name__ for case in CASES]
)
def test_an_act_says_who_when_why_before_and_after(
    desk: Desk, action: str, act: Callable[[Desk], object], before: Any, after: Any
) -> None:
    act(desk)
    newest = desk.acts(action)[0]
    assert newest["who"] in {"admin", "second"}
    assert newest["at"] == "2026-03-01T00:00:00Z"
    assert newest["reason"] == WHY
    assert (shape(newest["before"], before), shape(newest["after"], after)) == (before, after)
    # Once, however often it was asked for.
    assert [each["reason"] for each in desk.acts(action)].count(WHY) == 1


def test_a_reason_may_be_left_out_where_it_was_never_asked_for(desk: Desk) -> None:
    desk.done("POST", f"adjustments/{correction(desk)}/approval", second=True)
    desk.done("POST", f"{desk.account}/emergency-credit")
    assert desk.acts("adjustment.approve")[0]["reason"] is None
    assert desk.acts("account.emergency_credit")[0]["reason"] is None


def test_what_a_customer_does_himself_is_no_act_of_an_operator(desk: Desk) -> None:
    headers = desk.customer.headers
    path = f"/v1/{desk.account}/emergency-credit"
    asked = desk.site.client.post(path, headers=headers, json={"reason": WHY})
    assert asked.status_code == 200, asked.text
    paid = desk.site.pay(desk.customer, "20.00", "t-1").json()
    body = {"meter": desk.other.meter, "reason": WHY}
    path = f"/v1/{desk.account}/top-ups/{paid['id']}/moves"
    moved = desk.site.client.post(path, headers={**headers, "Idempotency-Key": "m"}, json=body)
    assert moved.json()["code"] == "token_issued"
    assert desk.acts("account.emergency_credit") == desk.acts("appeal.open") == []


def test_an_erasure_says_why_of_each_contact_that_it_ends(desk: Desk) -> None:
    desk.done("POST", f"customers/{desk.holder}/erasure", {"reason": WHY})
    assert [each["reason"] for each in desk.acts("contact.remove")] == [WHY]


def test_the_centre_of_an_act_is_that_of_its_account(desk: Desk) -> None:
    for act, action in ((emergency, "account.emergency_credit"), (reverse_late, "appeal.open")):
        act(desk)
        assert desk.acts(action)[0]["centre"] == "north"
