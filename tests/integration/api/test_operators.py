from typing import Any

import pytest

from store import key_changes, supply
from tokens.numbers import check_digit

Site = Any
NUMBER = "37" + "00000001" + check_digit("3700000001")
PAN = "600727" + NUMBER + check_digit("600727" + NUMBER)
OTHER_PAN = "600727071234567873"
ACCOUNT = {"number": "T-1", "holder": "Try Out", "tariff": "social", "opening_wh": 500}


def register(site: Site, **change: object) -> Any:
    body = {"number": NUMBER, "centre": "north"} | change
    return site.client.post("/v1/meters", headers=site.operator, json=body)


def test_a_registered_meter_can_be_read_paid_for_and_looked_at(site: Site) -> None:
    answer = register(site, account=ACCOUNT, sts={"meter_pan": PAN, "sgc": "123456", "krn": 1})
    assert answer.status_code == 201
    made = answer.json()
    assert (made["number"], made["account"], made["online"]) == (NUMBER, "T-1", None)
    assert made["sts"]["ea"] == 11
    body = {
        "partner_txn_id": "t1",
        "meter": NUMBER,
        "amount": "50.00",
        "paid_at": "2026-03-01T00:00:00Z",
    }
    assert len(site.signed("POST", "/payments", body).json()["tokens"]) == 1
    site.clock.set("2026-03-01T01:00:00Z")
    reading = {
        "v": 1,
        "boot": 1,
        "seq": 1,
        "ts": "2026-03-01T01:00:00Z",
        "reg": {"1.8.0": 1500, "2.8.0": 0},
        "relay": "closed",
    }
    site.say(NUMBER, "reading", reading)
    key = {"Authorization": f"Bearer {made['access_key']}"}
    balance = site.client.get("/v1/accounts/T-1/balance", headers=key).json()
    # 50.00 less 1 kWh at 2.459 with 16 %.
    assert balance["balance"]["amount"] == "47.147560"
    shown = site.client.get(f"/v1/meters/{NUMBER}", headers=site.operator).json()
    assert shown["registers"] == [
        {"obis": "1.8.0", "at": "2026-03-01T01:00:00Z", "wh": 1500},
        {"obis": "2.8.0", "at": "2026-03-01T01:00:00Z", "wh": 0},
    ]
    assert (shown["reported_relay"], shown["seq"]) == ("closed", 1)


def test_a_meter_in_stock_has_no_account_and_no_key(site: Site) -> None:
    made = register(site).json()
    assert (made["account"], made["access_key"], made["sts"]) == (None, None, None)


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"number": "123"}, 422, "bad_meter_number"),
        ({"centre": "nowhere"}, 404, "not_found"),
        ({"gateway": "a/b"}, 422, "bad_gateway"),
        ({"sts": {"meter_pan": PAN[:-1] + "x", "sgc": "123456", "krn": 1}}, 422, "number_invalid"),
        ({"sts": {"meter_pan": PAN, "sgc": "12345", "krn": 1}}, 422, "invalid_request"),
        ({"sts": {"meter_pan": OTHER_PAN, "sgc": "123456", "krn": 1}}, 422, "number_invalid"),
        ({"sts": {"meter_pan": PAN, "sgc": "123456", "krn": 1, "kt": 0}}, 422, "key_type_refused"),
        ({"sts": {"meter_pan": PAN, "sgc": "123456", "krn": 1, "kt": 3}}, 422, "key_type_refused"),
        ({"sts": {"meter_pan": PAN, "sgc": "123456", "krn": 1, "ea": 9}}, 422, "algorithm_refused"),
        ({"account": ACCOUNT | {"tariff": "none"}}, 404, "not_found"),
        ({"account": ACCOUNT | {"opening_wh": 10**9}}, 422, "opening_refused"),
        ({"account": ACCOUNT | {"opening_wh": -1}}, 422, "invalid_request"),
        ({"account": ACCOUNT | {"terms": {"colour": "red"}}}, 422, "bad_input"),
        ({"account": ACCOUNT | {"terms": {"reconnect_at": 1}}}, 422, "bad_input"),
        ({"account": ACCOUNT | {"holder": "a\0b"}}, 422, "invalid_request"),
    ],
)
def test_a_registration_that_is_refused_leaves_nothing(
    site: Site, refused: Any, change: dict[str, object], status: int, code: str
) -> None:
    assert refused(register(site, **change)) == (status, code)
    assert refused(site.client.get(f"/v1/meters/{NUMBER}", headers=site.operator)) == (
        404,
        "not_found",
    )


