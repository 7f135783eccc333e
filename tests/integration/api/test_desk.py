"""Operators at work through the API: what they do happens once, by the right people, for ever."""

from threading import Thread
from typing import Any

import pytest
import structlog
from psycopg.errors import InsufficientPrivilege

from schemas.quantities import format_instant
from store import key_changes, operators

Site = Any
DAY_MS = 24 * 3600 * 1000
WORK = {"work": "clear_tamper_condition", "reason": "cover was open at the visit"}


class Staff:
    """Operators of one application, each with a key."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.headers: dict[str, dict[str, str]] = {}
        for name, role in (
            ("dora", "desk"), ("sam", "supervisor"), ("sue", "supervisor"), ("finn", "finance"),
            ("fred", "field"), ("ann", "auditor"), ("fay", "finance"),
        ):  # fmt: skip
            operators.add(site.conn, name, role, who="test", now_ms=site.clock.now)  # type: ignore[arg-type] # a role by its name
            key = operators.add_access_key(site.conn, name, "t", who="test", now_ms=0)
            self.headers[name] = {"Authorization": f"Bearer {key}"}

    def send(
        self, who: str, path: str, body: object = None, *, method: str = "POST", key: str = ""
    ) -> Any:
        headers = {**self.headers[who], "Idempotency-Key": key or f"k{next(self.site.ids)}"}
        return self.site.client.request(method, f"/v1/{path}", headers=headers, json=body)

    def get(self, caller: str, path: str, /, **query: object) -> Any:
        answer = self.site.client.get(f"/v1/{path}", headers=self.headers[caller], params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def log(self, **query: object) -> list[Any]:
        found: list[Any] = self.get("ann", "audit-log", **query)["items"]
        return found


@pytest.fixture(scope="module")
def staff(shared_site: Site) -> Staff:
    return Staff(shared_site)


@pytest.fixture
def site(shared_site: Site) -> Site:
    return shared_site


def correction(customer: Any, amount: str, **more: str) -> dict[str, str]:
    return {"account": customer.number, "amount": amount, "reason": "a bill of last year", **more}


def balance(site: Site, customer: Any) -> str:
    return str(site.get(customer, "/balance")["balance"]["amount"])


def test_a_correction_is_posted_once_however_often_it_is_sent(
    site: Site, staff: Staff, refused: Any
) -> None:
    customer = site.open(tariff=plain(site))
    body = correction(customer, "12.50")
    first = staff.send("finn", "adjustments", body, key="one")
    again = staff.send("finn", "adjustments", dict(reversed(body.items())), key="one")
    assert (first.status_code, first.json()) == (201, again.json())
    assert first.json()["state"] == "posted"
    assert balance(site, customer) == "12.500000"
    other = staff.send("finn", "adjustments", correction(customer, "12.51"), key="one")
    assert refused(other) == (409, "idempotency_conflict")
    # The key is the caller's own: another person's is another request.
    assert staff.send("fay", "adjustments", body, key="one").json()["id"] != first.json()["id"]
    assert balance(site, customer) == "25.000000"
    staff.send("finn", "adjustments", correction(customer, "−5.00"))
    assert balance(site, customer) == "20.000000"


def plain(site: Site) -> int:
    found = site.conn.execute("SELECT id FROM tariff WHERE code = 'plain'").fetchone()
    return int(found[0]) if found else site.free_of_charges()


def test_the_same_request_many_times_at_once_is_one(site: Site, staff: Staff) -> None:
    customer = site.open(tariff=plain(site))
    seen: list[Any] = []

    def send() -> None:
        answer = staff.send("finn", "adjustments", correction(customer, "1.00"), key="at-once")
        seen.append((answer.status_code, answer.json()))

    threads = [Thread(target=send) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({repr(each) for each in seen}) == 1
    assert balance(site, customer) == "1.000000"


def test_a_large_correction_takes_two_people(site: Site, staff: Staff, refused: Any) -> None:
    customer = site.open(tariff=plain(site))
    asked = staff.send("finn", "adjustments", correction(customer, "600.00")).json()
    assert (asked["state"], asked["posted_at"]) == ("requested", None)
    assert balance(site, customer) == "0.000000"
    own = staff.send("finn", f"adjustments/{asked['id']}/approval")
    assert refused(own) == (409, "second_person_needed")
    waiting = staff.get("ann", "adjustments", state="requested", account=customer.number)
    assert [each["id"] for each in waiting["items"]] == [asked["id"]]
    done = staff.send("sam", f"adjustments/{asked['id']}/approval").json()
    assert (done["state"], done["decided_by"]) == ("posted", "sam")
    assert balance(site, customer) == "600.000000"
    late = staff.send("sue", f"adjustments/{asked['id']}/refusal")
    assert refused(late) == (409, "adjustment_posted")
    approve, enter = staff.log(subject=f"adjustment:{asked['id']}")
    assert (enter["who"], enter["action"], enter["reason"]) == (
        "finn", "adjustment.enter", "a bill of last year"
    )  # fmt: skip
    assert enter["after"] == {"amount": "600.000000", "state": "requested"}
    assert (approve["who"], approve["role"], approve["centre"]) == ("sam", "supervisor", "north")
    assert (approve["before"]["state"], approve["after"]["state"]) == ("requested", "posted")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"amount": "0"}, "amount_not_positive"),
        ({"amount": "--1"}, "amount_not_positive"),
        ({"amount": "1.001"}, "amount_too_precise"),
        ({"amount": "x"}, "bad_amount"),
        ({"currency": "XOF"}, "currency_mismatch"),
        ({"reason": " "}, "invalid_request"),
        ({"amount": 5}, "invalid_request"),
    ],
)
def test_a_correction_that_is_none_is_refused(
    site: Site, staff: Staff, refused: Any, change: dict[str, Any], code: str
) -> None:
    body = {**correction(site.open(), "1.00"), **change}
    assert refused(staff.send("finn", "adjustments", body)) == (422, code)


def test_without_a_key_of_its_own_nothing_moves(site: Site, staff: Staff, refused: Any) -> None:
    body = correction(site.open(), "1.00")
    answer = site.client.post("/v1/adjustments", headers=staff.headers["finn"], json=body)
    assert refused(answer) == (422, "invalid_request")
    assert answer.json()["errors"][0]["pointer"] == "Idempotency-Key"


def test_a_hold_is_placed_listed_and_released(site: Site, staff: Staff, refused: Any) -> None:
    customer = site.open()
    body = {"account": customer.number, "kind": "medical", "reason": "oxygen at home"}
    held = staff.send("dora", "holds", body).json()
    assert (held["placed_by"], held["until"], held["released_at"]) == ("dora", None, None)
    listed = staff.get("fred", "holds", account=customer.number, in_force=True)["items"]
    assert listed == [held]
    done = staff.send("sam", f"holds/{held['id']}/release", {"note": "moved to the hospital"})
    again = staff.send("sue", f"holds/{held['id']}/release", {"note": "again"})
    assert done.json() == again.json()
    assert (done.json()["released_by"], again.status_code) == ("sam", 200)
    assert staff.get("fred", "holds", account=customer.number, in_force=True)["items"] == []
    assert [each["action"] for each in staff.log(subject=f"hold:{held['id']}")] == [
        "hold.release", "hold.place"
    ]  # fmt: skip
    past = staff.send("dora", "holds", {**body, "until": "2020-01-01T00:00:00Z"})
    assert refused(past) == (409, "hold_refused")


def test_an_account_is_found_and_shown_with_its_decisions(site: Site, staff: Staff) -> None:
    customer = site.open(tariff=plain(site))
    site.pay(customer, "30.00", f"desk-{customer.number}")
    for search in (customer.number, customer.meter[:9], "AMINATA"):
        found = staff.get("dora", "accounts", search=search, limit=500)["items"]
        assert customer.number in {each["account"] for each in found}
    assert staff.get("dora", "accounts", search="100%")["items"] == []
    shown = staff.get("dora", f"accounts/{customer.number}")
    assert (shown["centre"], shown["tariff"], shown["supply"]) == ("north", "plain", "connected")
    assert shown["warned_at"] == {"amount": "20.000000", "currency": "MRU"}
    changed = staff.send(
        "dora", f"accounts/{customer.number}/low-credit", {"amount": "35.00"}, method="PUT"
    )
    assert changed.json()["warned_at"]["amount"] == "35.000000"
    page = staff.get("ann", f"accounts/{customer.number}/decisions", limit=1)
    rest = staff.get(
        "ann", f"accounts/{customer.number}/decisions", cursor=page["next_cursor"], limit=1
    )
    newest, before = page["items"] + rest["items"]
    assert (newest["kind"], newest["ordinal"] - 1) == ("low_credit", before["ordinal"])


def test_a_payment_is_taken_back_only_while_no_token_left(
    site: Site, staff: Staff, refused: Any
) -> None:
    silent, vended = site.open(sts=False, tariff=plain(site)), site.open()
    paid = site.pay(silent, "20.00", f"back-{silent.number}").json()
    body = {"top_up": paid["id"], "reason": "paid for the wrong meter"}
    taken = staff.send("finn", "reversals", body).json()
    assert taken["state"] == "reversed"
    assert balance(site, silent) == "0.000000"
    (act,) = staff.log(subject=f"top_up:{paid['id']}")
    assert (act["who"], act["reason"]) == ("finn", "paid for the wrong meter")
    gone = site.pay(vended, "20.00", f"back-{vended.number}").json()
    late = staff.send("finn", "reversals", {**body, "top_up": gone["id"]})
    assert refused(late) == (409, "token_issued")


def test_a_reprint_shows_the_same_digits_and_says_who_asked(site: Site, staff: Staff) -> None:
    customer = site.open()
    paid = site.pay(customer, "20.00", f"print-{customer.number}").json()
    body = {"top_up": paid["id"], "reason": "the slip got wet"}
    shown = staff.send("dora", "tokens/reprints", body)
    assert shown.json()["tokens"] == paid["tokens"]
    (act,) = staff.log(subject=f"top_up:{paid['id']}")
    assert (act["who"], act["action"], act["reason"]) == ("dora", "token.reprint", body["reason"])
    assert paid["tokens"][0] not in repr(act)


def test_an_engineering_token_takes_two_people_and_is_issued_once(
    site: Site, staff: Staff, refused: Any
) -> None:
    customer = site.open()
    site.clock.now += DAY_MS
    body = {"meter": customer.meter, **WORK}
    asked = staff.send("sam", "tokens/engineering", body).json()
    assert (asked["decision"], asked["digits"]) == (None, None)
    path = f"tokens/engineering/{asked['id']}"
    assert refused(staff.send("sam", f"{path}/approval")) == (409, "same_person")
    assert refused(staff.send("fred", f"{path}/approval")) == (403, "role_refused")
    waiting = staff.get("fred", "tokens/engineering", waiting=True)["items"]
    assert asked["id"] in {each["id"] for each in waiting}
    done = staff.send("sue", f"{path}/approval", key="issue").json()
    assert done == staff.send("sue", f"{path}/approval", key="issue").json()
    assert len(done["digits"]) == 20
    assert staff.get("sam", path)["digits"] == done["digits"]
    assert staff.get("ann", path)["digits"] == "*" * 16 + done["digits"][-4:]
    late = staff.send("sue", f"{path}/refusal", {"note": "no"})
    assert refused(late) == (409, "already_decided")
    assert done["digits"] not in repr(staff.log())


def test_a_crew_member_sees_the_digits_that_he_asked_for(site: Site, staff: Staff) -> None:
    site.clock.now += DAY_MS
    body = {"meter": site.open().meter, **WORK}
    asked = staff.send("fred", "tokens/engineering", body).json()
    done = staff.send("sam", f"tokens/engineering/{asked['id']}/approval").json()
    assert staff.get("fred", f"tokens/engineering/{asked['id']}")["digits"] == done["digits"]


@pytest.mark.parametrize(("control", "status"), [(2**36 - 1, 201), (2**36, 422)])
def test_test_0_of_a_meter_can_be_asked_for(
    site: Site, staff: Staff, control: int, status: int
) -> None:
    fields = {"control": control, "mfr_code": 0}
    body = {"meter": site.open().meter, **WORK, "work": "initiate_meter_test", "fields": fields}
    asked = staff.send("fred", "tokens/engineering", body)
    assert asked.status_code == status
    assert status != 201 or asked.json()["fields"] == fields


def test_requests_for_engineering_tokens_are_bounded_by_role(
    site: Site, staff: Staff, refused: Any
) -> None:
    site.clock.now += 2 * DAY_MS
    body = {"meter": site.open().meter, **WORK}
    allowed = 10
    for _ in range(allowed):
        assert staff.send("dora", "tokens/engineering", body).status_code == 201
    late = staff.send("dora", "tokens/engineering", body, key="retry")
    assert refused(late) == (409, "daily_limit_reached")
    assert staff.send("fred", "tokens/engineering", body).status_code == 201
    # A refusal is not kept: the same request may come again under its key.
    site.clock.now += DAY_MS
    assert staff.send("dora", "tokens/engineering", body, key="retry").status_code == 201


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"work": "open_the_door"}, 422, "invalid_request"),
        ({"fields": {"mpl": 1}}, 409, "bad_field"),
        ({"fields": {"mpl": -1}}, 422, "invalid_request"),
        ({"reason": ""}, 422, "invalid_request"),
        ({"meter": "12345"}, 422, "bad_meter_number"),
    ],
)
def test_a_request_for_work_that_no_token_does_is_refused(
    site: Site, staff: Staff, refused: Any, change: dict[str, Any], status: int, code: str
) -> None:
    site.clock.now += DAY_MS
    body = {"meter": site.open().meter, **WORK, **change}
    assert refused(staff.send("fred", "tokens/engineering", body)) == (status, code)


def test_digits_are_read_found_in_our_books_and_their_slips_explained(
    site: Site, staff: Staff
) -> None:
    customer = site.open(tariff=plain(site))
    paid = site.pay(customer, "24.59", f"read-{customer.number}").json()
    (digits,) = paid["tokens"]
    typed = " ".join(digits[at : at + 4] for at in range(0, 20, 4))
    answer = staff.send("dora", "tokens/decode", {"digits": typed, "meter": customer.meter}).json()
    (issued,) = answer["issued_by_us"]
    assert (issued["meter"], issued["receipt_number"]) == (customer.meter, paid["receipt_number"])
    assert answer["read"]["energy_wh"] == paid["energy_wh"]
    assert (answer["problem"], answer["likely_meant"]) == (None, [])
    swapped = next(at for at in range(1, 18) if digits[at] != digits[at + 1])
    slip = digits[:swapped] + digits[swapped + 1] + digits[swapped] + digits[swapped + 2 :]
    answer = staff.send("dora", "tokens/decode", {"digits": slip, "meter": customer.meter}).json()
    assert (answer["read"], answer["issued_by_us"]) == (None, [])
    assert digits in {each["digits"] for each in answer["likely_meant"]}
    alone = staff.send("fred", "tokens/decode", {"digits": digits}).json()
    assert (alone["token_class"], alone["read"], len(alone["issued_by_us"])) == (0, None, 1)
    rubbish = staff.send("fred", "tokens/decode", {"digits": "12 34"}).json()
    assert (rubbish["token_class"], rubbish["issued_by_us"]) == (None, [])
    assert rubbish["problem"]


def test_a_key_change_that_somebody_saw_is_confirmed_by_hand(site: Site, staff: Staff) -> None:
    customer = site.open()
    key_changes.want(site.conn, customer.meter, site.clock.now, by="vera", ti="07")
    tokens = site.pay(customer, "20.00", f"key-{customer.number}").json()["tokens"]
    assert len(tokens) > 1
    path = f"meters/{customer.meter}/key-change/confirmation"
    held = staff.send("fred", path, {"note": "Sidi saw it at the keypad"}).json()
    assert (held["meter"], held["ti"]) == (customer.meter, "07")
    act, *_ = staff.log(subject=f"meter:{customer.meter}")
    assert (act["who"], act["reason"]) == ("fred", "Sidi saw it at the keypad")
    assert (act["before"]["ti"], act["after"]["ti"]) == ("01", "07")
    assert not [digits for digits in tokens if digits in repr(act)]


def test_a_meter_without_a_key_change_has_none_to_confirm(
    site: Site, staff: Staff, refused: Any
) -> None:
    path = f"meters/{site.open().meter}/key-change/confirmation"
    assert refused(staff.send("fred", path, {"note": "seen"})) == (409, "no_key_change")


def test_an_item_of_the_quarantine_is_closed_with_a_note_and_stays(
    site: Site, staff: Staff, refused: Any
) -> None:
    customer = site.open()
    site.say(customer.meter, "reading", {"v": 9, "of": customer.number})
    at = site.clock.now // 1000 * 1000
    site.read(customer, format_instant(at + 60_000), 101_000)
    site.read(customer, format_instant(at + 120_000), 100_500)
    items = staff.get("dora", "quarantine", closed=False, limit=500)["items"]
    reading = next(each for each in items if each["meter"] == customer.meter)
    message = next(each for each in items if customer.meter in each["topic"])
    for item in (reading, message):
        path = f"quarantine/{item['id']}/closing"
        done = staff.send("fred", path, {"note": "the register was replaced"})
        assert done.json()["closed_by"] == "fred"
        assert staff.send("fred", path, {"note": "the register was replaced"}).json() == done.json()
        other = staff.send("dora", path, {"note": "no"})
        assert refused(other) == (409, "already_closed")
    left = staff.get("dora", "quarantine", closed=False, limit=500)["items"]
    assert not {reading["id"], message["id"]} & {each["id"] for each in left}
    kept = staff.get("dora", "quarantine", closed=True, limit=500)["items"]
    assert {reading["id"], message["id"]} <= {each["id"] for each in kept}
    for wrong in ("message-0", "reading-1-1.8.0-5", "x"):
        answer = staff.send("dora", f"quarantine/{wrong}/closing", {"note": "n"})
        assert refused(answer) == (404, "not_found")


def test_a_centre_is_opened_once(site: Site, staff: Staff, refused: Any) -> None:
    body = {"code": "east", "name": "East"}
    made = site.client.post("/v1/centres", headers=site.operator, json=body)
    opened = {"code": "east", "name": "East", "accounts": 0, "meters": 0, "customers": 0}
    assert opened.items() <= made.json().items()
    again = site.client.post("/v1/centres", headers=site.operator, json=body)
    assert refused(again) == (409, "centre_exists")
    listed = site.client.get("/v1/centres", headers=staff.headers["fred"]).json()["items"]
    assert [each["code"] for each in listed] == ["east", "north"]


def test_operators_are_listed_without_anything_secret(site: Site, staff: Staff) -> None:
    items = staff.get("ann", "operators")["items"]
    fred = next(each for each in items if each["name"] == "fred")
    assert (fred["role"], fred["centres"], fred["disabled_at"]) == ("field", None, None)
    key = staff.headers["fred"]["Authorization"].removeprefix("Bearer ")
    assert key.startswith(fred["keys"][0])
    assert key not in repr(items)


def test_the_log_is_paged_and_cannot_be_changed(site: Site, staff: Staff) -> None:
    whole = staff.log(who="test", limit=5)
    first = staff.get("ann", "audit-log", who="test", limit=2)
    second = staff.get("ann", "audit-log", who="test", limit=3, cursor=first["next_cursor"])
    assert first["items"] + second["items"] == whole
    for change in ("UPDATE audit_log SET who = 'x'", "DELETE FROM audit_log", "TRUNCATE audit_log"):
        with pytest.raises(InsufficientPrivilege):
            site.conn.execute(change)


def test_a_write_that_fails_leaves_no_trace_in_the_log(
    site: Site, staff: Staff, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = site.open(tariff=plain(site))
    before = len(staff.log(limit=500))

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("store.adjustments.audit_log.record", fail)
    # Captured: to draw the traceback of a request takes long.
    with structlog.testing.capture_logs():
        answer = staff.send("finn", "adjustments", correction(customer, "1.00"))
    assert answer.status_code == 500
    assert len(staff.log(limit=500)) == before
    assert balance(site, customer) == "0.000000"
