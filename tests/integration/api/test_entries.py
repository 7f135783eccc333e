from typing import Any

Site = Any


def test_an_energy_entry_opens_to_registers_blocks_and_tax(site: Site) -> None:
    customer = site.open()
    site.clock.set("2026-03-01T09:00:00Z")
    site.pay(customer, "500.00", "t1")
    site.read(customer, "2026-03-01T12:00:00Z", 206_400)
    entry, top_up = site.get(customer, "/entries")["items"]
    assert (entry["kind"], top_up["kind"]) == ("energy", "top_up")
    opened = site.get(customer, f"/entries/{entry['id']}")
    explanation = opened["explanation"]
    assert explanation["registers"] == {
        "from": {"at": "2026-03-01T00:00:00Z", "wh": 100_000},
        "to": {"at": "2026-03-01T12:00:00Z", "wh": 206_400},
    }
    assert explanation["segment"] == {"from": "2026-03-01T00:00:00Z", "to": "2026-03-01T12:00:00Z"}
    assert (explanation["band"], explanation["tariff_version"]) == ("all", "2026-01-01")
    # 100 kWh of the first block, 6.4 of the second.
    assert explanation["blocks"] == [
        {"wh": 100_000, "price": "2.459000", "amount": "245.900000"},
        {"wh": 6_400, "price": "5.903000", "amount": "37.779200"},
    ]
    assert explanation["charge"] == "283.679200"
    assert explanation["taxes"] == [
        {
            "name": "vat",
            "percent": "16.0000",
            "included": False,
            "base": "283.679200",
            "due": "45.388672",
            "amount": "45.388672",
        }
    ]
    assert {leg["ledger_account"]: leg["amount"] for leg in opened["legs"]} == {
        "customer": "-329.067872",
        "revenue:energy": "283.679200",
        "tax:vat": "45.388672",
    }
    assert opened["amount"]["amount"] == "-329.067872"
    assert opened["balance_after"]["amount"] == "170.932128"
    assert (opened["corrects"], opened["corrected_by"]) == (None, [])


def test_a_late_reading_shows_what_it_corrects_on_both_sides(site: Site) -> None:
    customer = site.open()
    site.clock.set("2026-03-01T00:10:00Z")
    site.pay(customer, "100.00", "t1")
    site.read(customer, "2026-03-01T04:00:00Z", 104_000)
    (charged,) = [
        entry for entry in site.get(customer, "/entries")["items"] if entry["kind"] == "energy"
    ]
    site.read(customer, "2026-03-01T02:00:00Z", 100_100)
    entries = site.get(customer, "/entries")["items"]
    (correction,) = [entry for entry in entries if entry["corrects"]]
    assert correction["corrects"] == charged["id"]
    opened = site.get(customer, f"/entries/{charged['id']}")
    assert opened["corrected_by"] == [correction["id"]]
    assert site.get(customer, f"/entries/{correction['id']}")["explanation"]["reversed"] is True
    assert sum(entry["energy_wh"] for entry in entries) == 4_000


def test_pages_hold_each_entry_once_newest_first(site: Site) -> None:
    customer = site.open()
    site.clock.set("2026-03-01T00:10:00Z")
    site.pay(customer, "100.00", "t1")
    for hour in range(1, 8):
        site.read(customer, f"2026-03-01T{hour:02d}:00:00Z", 100_000 + hour * 10)
    whole = [entry["id"] for entry in site.get(customer, "/entries")["items"]]
    paged: list[str] = []
    cursor = None
    while True:
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = site.get(customer, "/entries", **query)
        paged += [entry["id"] for entry in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert paged == whole == sorted(whole, key=int, reverse=True)
    assert len(whole) == 8
