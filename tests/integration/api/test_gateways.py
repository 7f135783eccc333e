"""Gateways and meters as lists: pages, filters, searches, and what another centre sees of them."""

from typing import Any

import pytest

from schemas.decoding import decode_up
from schemas.topics import parse
from store import ingest, operators, registry
from store.incoming import Incoming
from store.registry import NewMeter
from tokens.numbers import check_digit

Site = Any


def number(serial: int) -> str:
    return f"41{serial:08d}" + check_digit(f"41{serial:08d}")


def operator(site: Site, name: str, role: str, *centres: str) -> dict[str, str]:
    operators.add(site.conn, name, role, centres, who="test", now_ms=site.clock.now)  # type: ignore[arg-type] # a role by its name
    key = operators.add_access_key(site.conn, name, "t", who="test", now_ms=site.clock.now)
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def fleet(site: Site) -> Site:
    """Three gateways: one of the north, one of both centres, one of the south; a meter of none."""
    south = registry.add_centre(site.conn, "south", "South")
    for serial, (centre, gateway) in enumerate(
        [
            (site.centre, "GW-7"), (site.centre, "GW-7"), (site.centre, "gw_both"),
            (south, "gw_both"), (south, "far"), (site.centre, None),
        ]
    ):  # fmt: skip
        registry.add_meter(site.conn, centre, NewMeter(number(serial), gateway=gateway))
    return site


def pages(site: Site, path: str, headers: dict[str, str], **query: Any) -> list[Any]:
    """All items, asked for one by one."""
    items: list[Any] = []
    asked = {"limit": 1, **query}
    while True:
        answer = site.client.get(path, headers=headers, params=asked)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        asked["cursor"] = page["next_cursor"]


@pytest.mark.parametrize(
    ("centres", "query", "found"),
    [
        ((), {}, [("GW-7", 2), ("gw_both", 2), ("far", 1)]),
        (("north",), {}, [("GW-7", 2), ("gw_both", 1)]),
        (("south",), {}, [("gw_both", 1), ("far", 1)]),
        ((), {"centre": "south"}, [("gw_both", 2), ("far", 1)]),
        (("north",), {"centre": "south"}, []),
        ((), {"centre": "nowhere"}, []),
        ((), {"search": "gw"}, [("GW-7", 2), ("gw_both", 2)]),
        ((), {"search": "GW-\u0667"}, [("GW-7", 2)]),
        ((), {"search": "gw_"}, [("gw_both", 2)]),
        ((), {"search": "%"}, []),
    ],
)
def test_gateways_are_those_of_a_callers_centres_with_their_meters_there(
    fleet: Site, centres: tuple[str, ...], query: dict[str, str], found: list[tuple[str, int]]
) -> None:
    caller = operator(fleet, "who", "auditor", *centres)
    listed = pages(fleet, "/v1/gateways", caller, **query)
    assert [(each["name"], each["meters"]) for each in listed] == found
    for each in listed:
        shown = fleet.client.get(f"/v1/gateways/{each['name']}", headers=caller)
        assert shown.json() == each


def test_a_gateway_of_another_centre_looks_like_none(fleet: Site, refused: Any) -> None:
    north = operator(fleet, "north", "admin", "north")
    for name in ("far", "none"):
        answer = fleet.client.get(f"/v1/gateways/{name}", headers=north)
        assert refused(answer) == (404, "not_found")


def test_a_gateway_tells_what_it_was_heard_saying_and_what_it_carries(fleet: Site) -> None:
    def shown() -> Any:
        return fleet.client.get("/v1/gateways/GW-1", headers=fleet.operator).json()

    customer = fleet.open()
    body = {"gateway": "GW-1", "reason": "it moved behind the new mast"}
    path = f"/v1/meters/{customer.meter}/gateway"
    assert fleet.client.put(path, headers=fleet.operator, json=body).json()["gateway"] == "GW-1"
    assert (shown()["online"], shown()["seen_at"], shown()["queued"]) == (None, None, 0)
    fleet.clock.set("2026-03-01T09:00:00Z")
    text = "pm/v1/g/GW-1/up/state"
    payload = b"online"
    decoded = decode_up(parse(text), payload, None, fleet.clock.now)
    message = Incoming(parse(text), text, payload, None, decoded)
    ingest.record(fleet.conn, fleet.terms, [message], fleet.clock.now)
    fleet.pay(customer, "20.00", "t1")
    fleet.conn.execute("UPDATE gateway SET next_send_ms = %s WHERE number = 'GW-1'",
                       [fleet.clock.now])  # fmt: skip
    fleet.clock.set("2026-03-01T09:30:00Z")
    waiting = fleet.conn.execute("SELECT count(*) FROM command").fetchone()
    assert shown() == {
        "name": "GW-1",
        "meters": 1,
        "online": True,
        "seen_at": "2026-03-01T09:00:00Z",
        "queued": waiting[0],
        "oldest_queued_at": "2026-03-01T09:00:00Z",
        "in_flight": 0,
        "next_send_at": "2026-03-01T09:00:00Z",
        "outage": None,
        "as_of": "2026-03-01T09:30:00Z",
    }
    fleet.conn.execute("UPDATE command SET state = 'sent', sent_at = now()")
    assert (shown()["queued"], shown()["in_flight"]) == (0, waiting[0])
    stranger = operator(fleet, "south", "admin", "south")
    fleet.client.put(f"/v1/meters/{number(3)}/gateway", headers=stranger,
                     json={"gateway": "GW-1", "reason": "nearer"})  # fmt: skip
    theirs = fleet.client.get("/v1/gateways/GW-1", headers=stranger).json()
    assert (theirs["meters"], theirs["queued"], theirs["in_flight"]) == (1, 0, 0)