def test_a_number_is_registered_once(site: Site, refused: Any) -> None:
    assert register(site).status_code == 201
    assert refused(register(site)) == (409, "meter_exists")
    other = "07" + "00000099" + check_digit("0700000099")
    assert register(site, number=other, account=ACCOUNT).status_code == 201
    third = "07" + "00000098" + check_digit("0700000098")
    assert refused(register(site, number=third, account=ACCOUNT)) == (409, "account_exists")


def test_quarantine_shows_each_refusal_once_over_pages(site: Site, refused: Any) -> None:
    customer = site.open()
    site.read(customer, "2026-03-01T01:00:00Z", 101_000)
    site.read(customer, "2026-03-01T02:00:00Z", 100_500)
    for code in range(4):
        site.say(customer.meter, "reading", {"v": 9, "n": code})
    site.say(
        "99999999999",
        "reading",
        {"v": 1, "boot": 1, "seq": 1, "ts": "2026-03-01T01:00:00Z", "reg": {"1.8.0": 1}},
    )
    whole = site.client.get("/v1/quarantine", headers=site.operator).json()["items"]
    paged: list[Any] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = site.client.get("/v1/quarantine", headers=site.operator, params=query).json()
        paged += page["items"]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert paged == whole
    reasons = sorted(item["reason"] for item in whole)
    assert reasons == ["register_decreased", "unknown_meter", *["unknown_version"] * 4]
    only = {"reason": "register_decreased"}
    (item,) = site.client.get("/v1/quarantine", headers=site.operator, params=only).json()["items"]
    assert (item["meter"], item["wh"], item["at"]) == (
        customer.meter,
        100_500,
        "2026-03-01T02:00:00Z",
    )
    for cursor in ("x", "1-", "1-2-3", f"{10**30}-0"):
        bad = site.client.get("/v1/quarantine", headers=site.operator, params={"cursor": cursor})
        assert refused(bad) == (422, "bad_cursor")


def test_commands_are_shown_newest_first_without_the_customers_digits(
    site: Site, refused: Any
) -> None:
    customer = site.open()
    site.pay(customer, "20.00", "t0")
    paid = site.pay(customer, "20.00", "t1").json()
    listed = site.client.get("/v1/commands", headers=site.operator)
    items = listed.json()["items"]
    assert [item["id"] for item in items] == sorted((item["id"] for item in items), reverse=True)
    token, earlier = (item for item in items if item["type"] == "token")
    assert (earlier["state"], earlier["args"]) == ("queued", None)
    assert (token["state"], token["args"], token["meter"]) == ("queued", None, customer.meter)
    assert paid["tokens"][0] not in listed.text
    site_wide = {"meter": customer.meter, "state": "queued"}
    queued = site.client.get("/v1/commands", headers=site.operator, params=site_wide).json()
    assert {item["id"] for item in queued["items"]} == {
        command.cmd for _, _, command in supply.queued_commands(site.conn, 10)
    }
    page = site.client.get("/v1/commands?limit=1", headers=site.operator).json()
    rest = site.client.get(
        "/v1/commands", headers=site.operator, params={"cursor": page["next_cursor"]}
    ).json()
    assert page["items"] + rest["items"] == items
    bad = site.client.get("/v1/commands?state=lost", headers=site.operator)
    assert refused(bad) == (422, "invalid_request")


@pytest.mark.parametrize("third_kct", [False, True])
def test_a_meter_is_registered_with_the_key_change_tokens_that_it_knows(
    site: Site, third_kct: bool
) -> None:
    sts = {"meter_pan": PAN, "sgc": "123456", "krn": 1, "ea": 7, "third_kct": third_kct}
    assert register(site, account=ACCOUNT, sts=sts).json()["sts"]["third_kct"] is third_kct
    # A tariff index of its own: the next purchase brings a pair or a triplet.
    key_changes.want(site.conn, NUMBER, site.clock.now, by="vera", ti="07")
    body = {
        "partner_txn_id": "t1",
        "meter": NUMBER,
        "amount": "50.00",
        "paid_at": "2026-03-01T00:00:00Z",
    }
    tokens = site.signed("POST", "/payments", body).json()["tokens"]
    assert len(tokens) == (4 if third_kct else 3)
