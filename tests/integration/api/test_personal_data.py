"""What is kept about a person: shown whole, erased where it is no longer needed, in no log."""

import io
import re
import sys
from typing import Any

import pytest
import structlog

from api.code_delivery import Courier
from prepaid import logs
from prepaid.cli import main
from prepaid.demo.codes import LoggedCodes, code_delivery
from store import operators, personal_data
from store.codes import CodeMessage
from store.pool import make_pool

Site = Any
PHONE, OTHER = "+22222334455", "+22236778899"
MAIL = "aminata.sow@example.org"
DAY_MS = 24 * 3600 * 1000


def of(holder: int, path: str) -> str:
    return f"/v1/customers/{holder}{path}"


def post(site: Site, path: str, body: object, headers: dict[str, str] | None = None) -> Any:
    return site.client.post(path, headers=headers or site.operator, json=body)


def text_of(site: Site, *tables: str) -> str:
    found = ""
    for table in tables:
        (rows,) = site.conn.execute(f"SELECT string_agg(t::text, ' ') FROM {table} t").fetchone()
        found += rows or ""
    return found


def test_an_export_holds_all_that_is_kept(site: Site) -> None:
    customer, other = site.open(), site.open()
    holder = site.reach(customer, PHONE)
    mine = site.signed_in(PHONE)
    site.read(customer, "2026-03-01T01:00:00Z", 101_000)
    site.pay(customer, "20.00", "t1", msisdn=OTHER)
    grant = {"phone": OTHER, "role": "payer"}
    post(site, f"/v1/accounts/{customer.number}/grants", grant, mine)
    grant = {"phone": PHONE, "role": "holder"}
    post(site, f"/v1/accounts/{other.number}/grants", grant, other.headers)
    found = site.client.get(of(holder, "/export"), headers=mine).json()
    assert found["customer"]["name"] == "Aminata Sow"
    assert [(each["channel"], each["address"]) for each in found["contacts"]] == [("phone", PHONE)]
    assert [each["kind"] for each in found["contact_history"]] == [
        "verified_at_desk", "consent_given", "registered",
    ]  # fmt: skip
    (account,) = found["accounts"]
    assert account["account"] == customer.number
    assert account["balance"] == site.get(customer, "/balance")["balance"]["amount"]
    assert site.client.get(account["entries"], headers=mine).status_code == 200
    (paid,) = found["top_ups"]
    assert (paid["amount"], paid["msisdn"]) == ("20.000000", OTHER)
    assert [(each["direction"], each["account"]) for each in found["grants"]] == [
        ("given", customer.number), ("received", other.number),
    ]  # fmt: skip
    assert len(found["sessions"]) == 1
    # Nothing of the other customer, whose account he may see.
    assert "A-2" not in str(found["accounts"])


def test_who_exports_or_erases_anothers_data_is_in_the_log(site: Site, refused: Any) -> None:
    holder = site.reach(site.open(), PHONE)
    assert site.client.get(of(holder, "/export"), headers=site.operator).status_code == 200
    body = {"reason": "asked for in writing"}
    assert post(site, of(holder, "/erasure"), body).json()["addresses"] == 1
    acts = site.client.get(
        "/v1/audit-log", headers=site.operator, params={"subject": f"customer:{holder}"}
    ).json()["items"]
    assert [each["action"] for each in acts][:3] == [
        "customer.erase", "contact.remove", "customer.export",
    ]  # fmt: skip
    assert acts[0]["reason"] == "asked for in writing"


def test_erasure_leaves_the_ledger_and_no_address(site: Site, refused: Any) -> None:
    customer = site.open()
    holder = site.reach(customer, PHONE)
    post(site, of(holder, "/contacts"), {"channel": "email", "address": MAIL, "wording": "w"})
    mine = site.signed_in(PHONE)
    site.pay(customer, "20.00", "t1")
    before = site.get(customer, "/entries")
    found = post(site, of(holder, "/erasure"), {"reason": "left", "name": True}).json()
    assert (found["addresses"], found["name"]) == (2, True)
    assert site.get(customer, "/entries") == before
    assert refused(site.client.get("/v1/accounts", headers=mine)) == (401, "access_key_unknown")
    kept = text_of(site, "customer", "contact", "contact_event", "person", "account_grant",
                   "audit_log", "one_time_code", "customer_session", "code_message")  # fmt: skip
    for word in (PHONE, MAIL, "Aminata"):
        assert word not in kept
    name = site.client.get(of(holder, ""), headers=site.operator).json()["name"]
    assert name == f"Customer {holder}"
    again = post(site, of(holder, "/erasure"), {"reason": "left", "name": True})
    assert again.json()["addresses"] == 0


