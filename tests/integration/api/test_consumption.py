from typing import Any

import pytest

from api.routes.accounts import DEFAULT_RANGE_MS
from store.reads import MAX_SLOTS

Site = Any


def energies(found: Any) -> list[tuple[str, int | None, str]]:
    return [(slot["from"], slot["wh"], slot["quality"]) for slot in found["slots"]]


def test_hours_are_shared_out_of_long_intervals_and_say_so(site: Site) -> None:
    customer = site.open()
    site.read(customer, "2026-03-01T01:00:00Z", 100_500)
    site.read(customer, "2026-03-01T04:00:00Z", 101_500)
    found = site.get(
        customer,
        "/consumption",
        resolution="hour",
        **{"from": "2026-03-01T00:00:00Z", "to": "2026-03-01T05:00:00Z"},
    )
    assert energies(found) == [
        ("2026-03-01T00:00:00Z", 500, "measured"),
        ("2026-03-01T01:00:00Z", 333, "interpolated"),
        ("2026-03-01T02:00:00Z", 333, "interpolated"),
        ("2026-03-01T03:00:00Z", 334, "interpolated"),
        ("2026-03-01T04:00:00Z", None, "gap"),
    ]
    assert found["slots"][4]["cost"] is None


def test_a_slot_that_readings_reach_in_part_is_a_gap_with_what_is_known(site: Site) -> None:
    customer = site.open()
    site.read(customer, "2026-03-01T12:00:00Z", 101_200)
    query = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-02T00:00:00Z"}
    found = site.get(customer, "/consumption", resolution="day", **query)
    assert energies(found) == [("2026-03-01T00:00:00Z", 1200, "gap")]


@pytest.mark.parametrize("resolution", ["raw", "hour", "day", "month"])
def test_slots_add_up_to_the_registers_and_the_ledger(site: Site, resolution: str) -> None:
    customer = site.open()
    site.clock.set("2026-03-01T00:10:00Z")
    site.pay(customer, "900.00", "t1")
    register = 100_000
    for hour, wh in enumerate([7, 701, 0, 1303, 11, 997], start=1):
        register += wh
        site.read(customer, f"2026-03-0{1 + hour // 2}T{hour % 2 * 11:02d}:17:03Z", register)
    query = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-31T23:00:00Z"}
    found = site.get(customer, "/consumption", resolution=resolution, **query)
    assert sum(slot["wh"] or 0 for slot in found["slots"]) == register - 100_000
    entries = site.get(customer, "/entries", limit=500)["items"]
    energy = [entry for entry in entries if entry["kind"] == "energy"]
    assert sum(entry["energy_wh"] for entry in energy) == register - 100_000
    cost = sum(float(slot["cost"] or 0) for slot in found["slots"])
    assert cost == pytest.approx(-sum(float(entry["amount"]["amount"]) for entry in energy))


def test_a_late_reading_corrects_the_slots(site: Site) -> None:
    customer = site.open()
    site.clock.set("2026-03-01T00:10:00Z")
    site.pay(customer, "100.00", "t1")
    site.read(customer, "2026-03-01T04:00:00Z", 104_000)
    site.read(customer, "2026-03-01T06:00:00Z", 104_200)
    site.read(customer, "2026-03-01T02:00:00Z", 100_100)
    query = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-01T06:00:00Z"}
    raw = site.get(customer, "/consumption", resolution="raw", **query)
    assert energies(raw) == [
        ("2026-03-01T00:00:00Z", 100, "measured"),
        ("2026-03-01T02:00:00Z", 3900, "measured"),
        ("2026-03-01T04:00:00Z", 200, "measured"),
    ]


def test_consumption_goes_on_over_the_exchange_of_a_meter(site: Site) -> None:
    customer = site.open()
    site.read(customer, "2026-03-01T12:00:00Z", 100_000)
    customer.meter = site.exchange(customer, "2026-03-02T00:00:00Z")
    site.read(customer, "2026-03-03T00:00:00Z", 2_400)
    query = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-03T00:00:00Z"}
    found = site.get(customer, "/consumption", resolution="day", **query)
    assert energies(found) == [
        ("2026-03-01T00:00:00Z", 0, "measured"),
        ("2026-03-02T00:00:00Z", 2400, "measured"),
    ]
    assert site.get(customer, "/balance")["last_reading"]["meter"] == customer.meter


def test_days_are_those_of_the_account(site: Site) -> None:
    customer = site.open(tariff=site.in_zone("Asia/Kathmandu"))
    site.read(customer, "2026-03-02T18:15:00Z", 102_000)
    query = {"from": "2026-03-02T00:00:00Z", "to": "2026-03-02T06:00:00Z"}
    found = site.get(customer, "/consumption", resolution="day", **query)
    assert [(slot["from"], slot["to"]) for slot in found["slots"]] == [
        ("2026-03-01T18:15:00Z", "2026-03-02T18:15:00Z")
    ]


def test_the_day_on_which_clocks_go_forward_has_23_hours(site: Site) -> None:
    customer = site.open(tariff=site.in_zone("Europe/Paris"))
    query = {"from": "2026-03-28T23:00:00Z", "to": "2026-03-29T22:00:00Z"}
    found = site.get(customer, "/consumption", resolution="hour", **query)
    assert len(found["slots"]) == 23
    day = site.get(customer, "/consumption", resolution="day", **query)
    assert [(slot["from"], slot["to"]) for slot in day["slots"]] == [
        ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z")
    ]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"from": "2026-03-02T00:00:00Z", "to": "2026-03-02T00:00:00Z"}, (422, "range_refused")),
        ({"from": "2026-03-02T00:00:00Z", "to": "2029-03-02T00:00:00Z"}, (422, "range_refused")),
        (
            {"from": "2026-03-02T00:00:00Z", "to": "2026-06-02T00:00:00Z", "resolution": "hour"},
            (422, "range_refused"),
        ),
        ({"from": "yesterday"}, (422, "bad_instant")),
        ({"to": "2026-02-30T00:00:00Z"}, (422, "bad_instant")),
        ({"resolution": "week"}, (422, "invalid_request")),
        ({"from": "0001-01-01T00:00:00Z", "to": "0001-01-02T00:00:00Z"}, (422, "bad_instant")),
        ({"from": "9999-12-30T00:00:00Z", "to": "9999-12-31T23:59:59Z"}, (422, "bad_instant")),
    ],
)
def test_a_range_that_cannot_be_answered_is_refused(
    site: Site, refused: Any, query: dict[str, str], code: tuple[int, str]
) -> None:
    customer = site.open()
    site.clock.set("2026-03-03T00:00:00Z")
    response = site.client.get(
        f"/v1/accounts/{customer.number}/consumption", headers=customer.headers, params=query
    )
    assert refused(response) == code
    (fault,) = response.json()["errors"]
    assert fault["pointer"] in {f"?{name}" for name in ("from", *query)}


def test_raw_slots_of_now_are_shown_of_a_meter_that_reads_each_minute() -> None:
    assert DEFAULT_RANGE_MS["raw"] // 60_000 <= MAX_SLOTS
