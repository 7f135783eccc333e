"""Contacts: taken down, verified, agreed to, replaced, removed; and what stays of it for ever."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import psycopg
import pytest

from store import operators, registry

Site = Any
PHONES: Iterator[str] = (f"+2223{number:07d}" for number in count(3000001))


@pytest.fixture
def site(shared_site: Site) -> Site:
    shared_site.clock.wall += 2 * 24 * 3600
    return shared_site


def of(holder: int, path: str = "") -> str:
    return f"/v1/customers/{holder}{path}"


def send(site: Site, method: str, path: str, headers: dict[str, str], body: object = None) -> Any:
    return site.client.request(method, path, headers=headers, json=body)


def take_down(
    site: Site,
    headers: dict[str, str],
    holder: int,
    address: str,
    channel: str = "phone",
    **more: Any,
) -> Any:
    body = {"channel": channel, "address": address, **more}
    return send(site, "POST", of(holder, "/contacts"), headers, body)


def listed(site: Site, headers: dict[str, str], holder: int) -> list[tuple[str, str, bool]]:
    items = send(site, "GET", of(holder, "/contacts"), headers).json()["items"]
    return [(each["channel"], each["address"], each["verified_at"] is not None) for each in items]


def confirm(site: Site, headers: dict[str, str], holder: int, channel: str = "phone") -> Any:
    site.clock.wall += 31
    asked = send(site, "POST", of(holder, f"/contacts/{channel}/code"), headers)
    assert asked.status_code == 202, asked.text
    path = of(holder, f"/contacts/{channel}/confirmation")
    return send(site, "POST", path, headers, {"code": site.newest_code()})


def history(site: Site, holder: int) -> list[str]:
    items = send(site, "GET", of(holder, "/contacts/history"), site.operator).json()["items"]
    return [each["kind"] for each in reversed(items)]


def desk_of(site: Site, name: str, *centres: str) -> dict[str, str]:
    if all(each.name != name for each in operators.listed(site.conn)):
        operators.add(site.conn, name, "desk", centres, who="test", now_ms=site.clock.now)
    key = operators.add_access_key(site.conn, name, "t", who="test", now_ms=site.clock.now)
    return {"Authorization": f"Bearer {key}"}


def test_a_new_phone_takes_the_place_of_the_old_once_its_code_is_said(site: Site) -> None:
    customer, old, new = site.open(), next(PHONES), next(PHONES)
    holder = site.reach(customer, old)
    mine = site.signed_in(old)
    assert take_down(site, mine, holder, new, wording="2026-1").status_code == 201
    assert listed(site, mine, holder) == [("phone", old, True), ("phone", new, False)]
    # Until then the old one signs in, and the new one does not.
    assert site.client.get("/v1/accounts", headers=mine).json()["items"] != []
    site.clock.wall += 31
    site.client.post("/v1/auth/otp", json={"phone": new})
    assert site.newest_code() is None
    assert confirm(site, mine, holder).json()["verified_at"] is not None
    assert listed(site, site.operator, holder) == [("phone", new, True)]
    assert site.client.get("/v1/accounts", headers=mine).status_code == 401
    assert site.client.get("/v1/accounts", headers=site.signed_in(new)).json()["items"] != []
    assert history(site, holder) == [
        "registered", "consent_given", "verified_at_desk", "registered", "consent_given",
        "replaced", "verified_by_code",
    ]  # fmt: skip


def test_the_history_holds_no_address_and_cannot_be_changed(site: Site, as_owner: Any) -> None:
    phone = next(PHONES)
    holder = site.reach(site.open(), phone)
    take_down(site, site.operator, holder, "aminata@example.org", "email", wording="2026-1")
    (kept,) = site.conn.execute("SELECT string_agg(e::text, ' ') FROM contact_event e").fetchone()
    assert phone not in kept
    assert "aminata" not in kept
    url = as_owner(f"postgresql:///{site.conn.info.dbname}")
    with psycopg.connect(url, autocommit=True) as owner:
        for change in ("UPDATE contact_event SET note = 'x'", "DELETE FROM contact_event"):
            with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
                owner.execute(change)


def test_consent_is_kept_with_its_words_place_and_person_and_withdrawn(site: Site) -> None:
    holder = site.reach(site.open(), next(PHONES))
    path = of(holder, "/contacts/phone/consent")
    body = {"wording": "2026-2", "centre": "north"}
    (shown,) = send(site, "PUT", path, site.operator, body).json()["items"]
    assert shown["wording"] == "2026-2"
    send(site, "PUT", path, site.operator, body)
    (shown,) = send(site, "PUT", path, site.operator, {"wording": None}).json()["items"]
    assert (shown["wording"], shown["consent_at"]) == (None, None)
    events = send(site, "GET", of(holder, "/contacts/history"), site.operator).json()["items"]
    assert [(each["kind"], each["wording"], each["by"], each["place"]) for each in events[:2]] == [
        ("consent_withdrawn", None, "admin", "desk"),
        ("consent_given", "2026-2", "admin", "north"),
    ]
    # The repeat in between left no trace.
    assert len(events) == 5


def test_a_desk_verifies_with_a_note_and_the_log_shows_no_number(site: Site) -> None:
    holder, phone = site.holder_of(site.open()), next(PHONES)
    desk = desk_of(site, "fatima", "north")
    assert take_down(site, desk, holder, phone, centre="north").status_code == 201
    path = of(holder, "/contacts/phone/desk-verification")
    verified = send(site, "POST", path, desk, {"note": "called it at the desk"})
    assert verified.json()["verified_at"] is not None
    query = {"subject": f"customer:{holder}"}
    acts = site.client.get("/v1/audit-log", headers=site.operator, params=query)
    assert [each["action"] for each in acts.json()["items"]] == [
        "contact.verify", "contact.register",
    ]  # fmt: skip
    assert acts.json()["items"][0]["reason"] == "called it at the desk"
    assert acts.json()["items"][0]["centre"] == "north"
    assert phone not in acts.text
    assert phone[-2:] in acts.json()["items"][1]["after"]["address"]


def test_every_channel_has_its_own_contact(site: Site) -> None:
    holder = site.holder_of(site.open())
    headers = site.operator
    for channel, address in (("email", "Aminata@EXAMPLE.org"), ("whatsapp", "+33 6 12 34 56 78")):
        assert take_down(site, headers, holder, address, channel).status_code == 201
        assert confirm(site, headers, holder, channel).status_code == 200
    assert listed(site, headers, holder) == [
        ("email", "Aminata@example.org", True), ("whatsapp", "+33612345678", True),
    ]  # fmt: skip
    # None of them is a phone that signs in.
    site.clock.wall += 31
    site.client.post("/v1/auth/otp", json={"phone": next(PHONES)})
    assert site.newest_code() is None


def test_the_same_address_again_is_the_same_contact(site: Site) -> None:
    holder, phone = site.holder_of(site.open()), next(PHONES)
    for _ in range(2):
        assert take_down(site, site.operator, holder, phone, wording="w").status_code == 201
    assert history(site, holder) == ["registered", "consent_given"]
    assert take_down(site, site.operator, holder, next(PHONES)).status_code == 201
    assert history(site, holder)[2:] == ["replaced", "registered"]


def test_a_wrong_or_another_contacts_code_verifies_nothing(site: Site, refused: Any) -> None:
    holder, other = site.holder_of(site.open()), site.holder_of(site.open())
    for each in (holder, other):
        take_down(site, site.operator, each, next(PHONES))
    send(site, "POST", of(other, "/contacts/phone/code"), site.operator)
    foreign = site.newest_code()
    send(site, "POST", of(holder, "/contacts/phone/code"), site.operator)
    own = site.newest_code()
    path = of(holder, "/contacts/phone/confirmation")
    if own != foreign:
        found = send(site, "POST", path, site.operator, {"code": foreign})
        assert refused(found) == (422, "contact_code_refused")
    assert send(site, "POST", path, site.operator, {"code": own}).status_code == 200
    again = send(site, "POST", path, site.operator, {"code": own})
    assert refused(again) == (404, "not_found")


def test_codes_to_a_contact_are_bounded(site: Site, refused: Any) -> None:
    holder = site.holder_of(site.open())
    take_down(site, site.operator, holder, next(PHONES))
    path = of(holder, "/contacts/phone/code")
    assert send(site, "POST", path, site.operator).status_code == 202
    assert refused(send(site, "POST", path, site.operator)) == (429, "too_many_attempts")


def test_removing_a_phone_signs_its_person_out(site: Site, refused: Any) -> None:
    phone = next(PHONES)
    holder = site.reach(site.open(), phone)
    mine = site.signed_in(phone)
    path = of(holder, "/contacts/phone")
    assert send(site, "DELETE", path, site.operator).status_code == 204
    assert refused(send(site, "GET", of(holder), mine)) == (401, "access_key_unknown")
    assert refused(send(site, "DELETE", path, site.operator)) == (404, "not_found")
    assert history(site, holder)[-1] == "removed"


def test_what_a_stolen_telephone_must_not_do_asks_for_a_new_sign_in(
    site: Site, refused: Any
) -> None:
    customer, phone = site.open(), next(PHONES)
    holder = site.reach(customer, phone)
    mine = site.signed_in(phone)
    grant = {"phone": next(PHONES), "role": "payer"}
    acts = [
        ("POST", of(holder, "/contacts"), {"channel": "phone", "address": next(PHONES)}),
        ("DELETE", of(holder, "/contacts/phone"), None),
        ("GET", of(holder, "/export"), None),
        ("POST", f"/v1/accounts/{customer.number}/grants", grant),
    ]
    site.clock.wall += 15 * 60 + 1
    for method, path, body in acts:
        assert refused(send(site, method, path, mine, body)) == (403, "sign_in_again"), path
    # What changes nothing for anybody else goes on.
    assert send(site, "PUT", of(holder, "/language"), mine, {"language": "fr"}).status_code == 200
    fresh = site.signed_in(phone)
    method, path, body = acts[0]
    assert send(site, method, path, fresh, body).status_code == 201


def test_another_customer_looks_like_none(site: Site, refused: Any) -> None:
    phone = next(PHONES)
    site.reach(site.open(), phone)
    mine = site.signed_in(phone)
    key = site.open().headers
    registry.add_centre(site.conn, "south", "South")
    south = desk_of(site, "south.desk", "south")
    other = site.reach(site.open(), next(PHONES))
    routes = [
        ("GET", ""), ("PUT", "/language"), ("PUT", "/paper"), ("GET", "/contacts"),
        ("GET", "/contacts/history"), ("POST", "/contacts"), ("POST", "/contacts/phone/code"),
        ("POST", "/contacts/phone/confirmation"), ("PUT", "/contacts/phone/consent"),
        ("DELETE", "/contacts/phone"), ("GET", "/export"),
    ]  # fmt: skip
    body = {
        "/language": {"language": "fr"}, "/paper": {"wanted": True},
        "/contacts": {"channel": "phone", "address": next(PHONES)},
        "/contacts/phone/confirmation": {"code": "1"},
        "/contacts/phone/consent": {"wording": None},
    }  # fmt: skip
    for headers in (mine, key, south):
        for method, path in routes:
            for holder in (other, 999_999):
                found = send(site, method, of(holder, path), headers, body.get(path))
                assert refused(found) == (404, "not_found"), (method, path)
        seen = send(site, "GET", "/v1/customers", headers).json()["items"]
        assert str(other) not in [each["id"] for each in seen]


def test_a_desk_finds_a_customer_by_phone_or_name(site: Site) -> None:
    phone = next(PHONES)
    holder = site.reach(site.open(), phone)
    found = site.client.get(
        "/v1/customers", headers=site.operator, params={"contact": phone.removeprefix("+222")}
    )
    assert [each["id"] for each in found.json()["items"]] == [str(holder)]
    named = site.client.get(
        "/v1/customers", headers=site.operator, params={"name": "minata", "limit": 1}
    ).json()
    assert named["items"][0]["name"] == "Aminata Sow"
    assert named["next_cursor"] is not None


def test_a_customer_is_written_to_in_his_language(site: Site, refused: Any) -> None:
    phone = next(PHONES)
    holder = site.reach(site.open(), phone)
    mine = site.signed_in(phone)
    assert send(site, "GET", of(holder), mine).json()["language"] == "ar"
    changed = send(site, "PUT", of(holder, "/language"), mine, {"language": "ff"})
    assert changed.json()["language"] == "ff"
    site.signed_in(phone)
    (language,) = site.conn.execute(
        "SELECT language FROM code_message ORDER BY id DESC LIMIT 1"
    ).fetchone()
    assert language == "ff"
    unknown = send(site, "PUT", of(holder, "/language"), mine, {"language": "de"})
    assert refused(unknown) == (422, "invalid_request")


@pytest.mark.parametrize(
    ("channel", "address", "code"),
    [
        ("phone", "12 34", "bad_phone"),
        ("phone", "+33612345678", "phone_not_mobile"),
        ("whatsapp", "25 25 00 00", "phone_not_mobile"),
        ("email", "aminata", "bad_email"),
        ("email", "a b@example.org", "bad_email"),
        ("email", "a@b", "bad_email"),
    ],
)
def test_an_address_that_is_none_is_refused(
    site: Site, refused: Any, channel: str, address: str, code: str
) -> None:
    holder = site.holder_of(site.open())
    assert refused(take_down(site, site.operator, holder, address, channel)) == (422, code)