def test_a_sweep_erases_what_ended_long_ago_and_nothing_that_is_used(site: Site) -> None:
    customer = site.open()
    holder = site.reach(customer, OTHER)
    site.clock.now += 10 * DAY_MS
    site.reach(customer, PHONE)
    first = site.open()
    granted = post(
        site, f"/v1/accounts/{first.number}/grants", {"phone": "+22244000001", "role": "payer"}
    ).json()
    site.client.delete(f"/v1/accounts/{first.number}/grants/{granted['id']}", headers=site.operator)

    def swept(after_days: int) -> int:
        until = site.clock.now + after_days * DAY_MS
        return personal_data.sweep(site.conn, until, until, site.wall_ms())

    assert swept(-1) == 0
    assert OTHER in text_of(site, "contact")
    assert swept(0) == 1
    assert swept(0) == 0
    kept = text_of(site, "contact", "person")
    assert OTHER not in kept
    assert PHONE in kept
    assert "+22244000001" not in kept
    history = site.client.get(of(holder, "/contacts/history"), headers=site.operator).json()
    assert history["items"][0]["kind"] == "erased"
    assert site.signed_in(PHONE)


def test_a_name_is_erased_by_who_has_every_centre(site: Site, refused: Any) -> None:
    holder = site.holder_of(site.open())
    operators.add(site.conn, "sue", "supervisor", ["north"], who="test", now_ms=site.clock.now)
    key = operators.add_access_key(site.conn, "sue", "t", who="test", now_ms=site.clock.now)
    headers = {"Authorization": f"Bearer {key}"}
    body = {"reason": "left", "name": True}
    assert refused(post(site, of(holder, "/erasure"), body, headers)) == (403, "scope_refused")
    assert post(site, of(holder, "/erasure"), {"reason": "left"}, headers).status_code == 200


def test_the_command_sweeps_and_says_how_many(
    site: Site, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    customer = site.open()
    for phone in (OTHER, PHONE):
        site.reach(customer, phone)
    monkeypatch.setenv("PREPAID_DATABASE__URL", database_url)
    for days, said in (("36500", "0 erased"), ("0", "1 erased")):
        monkeypatch.setattr(sys, "argv", ["prepaid", "contacts", "sweep", "--keep-days", days])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == 0
        assert capsys.readouterr().out.strip() == said
    assert OTHER not in text_of(site, "contact", "person")


class Refusing:
    """A way to people that is down, and quotes what it was given."""

    def deliver(self, message: CodeMessage) -> None:
        raise OSError(f"cannot send {message.code} to {message.address}")


@pytest.fixture
def logged() -> Any:
    """What the programs write to their log, as JSON lines."""
    written = io.StringIO()
    logs.configure(as_json=True)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(written))
    yield written
    structlog.reset_defaults()


def test_no_log_shows_a_phone_a_name_a_code_or_a_session(
    # The application binds its logger as it is made.
    logged: io.StringIO,
    site: Site,
    database_url: str,
) -> None:
    customer = site.open()
    holder = site.reach(customer, PHONE)
    mine = site.signed_in(PHONE)
    used = site.newest_code()
    post(site, of(holder, "/contacts"), {"channel": "email", "address": MAIL}, mine)
    post(site, of(holder, "/contacts"), {"channel": "phone", "address": "Aminata"}, mine)
    post(site, of(holder, "/contacts/email/code"), None, mine)
    unsent = site.newest_code()
    post(site, "/v1/auth/otp/verify", {"phone": PHONE, "code": "123456"}, {})
    site.client.get("/v1/customers", headers=site.operator, params={"contact": PHONE})
    site.client.get(of(holder, "/export"), headers=mine)
    pool = make_pool(database_url, max_size=1)
    pool.open()
    courier = Courier(pool, Refusing(), lambda: site.clock.wall)
    courier.start()
    courier.wake()
    while "code_not_delivered" not in logged.getvalue():
        courier.wake()
    courier.stop()
    pool.close()
    log = structlog.stdlib.get_logger("t")
    log.info("x", text=f"to {PHONE}, {MAIL}", holder="Aminata Sow", phone=PHONE, one_time_code=used)
    told = logged.getvalue()
    assert told.count("request_served") >= 8
    digits = PHONE.removeprefix("+222")
    session = mine["Authorization"].removeprefix("Bearer ")
    for word in (PHONE, digits, MAIL, "aminata", "Aminata", "Sow", session):
        assert word not in told, word
    for code in (used, unsent):
        assert re.search(rf"\b{code}\b", told) is None


def test_a_demonstration_finds_its_codes_in_the_log_and_nobody_else_does(
    site: Site, logged: io.StringIO, database_url: str
) -> None:
    assert code_delivery("none") is None
    site.reach(site.open(), PHONE)
    post(site, "/v1/auth/otp", {"phone": PHONE}, {})
    code = site.newest_code()
    assert code not in logged.getvalue()
    delivery = code_delivery("demonstration")
    assert isinstance(delivery, LoggedCodes)
    assert "codes_go_to_the_log" in logged.getvalue()
    pool = make_pool(database_url, max_size=1)
    pool.open()
    courier = Courier(pool, delivery, lambda: site.clock.wall)
    courier.start()
    while "code_delivered" not in logged.getvalue():
        courier.wake()
    courier.stop()
    pool.close()
    assert f"{code} is the code for +222" in logged.getvalue()
    assert PHONE not in logged.getvalue()
    assert site.newest_code() is None
    state = site.conn.execute("SELECT state FROM code_message ORDER BY id DESC LIMIT 1").fetchone()
    assert state == ("sent",)
