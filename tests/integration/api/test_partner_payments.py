"""Partners' payments from the payer to "power is back": held, credited, moved, taken back."""

from itertools import count
from typing import Any

import pytest

from schemas.quantities import format_instant
from store import cuts, operators, registry, supply
from store.audit import audit

Site = Any
NUMBERS = (f"p-{number}" for number in count(1))
HOUR = 3_600_000


class Staff:
    """Operators of one application, each with a key."""

    def __init__(self, site: Site) -> None:
        self.site = site
        registry.add_centre(site.conn, "south", "South")
        self.headers = {
            name: self.hire(name, role, *centres)
            for name, role, *centres in (
                ("finn", "finance"), ("fay", "finance"), ("sam", "supervisor"), ("dora", "desk"),
                ("ann", "auditor"), ("nora", "finance", "north"), ("omar", "finance", "south"),
            )
        }  # fmt: skip

    def hire(self, name: str, role: str, *centres: str) -> dict[str, str]:
        now = self.site.clock.now
        operators.add(self.site.conn, name, role, centres, who="test", now_ms=now)  # type: ignore[arg-type] # a role by its name
        key = operators.add_access_key(self.site.conn, name, "t", who="test", now_ms=now)
        return {"Authorization": f"Bearer {key}"}

    def post(self, who: str, path: str, body: object, key: str = "") -> Any:
        headers = self.headers[who] | {"Idempotency-Key": key or f"k{next(self.site.ids)}"}
        return self.site.client.post(f"/v1/{path}", headers=headers, json=body)

    def get(self, caller: str, path: str, /, **query: object) -> Any:
        answer = self.site.client.get(f"/v1/{path}", headers=self.headers[caller], params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def acts(self, number: str) -> list[str]:
        found = self.get("ann", "audit-log", subject=f"payment:bank/{number}")["items"]
        return [each["action"] for each in reversed(found)]


@pytest.fixture(scope="module")
def staff(shared_site: Site) -> Staff:
    return Staff(shared_site)


@pytest.fixture
def site(shared_site: Site) -> Site:
    """Each test opens accounts of its own and passes the audit of the whole database."""
    shared_site.clock.now += HOUR
    return shared_site


@pytest.fixture
def plain(site: Site) -> int:
    """A tariff without a standing charge or taxes."""
    found = site.conn.execute("SELECT id FROM tariff WHERE code = 'plain'").fetchone()
    return int(found[0]) if found else site.free_of_charges()


def passes(site: Site) -> None:
    broken = [(check.name, check.failures) for check in audit(site.conn) if not check.passed]
    assert broken == []


def pay(site: Site, meter: str, amount: str, number: str, **more: Any) -> Any:
    partner = more.pop("partner", "bank")
    key = {"key": site.wallet_key()} if partner == "wallet" else {}
    body = {"partner_txn_id": number, "meter": meter, "amount": amount}
    body |= {"paid_at": format_instant(site.clock.now), **more}
    return site.signed("POST", "/payments", body, partner=partner, **key)


def shown(site: Site, number: str, **of: Any) -> Any:
    answer = site.signed("GET", f"/payments/{number}", **of)
    assert answer.status_code == 200, answer.text
    return answer.json()


def steps(body: Any) -> dict[str, str]:
    return {each["step"]: each["state"] for each in body["steps"]}


def balance(site: Site, customer: Any, part: str = "balance") -> str:
    return str(site.get(customer, "/balance")[part]["amount"])


def answer_of_meter(site: Site, customer: Any, result: str = "Accept") -> None:
    """The meter enters the token that was sent to it and says the relay is closed."""
    queued = supply.queued_commands(site.conn, 100)
    (carrier,) = [
        command
        for meter, _, command in queued
        if meter == customer.meter and command.type == "token"
    ]
    supply.mark_sent(site.conn, [carrier.cmd], site.clock.now)
    good = result == "Accept"
    word = {"format": True, "authentication": good, "validation": good, "execution": good}
    site.say(
        customer.meter,
        "ack",
        {
            "v": 1, "cmd": carrier.cmd, "state": "done" if good else "failed", "relay": "closed",
            "token": word | {"result": result}, "ts": format_instant(site.clock.now),
        },
    )  # fmt: skip


def test_a_payment_for_nobody_is_held_credited_by_a_person_and_tracked_all_the_way(
    site: Site, staff: Staff, refused: Any
) -> None:
    number, customer = next(NUMBERS), site.open()
    first = pay(site, "99999999999", "50.00", number)
    assert first.status_code == 202
    body = first.json()
    assert (body["state"], body["suspicion"]) == ("suspect", "unknown_meter")
    assert (body["account"], body["receipt_number"], body["tokens"]) == (None, None, [])
    assert steps(body) == {
        "paid": "done", "received": "done", "checked": "awaited", "credited": "later",
    }  # fmt: skip
    assert body["waits_for"] == "utility"
    again = pay(site, "99999999999", "50.00", number)
    assert (again.status_code, again.json()) == (202, body)
    assert refused(pay(site, "99999999999", "51.00", number)) == (409, "idempotency_conflict")

    # Nobody has the meter, so that it is of no centre.
    assert staff.get("nora", "payments/suspect")["items"] == []
    (held,) = staff.get("dora", "payments/suspect")["items"]
    assert (held["id"], held["partner_txn_id"], held["account"]) == (body["id"], number, None)
    path = f"payments/suspect/{held['id']}/crediting"
    right = {"meter": customer.meter, "reason": "the payer read the number once more"}
    assert refused(staff.post("dora", path, right)) == (403, "role_refused")
    assert refused(staff.post("nora", path, right)) == (404, "not_found")
    wrong = staff.post("finn", path, right | {"meter": "99999999999"})
    assert refused(wrong) == (404, "not_found")
    done = staff.post("finn", path, right, "credit-once")
    assert done.status_code == 200
    assert staff.post("finn", path, right, "credit-once").json() == done.json()
    assert (done.json()["decision"], done.json()["decided_by"]) == ("credited", "finn")
    sent_back = staff.post("finn", f"payments/suspect/{held['id']}/return", {"note": "no"})
    assert refused(sent_back) == (409, "suspect_decided")

    now = shown(site, number)
    assert (now["state"], now["account"]) == ("token_issued", customer.number)
    assert pay(site, "99999999999", "50.00", number).status_code == 201
    assert [each["state"] for each in now["states"]] == [
        "received", "suspect", "credited", "token_issued",
    ]  # fmt: skip
    assert steps(now) == {
        "paid": "done", "received": "done", "checked": "done", "credited": "done",
        "token_issued": "done", "delivered": "awaited", "accepted": "later",
        "on_supply": "not_needed",
    }  # fmt: skip
    answer_of_meter(site, customer)
    last = shown(site, number)
    assert (last["waits_for"], steps(last)["accepted"]) == (None, "done")
    assert balance(site, customer) == "50.000000"
    assert staff.acts(number) == ["payment.credited"]
    passes(site)


def test_what_speaks_against_a_payment_does_not_tell_one_bank_of_another(
    site: Site, staff: Staff
) -> None:
    number, customer = next(NUMBERS), site.open()
    assert pay(site, customer.meter, "70.00", number).status_code == 201
    twice = pay(site, customer.meter, "70.00", number, partner="wallet")
    assert (twice.status_code, twice.json()["suspicion"]) == (202, "paid_twice")
    assert "bank" not in twice.text.replace('"owner":"bank"', "")
    (held,) = staff.get("nora", "payments/suspect")["items"]
    assert "bank" in held["detail"]
    of = {"partner": "wallet", "key": site.wallet_key()}
    for _ in range(2):
        back = site.signed(
            "POST", f"/payments/{number}/reversals", {"reason": "the payer asked"}, **of
        )
        assert (back.status_code, back.json()["state"]) == (201, "reversed")
    assert steps(back.json())["returned"] == "done"
    assert shown(site, number, **of)["waits_for"] is None
    # A bank asks about its own number and is told of its own payment.
    assert shown(site, number)["state"] == "token_issued"
    assert balance(site, customer) == "70.000000"
    both = staff.get("dora", "payments", number=number)["items"]
    assert {each["channel"]: each["state"] for each in both} == {
        "bank": "token_issued", "wallet": "reversed",
    }  # fmt: skip
    passes(site)


def test_an_unusual_amount_waits_and_goes_back(site: Site, staff: Staff) -> None:
    customer = site.open()
    for _ in range(3):
        assert pay(site, customer.meter, "20.00", next(NUMBERS)).status_code == 201
    number = next(NUMBERS)
    old = pay(site, customer.meter, "2000.00", number)
    assert (old.status_code, old.json()["suspicion"]) == (202, "unusual_amount")
    path = f"payments/suspect/{old.json()['id']}/return"
    done = staff.post("nora", path, {"note": "old ouguiya were meant"})
    assert (done.status_code, done.json()["decision"]) == (200, "returned")
    assert shown(site, number)["state"] == "reversed"
    assert pay(site, customer.meter, "2000.00", number).status_code == 202
    assert balance(site, customer) == "60.000000"
    passes(site)


def test_who_has_paid_is_not_cut_while_a_person_looks(site: Site, staff: Staff, plain: int) -> None:
    customer = site.open(tariff=plain)
    for _ in range(3):
        pay(site, customer.meter, "2.00", next(NUMBERS))
    held = pay(site, customer.meter, "2000.00", next(NUMBERS)).json()
    assert held["state"] == "suspect"
    site.read(customer, format_instant(site.clock.now + HOUR), 104_000)
    assert site.get(customer, "/balance")["supply"]["state"] == "disconnected"
    (cut,) = cuts.of_account(site.conn, customer.account_id, limit=5)
    assert (list(cut.standing), cut.ended_by) == (["payment"], None)
    assert orders(site, customer) == []
    site.clock.now += HOUR
    path = f"payments/suspect/{held['id']}/return"
    assert staff.post("finn", path, {"note": "old ouguiya were meant"}).status_code == 200
    assert orders(site, customer) == ["open"]


def orders(site: Site, customer: Any) -> list[str]:
    """What the meter's relay was asked for."""
    rows = site.conn.execute(
        "SELECT c.args ->> 'to' FROM command c JOIN meter m ON m.id = c.meter_id"
        " WHERE m.number = %s AND c.type = 'relay' ORDER BY c.ctr",
        (customer.meter,),
    )
    return [to for (to,) in rows]


def test_an_unanswered_meter_is_awaited_and_a_refusal_is_the_utilitys_to_mend(site: Site) -> None:
    number, customer = next(NUMBERS), site.open()
    pay(site, customer.meter, "50.00", number)
    # Two days pass, and nobody knows whether the order arrived.
    site.conn.execute("UPDATE command SET state = 'sent', sent_at = now() WHERE state = 'queued'")
    site.conn.execute("UPDATE command SET state = 'unknown' WHERE state = 'sent'")
    waits = shown(site, number)
    assert steps(waits)["delivered"] == "awaited"
    assert "failed" not in str(waits["steps"])
    assert waits["state"] == "token_issued"

    other, number = site.open(), next(NUMBERS)
    pay(site, other.meter, "50.00", number)
    answer_of_meter(site, other, "OldError")
    refusal = shown(site, number)
    assert (refusal["state"], steps(refusal)["accepted"]) == ("rejected", "refused")
    assert refusal["waits_for"] == "utility"


def reversal(site: Site, number: str, reason: str = "the payer's account was empty") -> Any:
    return site.signed("POST", f"/payments/{number}/reversals", {"reason": reason})


def test_a_reversal_after_the_token_left_is_an_operators_and_what_was_used_is_debt(
    site: Site, staff: Staff, refused: Any, plain: int
) -> None:
    number, customer = next(NUMBERS), site.open(tariff=plain)
    payment = pay(site, customer.meter, "100.00", number).json()
    for _ in range(2):
        assert refused(reversal(site, number)) == (409, "token_issued")
    (asked,) = staff.get("dora", "payments/appeals")["items"]
    assert (asked["kind"], asked["payment"]) == ("reversal", payment["id"])
    assert (asked["asked_by"], asked["state"]) == ("partner:bank", "asked")
    assert shown(site, number)["appeal"] == "asked"
    site.read(customer, format_instant(site.clock.now + HOUR), 110_000)
    left = site.get(customer, "/balance")["balance"]["amount"]
    assert left == "75.410000"
    path = f"payments/appeals/{asked['id']}/granting"
    assert refused(staff.post("omar", path, {"note": "x"})) == (404, "not_found")
    done = staff.post("nora", path, {"note": "the bank showed its books"})
    assert (done.status_code, done.json()["state"]) == (200, "granted")
    late = staff.post("finn", path.replace("granting", "refusal"), {"note": "x"})
    assert refused(late) == (
        409, "appeal_decided",
    )  # fmt: skip
    assert (balance(site, customer), balance(site, customer, "debt")) == ("0.000000", "24.590000")
    found = staff.get("dora", f"payments/{payment['id']}")
    assert found["became_debt"] == {"amount": "24.590000", "currency": "MRU"}
    assert "became_debt" not in shown(site, number)
    again = reversal(site, number)
    assert (again.status_code, again.json()["state"]) == (201, "reversed")
    assert staff.acts(number) == ["payment.reverse", "appeal.grant"]
    passes(site)


def test_a_refused_appeal_says_why_to_who_asks_again(
    site: Site, staff: Staff, refused: Any
) -> None:
    number, customer = next(NUMBERS), site.open()
    pay(site, customer.meter, "30.00", number)
    reversal(site, number)
    asked = staff.get("dora", "payments/appeals")["items"][-1]
    path = f"payments/appeals/{asked['id']}/refusal"
    for _ in range(2):
        done = staff.post("sam", path, {"note": "the token is used"})
        assert (done.status_code, done.json()["state"]) == (200, "refused")
    again = reversal(site, number)
    assert refused(again) == (409, "reversal_refused")
    assert "the token is used" in again.json()["detail"]
    late = staff.post("sam", f"payments/appeals/{asked['id']}/granting", {"note": "x"})
    assert refused(late) == (409, "appeal_decided")
    assert shown(site, number)["appeal"] == "refused"
    assert balance(site, customer) == "30.000000"


def test_an_operators_own_reversal_waits_in_the_same_queue(
    site: Site, staff: Staff, refused: Any
) -> None:
    customer = site.open()
    paid = pay(site, customer.meter, "30.00", next(NUMBERS)).json()
    body = {"top_up": paid["id"], "reason": "the payer came with his bank's letter"}
    for _ in range(2):
        assert refused(staff.post("finn", "reversals", body)) == (409, "token_issued")
    (asked,) = [
        each
        for each in staff.get("dora", "payments/appeals")["items"]
        if each["payment"] == paid["id"]
    ]
    assert (asked["asked_by"], asked["reason"]) == ("finn", body["reason"])
    done = staff.post("fay", f"payments/appeals/{asked['id']}/granting", {"note": "seen"})
    assert done.json()["state"] == "granted"
    assert balance(site, customer) == "0.000000"


def test_a_large_reversal_takes_two_people(site: Site, staff: Staff, refused: Any) -> None:
    number, customer = next(NUMBERS), site.open()
    pay(site, customer.meter, "600.00", number)
    reversal(site, number)
    asked = staff.get("dora", "payments/appeals")["items"][-1]
    path = f"payments/appeals/{asked['id']}/granting"
    proposed = staff.post("finn", path, {"note": "seen"}).json()
    assert (proposed["state"], proposed["proposed_by"]) == ("proposed", "finn")
    assert balance(site, customer) == "600.000000"
    assert refused(staff.post("finn", path, {"note": "again"})) == (409, "second_person_needed")
    done = staff.post("fay", path, {"note": "seen, too"}).json()
    assert (done["state"], done["decided_by"]) == ("granted", "fay")
    assert balance(site, customer) == "0.000000"
    assert staff.acts(number) == ["appeal.propose", "payment.reverse", "appeal.grant"]
    passes(site)


def move(site: Site, customer: Any, top_up: str, meter: str, key: str = "") -> Any:
    return site.client.post(
        f"/v1/accounts/{customer.number}/top-ups/{top_up}/moves",
        headers=customer.headers | {"Idempotency-Key": key or f"k{next(site.ids)}"},
        json={"meter": meter},
    )


def test_a_payer_moves_an_unspent_payment_to_the_meter_that_was_meant(
    site: Site, staff: Staff, refused: Any, plain: int
) -> None:
    wrong, right, other = (
        site.open(sts=False, tariff=plain),
        site.open(tariff=plain),
        site.open(sts=False, tariff=plain),
    )
    number = next(NUMBERS)
    paid = pay(site, wrong.meter, "40.00", number).json()
    assert refused(move(site, other, paid["id"], right.meter)) == (404, "not_found")
    assert refused(move(site, wrong, paid["id"], "99999999999")) == (404, "not_found")
    assert refused(move(site, wrong, paid["id"], wrong.meter)) == (409, "same_account")
    first = move(site, wrong, paid["id"], right.meter, "m-1")
    assert first.status_code == 201
    moved = first.json()
    assert (moved["meter"], moved["moved_from"]) == (right.meter, paid["id"])
    # Nothing of the other account is told but what its tokens need.
    assert right.number not in first.text
    assert move(site, wrong, paid["id"], right.meter, "m-1").json() == moved
    assert move(site, wrong, paid["id"], right.meter, "m-2").json()["id"] == moved["id"]
    assert refused(move(site, wrong, paid["id"], other.meter, "m-1")) == (
        409, "idempotency_conflict",
    )  # fmt: skip
    assert refused(move(site, wrong, paid["id"], other.meter)) == (409, "payment_moved")
    assert (balance(site, wrong), balance(site, right)) == ("0.000000", "40.000000")
    now = shown(site, number)
    assert (now["meter"], now["moved"]["meter"]) == (wrong.meter, right.meter)
    assert (now["state"], now["moved"]["tokens"]) == ("token_issued", moved["tokens"])
    assert list(steps(now))[:5] == ["paid", "received", "credited", "moved", "token_issued"]
    # Money that is another meter's credit now does not go back to the bank from here.
    assert refused(reversal(site, number)) == (409, "payment_moved")
    assert staff.acts(number) == ["payment.move"]
    passes(site)


def test_what_is_spent_stays(site: Site, refused: Any, plain: int) -> None:
    wrong, right = site.open(sts=False, tariff=plain), site.open(tariff=plain)
    paid = pay(site, wrong.meter, "40.00", next(NUMBERS)).json()
    site.read(wrong, format_instant(site.clock.now + HOUR), 100_100)
    assert refused(move(site, wrong, paid["id"], right.meter)) == (409, "credit_spent")
    assert balance(site, right) == "0.000000"


def test_a_move_after_the_token_left_is_an_operators(
    site: Site, staff: Staff, refused: Any, plain: int
) -> None:
    wrong, right = site.open(tariff=plain), site.open(tariff=plain)
    number = next(NUMBERS)
    paid = pay(site, wrong.meter, "40.00", number).json()
    assert refused(move(site, wrong, paid["id"], right.meter)) == (409, "token_issued")
    assert refused(reversal(site, number)) == (409, "appeal_open")
    asked = staff.get("dora", "payments/appeals")["items"][-1]
    assert (asked["kind"], asked["to_meter"]) == ("move", right.meter)
    assert asked["asked_by"].startswith("customer:")
    path = f"payments/appeals/{asked['id']}/granting"
    assert staff.post("sam", path, {"note": "the meter is far away"}).json()["state"] == "granted"
    now = shown(site, number)
    assert (now["moved"]["meter"], now["appeal"]) == (right.meter, "granted")
    assert (balance(site, wrong), balance(site, right)) == ("0.000000", "40.000000")
    # The first token is not carried any more.
    states = site.conn.execute(
        "SELECT c.state FROM command c JOIN token k ON k.command_id = c.id WHERE k.top_up_id = %s",
        (paid["id"],),
    ).fetchall()
    assert states == [("superseded",)]

    # What a meter has taken is there.
    number = next(NUMBERS)
    paid = pay(site, wrong.meter, "40.00", number).json()
    answer_of_meter(site, wrong)
    assert refused(move(site, wrong, paid["id"], right.meter)) == (409, "token_accepted")
    passes(site)


def test_a_refused_move_stays_refused(site: Site, staff: Staff, refused: Any, plain: int) -> None:
    wrong, right = site.open(tariff=plain), site.open(tariff=plain)
    paid = pay(site, wrong.meter, "40.00", next(NUMBERS)).json()
    move(site, wrong, paid["id"], right.meter)
    asked = staff.get("dora", "payments/appeals")["items"][-1]
    staff.post("sam", f"payments/appeals/{asked['id']}/refusal", {"note": "it was typed in"})
    again = move(site, wrong, paid["id"], right.meter)
    assert refused(again) == (409, "move_refused")
    assert "it was typed in" in again.json()["detail"]


def test_a_desk_moves_within_its_centres_alone(
    site: Site, staff: Staff, refused: Any, plain: int
) -> None:
    wrong, right = site.open(sts=False, tariff=plain), site.open(tariff=plain)
    paid = pay(site, wrong.meter, "40.00", next(NUMBERS)).json()
    path = f"accounts/{wrong.number}/top-ups/{paid['id']}/moves"
    body = {"meter": right.meter, "reason": "one digit off, seen on the slip"}
    assert refused(staff.post("finn", path, body)) == (403, "role_refused")
    staff.headers["gus"] = staff.hire("gus", "desk", "south")
    assert refused(staff.post("gus", path, body)) == (404, "not_found")
    first = staff.post("dora", path, body, "desk-move")
    assert first.status_code == 201
    assert staff.post("dora", path, body, "desk-move").json() == first.json()
    assert refused(staff.post("dora", path, body | {"reason": "x"}, "desk-move")) == (
        409, "idempotency_conflict",
    )  # fmt: skip


def test_a_desk_finds_a_payment_by_whatever_the_customer_has(
    site: Site, staff: Staff, refused: Any
) -> None:
    number, customer = next(NUMBERS), site.open()
    paid = pay(site, customer.meter, "50.00", number).json()
    for query in (
        {"number": number}, {"number": number, "channel": "bank"}, {"meter": customer.meter},
        {"account": customer.number},
    ):  # fmt: skip
        (found,) = staff.get("dora", "payments", **query)["items"]
        assert (found["id"], found["tokens"]) == (paid["id"], paid["tokens"])
        (hidden,) = staff.get("ann", "payments", **query)["items"]
        assert hidden["tokens"] == ["*" * 16 + paid["tokens"][0][-4:]]
        assert staff.get("omar", "payments", **query)["items"] == []
    assert staff.get("dora", "payments", number=number, channel="wallet")["items"] == []
    bare = site.client.get("/v1/payments", headers=staff.headers["dora"])
    assert refused(bare) == (422, "filter_missing")
    assert staff.get("dora", f"payments/{paid['id']}")["partner_txn_id"] == number
    outside = site.client.get(f"/v1/payments/{paid['id']}", headers=staff.headers["omar"])
    assert refused(outside) == (404, "not_found")