def test_a_gateway_is_registered_once_by_who_has_every_centre(site: Site, refused: Any) -> None:
    def register(headers: dict[str, str], name: str) -> Any:
        body = {"name": name, "reason": "the mast stands"}
        return site.client.post("/v1/gateways", headers=headers, json=body)

    made = register(site.operator, "GW-9")
    assert made.status_code == 201
    assert (made.json()["name"], made.json()["meters"]) == ("GW-9", 0)
    assert refused(register(site.operator, "GW-9")) == (409, "gateway_exists")
    assert refused(register(site.operator, "a/b")) == (422, "bad_gateway")
    north = operator(site, "north", "supervisor", "north")
    assert refused(register(north, "GW-10")) == (403, "scope_refused")
    (act,) = acts(site, "gateway.register")
    assert (act["subject"], act["reason"], act["after"]) == (
        "gateway:GW-9", "the mast stands", {"name": "GW-9"},
    )  # fmt: skip


def acts(site: Site, action: str) -> Any:
    of = {"action": action}
    return site.client.get("/v1/audit-log", headers=site.operator, params=of).json()["items"]


def test_a_meter_moves_behind_a_gateway_with_who_why_before_and_after(
    fleet: Site, refused: Any
) -> None:
    def place(gateway: object, headers: dict[str, str], meter: str = number(0)) -> Any:
        body = {"gateway": gateway, "reason": "measured"}
        return fleet.client.put(f"/v1/meters/{meter}/gateway", headers=headers, json=body)

    field = operator(fleet, "frank", "field", "north")
    assert place("new-1", field).json()["gateway"] == "new-1"
    assert place("new-1", field).status_code == 200
    assert place(None, field).json()["gateway"] is None
    assert [(each["who"], each["reason"], each["before"], each["after"], each["centre"])
            for each in acts(fleet, "meter.place")] == [
        ("frank", "measured", {"gateway": "new-1"}, {"gateway": None}, "north"),
        ("frank", "measured", {"gateway": "GW-7"}, {"gateway": "new-1"}, "north"),
    ]  # fmt: skip
    assert refused(place("a/b", field)) == (422, "bad_gateway")
    assert refused(place("far", field, number(4))) == (404, "not_found")
    assert refused(place("far", field, "123")) == (422, "bad_meter_number")
    assert refused(place("far", operator(fleet, "dora", "desk"))) == (403, "role_refused")


@pytest.mark.parametrize(
    ("centres", "query", "found"),
    [
        ((), {}, [0, 1, 2, 3, 4, 5]),
        (("north",), {}, [0, 1, 2, 5]),
        ((), {"centre": "south"}, [3, 4]),
        (("north",), {"centre": "south"}, []),
        ((), {"gateway": "gw_both"}, [2, 3]),
        (("south",), {"gateway": "gw_both"}, [3]),
        ((), {"search": number(4)[:10]}, [4]),
        # As an Arabic keyboard writes it.
        ((), {"search": number(4)[:10].translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩"))}, [4]),
        ((), {"search": "__"}, []),
    ],
)
def test_meters_are_listed_by_centre_gateway_and_number(
    fleet: Site, centres: tuple[str, ...], query: dict[str, str], found: list[int]
) -> None:
    caller = operator(fleet, "who", "field", *centres)
    listed = pages(fleet, "/v1/meters", caller, **query)
    assert [each["number"] for each in listed] == [number(serial) for serial in found]


def test_a_listed_meter_says_what_the_meter_itself_says(site: Site, refused: Any) -> None:
    customer = site.open()
    site.read(customer, "2026-03-01T01:00:00Z", 101_000, relay="closed")
    old = customer.meter
    new = site.exchange(customer, "2026-03-01T02:00:00Z")
    answer = site.client.get("/v1/meters", headers=site.operator).json()
    assert answer["as_of"] == "2026-03-01T02:00:00Z"
    first, second = answer["items"]
    assert (first["number"], first["account"]) == (old, None)
    assert (second["number"], second["account"]) == (new, customer.number)
    assert (first["takes_tokens"], second["takes_tokens"]) == (True, False)
    for each in answer["items"]:
        shown = site.client.get(f"/v1/meters/{each['number']}", headers=site.operator).json()
        same = each.keys() - {"takes_tokens"}
        assert {name: shown[name] for name in same} == {name: each[name] for name in same}
    (found,) = site.client.get(
        "/v1/meters", headers=site.operator, params={"search": customer.number.lower()}
    ).json()["items"]
    assert found == second
    bad = site.client.get("/v1/meters?cursor=x", headers=site.operator)
    assert refused(bad) == (422, "bad_cursor")


def test_accounts_customers_and_commands_are_listed_by_centre(site: Site) -> None:
    south = registry.add_centre(site.conn, "south", "South")
    ours = site.open()
    site.pay(ours, "20.00", "t1")
    site.centre = south
    theirs = site.open()
    site.pay(theirs, "20.00", "t2")

    def listed(path: str, name: str, **query: str) -> list[Any]:
        found = site.client.get(f"/v1/{path}", headers=site.operator, params=query).json()["items"]
        return [each[name] for each in found]

    assert listed("accounts", "account", centre="south") == [theirs.number]
    assert listed("accounts", "account", search="A-\u0661") == [ours.number]
    assert listed("customers", "accounts", centre="south") == [[theirs.number]]
    assert set(listed("commands", "meter", centre="south")) == {theirs.meter}
    for path in ("accounts", "customers", "commands"):
        assert listed(path, "any", centre="nowhere") == []
