from typing import Any

from schemas.quantities import parse_micro

Site = Any


def test_a_debit_is_what_the_tariff_says_by_hand(site: Site) -> None:
    customer = site.open()
    site.clock.set("2026-03-01T09:00:00Z")
    assert site.pay(customer, "200.00", "t1").status_code == 201
    site.read(customer, "2026-03-01T12:00:00Z", 106_400)
    # 6.4 kWh at 2.459 is 15.7376; 16 % on it is 2.518016; no midnight has passed.
    found = site.get(customer, "/balance")
    assert found["balance"] == {"amount": "181.744384", "currency": "MRU"}
    assert found["as_of"] == "2026-03-01T12:00:00Z"
    assert found["supply"]["state"] == "connected"
    assert found["last_reading"] == {
        "meter": customer.meter,
        "at": "2026-03-01T12:00:00Z",
        "wh": 106_400,
    }
    assert (found["days_left"], found["days_left_reason"]) == (None, "too_few_days")
    # 93.6 kWh of the first block cost 266.986944 with tax; the balance buys 63.7 kWh of them.
    assert found["buys_wh"] == 63_700


def test_the_balance_holds_the_midnight_charge_that_nobody_has_posted_yet(site: Site) -> None:
    customer = site.open()
    site.clock.set("2026-03-01T09:00:00Z")
    site.pay(customer, "200.00", "t1")
    site.clock.set("2026-03-02T00:00:00Z")
    # 1.20 and 16 % on it.
    assert site.get(customer, "/balance")["balance"]["amount"] == "198.608000"
    assert [entry["kind"] for entry in site.get(customer, "/entries")["items"]] == ["top_up"]


def test_days_left_follow_the_middle_of_the_last_days(site: Site) -> None:
    customer = site.open()
    site.clock.set("2026-03-01T00:30:00Z")
    site.pay(customer, "1000.00", "t1")
    register = 100_000
    for day, wh in enumerate([2000, 2000, 9000, 2000, 1000], start=2):
        register += wh
        site.read(customer, f"2026-03-{day:02d}T00:00:00Z", register)
    found = site.get(customer, "/balance")
    balance = parse_micro(found["balance"]["amount"])
    # The usual day: 2 kWh at 2.459 and the standing charge of 1.20, with 16 % on both.
    usual = parse_micro("7.096880")
    assert found["days_left"]["likely"] == balance // usual
    assert found["days_left"]["low"] <= found["days_left"]["likely"] <= found["days_left"]["high"]
    assert found["days_left_reason"] is None


def test_without_use_and_charges_no_day_is_counted(site: Site) -> None:
    customer = site.open(tariff=site.free_of_charges())
    site.clock.set("2026-03-01T00:30:00Z")
    site.pay(customer, "10.00", "t1")
    for day in range(2, 7):
        site.read(customer, f"2026-03-{day:02d}T00:00:00Z", 100_000)
    assert site.get(customer, "/balance")["days_left_reason"] == "no_use"


def test_supply_is_what_is_desired_beside_what_the_meter_says(site: Site) -> None:
    customer = site.open()
    site.read(customer, "2026-03-01T12:00:00Z", 101_000, relay="closed")
    supply = site.get(customer, "/balance")["supply"]
    assert (supply["state"], supply["desired"]) == ("disconnected", "open")
    assert (supply["reported"], supply["reported_at"]) == ("closed", "2026-03-01T12:00:00Z")


def test_emergency_credit_on_request_is_granted_once_asked(site: Site) -> None:
    customer = site.open(emergency={"limit": "20.00", "activation": "on_request"})
    site.read(customer, "2026-03-01T12:00:00Z", 101_000)
    before = site.get(customer, "/balance")
    assert before["supply"]["state"] == "disconnected"
    assert before["emergency"] == {
        "in_use": False,
        "available": True,
        "on_request": True,
        "limit": {"amount": "20.000000", "currency": "MRU"},
    }
    for _ in range(2):
        answer = site.client.post(
            f"/v1/accounts/{customer.number}/emergency-credit", headers=customer.headers
        )
        assert (answer.status_code, answer.json()["in_use"]) == (200, True)
    after = site.get(customer, "/balance")
    assert (after["supply"]["state"], after["emergency"]["in_use"]) == ("connected", True)


def test_a_customer_lists_only_their_own_accounts_in_pages(site: Site) -> None:
    first, second = site.open(), site.open()
    listed = site.client.get("/v1/accounts", headers=first.headers).json()
    assert [each["account"] for each in listed["items"]] == [first.number]
    page = site.client.get("/v1/accounts?limit=1", headers=site.operator).json()
    assert [each["account"] for each in page["items"]] == [first.number]
    rest = site.client.get(
        "/v1/accounts", params={"cursor": page["next_cursor"]}, headers=site.operator
    ).json()
    assert [each["account"] for each in rest["items"]] == [second.number]
    assert rest["next_cursor"] is None
