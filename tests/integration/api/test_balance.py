from typing import Any

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
