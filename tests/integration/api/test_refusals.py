"""Each refusal with the request that causes it."""

import base64
import json
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from standardwebhooks import Webhook

from schemas.quantities import parse_instant_ms
from store import vending
from tokens.errors import LimitReached

Site = Any
OPENED = parse_instant_ms("2026-03-01T00:00:00Z")
TXN_IDS = (f"t{number}" for number in count(1))
UNKNOWN_KEY = {"Authorization": "Bearer no-such-key"}


@pytest.fixture
def site(shared_site: Site) -> Site:
    """Refusals leave nothing behind, so they share a database; each opens accounts of its own."""
    shared_site.clock.now = OPENED
    return shared_site


def payment(to: str, **change: object) -> dict[str, object]:
    return {
        "partner_txn_id": next(TXN_IDS),
        "meter": to,
        "amount": "200.00",
        "paid_at": "2026-03-01T00:00:00Z",
    } | change


@pytest.mark.parametrize(
    ("change", "status", "code", "pointer"),
    [
        ({"amount": 200}, 422, "invalid_request", "/amount"),
        ({"amount": 200.5}, 422, "invalid_request", "/amount"),
        ({"amount": None}, 422, "invalid_request", "/amount"),
        ({"amount": ""}, 422, "invalid_request", "/amount"),
        ({"amount": "two hundred"}, 422, "bad_amount", "/amount"),
        ({"amount": "1e3"}, 422, "bad_amount", "/amount"),
        ({"amount": "1,500"}, 422, "bad_amount", "/amount"),
        ({"amount": "9" * 30}, 422, "bad_amount", "/amount"),
        ({"amount": "0.00"}, 422, "amount_not_positive", "/amount"),
        ({"amount": "-5.00"}, 422, "amount_not_positive", "/amount"),
        ({"amount": "5.001"}, 422, "amount_too_precise", "/amount"),
        ({"amount": "0.99"}, 422, "amount_below_minimum", "/amount"),
        ({"amount": "100000.01"}, 422, "amount_above_maximum", "/amount"),
        ({"amount": "999999999999999999"}, 422, "amount_above_maximum", "/amount"),
        ({"currency": "XOF"}, 422, "currency_mismatch", "/currency"),
        ({"meter": "12345"}, 422, "bad_meter_number", "/meter"),
        ({"meter": 37000000017}, 422, "invalid_request", "/meter"),
        ({"meter": "99999999999", "currency": "XOF"}, 422, "currency_mismatch", "/currency"),
        ({"paid_at": "today"}, 422, "bad_instant", "/paid_at"),
        ({"paid_at": "1970-01-01T00:00:00Z"}, 422, "bad_instant", "/paid_at"),
        ({"partner_txn_id": ""}, 422, "invalid_request", "/partner_txn_id"),
        ({"partner_txn_id": "x" * 65}, 422, "invalid_request", "/partner_txn_id"),
        ({"partner_txn_id": "a\0b"}, 422, "invalid_request", "/partner_txn_id"),
        ({"msisdn": "call me"}, 422, "invalid_request", "/msisdn"),
        ({"ammount": "1.00"}, 422, "invalid_request", "/ammount"),
    ],
)
def test_a_payment_that_the_contract_refuses_moves_nothing(
    site: Site,
    refused: Any,
    change: dict[str, object],
    status: int,
    code: str,
    pointer: str | None,
) -> None:
    customer = site.open()
    response = site.signed("POST", "/payments", payment(customer.meter, **change))
    assert refused(response) == (status, code)
    if pointer is not None:
        assert [fault["pointer"] for fault in response.json()["errors"]] == [pointer]
    assert site.get(customer, "/top-ups")["items"] == []


def test_who_finds_the_vends_of_an_interval_given_out_is_told_when_to_come(
    site: Site, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given_out(*_: object, **__: object) -> None:
        raise LimitReached("the vends of this interval are given out", 77)

    monkeypatch.setattr(vending, "issue_credit", given_out)
    customer = site.open()
    response = site.signed("POST", "/payments", payment(customer.meter))
    assert refused(response) == (429, "limit_reached")
    assert response.headers["retry-after"] == "77"
    assert site.get(customer, "/top-ups")["items"] == []


@pytest.mark.parametrize(
    ("amount", "micro"), [("١٥٠٫٢٥", "150.250000"), ("1 500", "1500.000000"), ("7", "7.000000")]
)
def test_amounts_are_taken_in_the_digits_that_people_type(
    site: Site, amount: str, micro: str
) -> None:
    customer = site.open()
    response = site.signed("POST", "/payments", payment(customer.meter, amount=amount))
    assert response.json()["amount"]["amount"] == micro


def test_a_meter_number_is_taken_in_blocks_and_other_digits(site: Site) -> None:
    customer = site.open()
    typed = customer.meter.translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩"))
    typed = f"{typed[:4]} {typed[4:]}"
    found = site.signed("POST", "/lookup", {"meter": typed})
    assert found.json()["meter"] == customer.meter


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"age_s": 301}, "signature_expired"),
        ({"age_s": -301}, "signature_expired"),
        ({"partner": "nobody"}, "signature_mismatch"),
        ({"partner": "wallet"}, "signature_mismatch"),
        (
            {"key": "whsec_" + base64.b64encode(b"somebody else's key, 24 up").decode()},
            "signature_mismatch",
        ),
    ],
)
def test_a_request_that_the_partner_did_not_sign_is_refused(
    site: Site, refused: Any, change: dict[str, Any], code: str
) -> None:
    customer = site.open()
    response = site.signed("POST", "/payments", payment(customer.meter), **change)
    assert refused(response) == (401, code)
    assert site.get(customer, "/top-ups")["items"] == []


@pytest.mark.parametrize("age_s", [0, 299, -299])
def test_signatures_are_judged_by_real_time_not_by_the_systems_clock(
    site: Site, age_s: int
) -> None:
    customer = site.open()
    site.clock.now += 40 * 24 * 3600 * 1000
    response = site.signed("POST", "/payments", payment(customer.meter), age_s=age_s)
    assert response.status_code == 201


def test_both_keys_serve_while_they_change(site: Site) -> None:
    customer = site.open()
    response = site.signed("POST", "/payments", payment(customer.meter), key=site.next_bank_key())
    assert response.status_code == 201


def test_one_changed_byte_of_the_body_breaks_the_signature(site: Site, refused: Any) -> None:
    customer = site.open()
    right = site.signed("POST", "/lookup", {"meter": customer.meter}).request
    response = site.client.post(
        right.url,
        content=right.content + b" ",
        headers=dict(right.headers) | {"content-length": str(len(right.content) + 1)},
    )
    assert refused(response) == (401, "signature_mismatch")


def test_a_client_of_the_standard_alone_is_known_by_its_key(site: Site, refused: Any) -> None:
    """Three headers, as a stock Standard Webhooks client sends them."""
    customer, signer = site.open(), Webhook(site.wallet_key())
    body = json.dumps(payment(customer.meter))

    def send(content: str) -> Any:
        at = datetime.fromtimestamp(int(site.clock.wall), UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": "msg_1",
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": signer.sign("msg_1", at, body),
        }
        return site.client.post("/v1/partners/payments", content=content, headers=headers)

    taken = send(body)
    assert taken.status_code == 201
    assert site.get(customer, "/top-ups")["items"][0]["channel"] == "wallet"
    assert refused(send(body + " ")) == (401, "signature_mismatch")


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_an_unsigned_request_is_refused(site: Site, refused: Any, missing: str) -> None:
    right = site.signed("POST", "/lookup", {"account": "A-1"}).request
    headers = {name: value for name, value in right.headers.items() if name != missing}
    response = site.client.post(right.url, content=right.content, headers=headers)
    assert refused(response) == (401, "signature_missing")


@pytest.mark.parametrize(
    ("path", "body", "pointers"),
    [
        ("/lookup", {}, [""]),
        ("/lookup", {"meter": "1", "account": "2"}, [""]),
        ("/lookup", [], [""]),
        ("/quotes", {"meter": "37000000017"}, ["/amount"]),
        ("/payments", {}, ["/partner_txn_id", "/meter", "/amount", "/paid_at"]),
        ("/payments/t1/reversals", {}, ["/reason"]),
        ("/payments/t1/reversals", {"reason": " "}, ["/reason"]),
        ("/payments/t1/reversals", {"reason": "a\0b"}, ["/reason"]),
    ],
)
def test_each_fault_of_a_body_is_named_by_its_pointer(
    site: Site, refused: Any, path: str, body: object, pointers: list[str]
) -> None:
    response = site.signed("POST", path, body)
    assert refused(response) == (422, "invalid_request")
    assert [fault["pointer"] for fault in response.json()["errors"]] == pointers


@pytest.mark.parametrize("raw", [b"{", b"\xff\xfe", b'{"meter": "\\ud800"}', b"[" * 5000])
def test_bytes_that_are_no_body_are_refused(site: Site, refused: Any, raw: bytes) -> None:
    response = site.signed("POST", "/lookup", raw=raw)
    assert response.status_code in {400, 422}
    refused(response)


@pytest.mark.parametrize(
    ("amount", "code"),
    [
        ("999999999999999999", "amount_above_maximum"),
        ("-5", "bad_amount"),
        ("abc", "bad_amount"),
        ("1.1234567", "bad_amount"),
        ("9223372036854.775808", "amount_above_maximum"),
    ],
)
def test_a_balance_to_warn_at_that_cannot_be_is_named_by_its_pointer(
    site: Site, refused: Any, amount: str, code: str
) -> None:
    path = f"/v1/accounts/{site.open().number}/low-credit"
    answer = site.client.put(path, json={"amount": amount}, headers=site.operator)
    assert refused(answer) == (422, code)
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/amount"]


@pytest.mark.parametrize("amount", ["0", "٣٥٫٥", "9223372036854.775807"])
def test_whatever_a_balance_can_be_can_be_warned_at(site: Site, amount: str) -> None:
    path = f"/v1/accounts/{site.open().number}/low-credit"
    answer = site.client.put(path, json={"amount": amount}, headers=site.operator)
    assert answer.status_code == 200


@pytest.mark.parametrize("depth", [200, 260, 900, 5000])
@pytest.mark.parametrize("path", ["adjustments", "reversals", "tokens/reprints"])
def test_a_body_is_refused_however_deep_it_is(
    site: Site, refused: Any, path: str, depth: int
) -> None:
    headers = {**site.operator, "Idempotency-Key": "k", "content-type": "application/json"}
    content = f'{{"reason": "x", "deep": {"[" * depth}{"]" * depth}}}'
    answer = site.client.post(f"/v1/{path}", content=content, headers=headers)
    assert refused(answer)[0] in {400, 422}


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_limit_is_refused(site: Site, refused: Any, chunked: bool) -> None:
    raw = b" " * (64 * 1024 + 1)
    content = iter([raw[:40_000], raw[40_000:]]) if chunked else raw
    # The headers of a signed request: what nobody signed is refused before it is read.
    right = site.signed("POST", "/lookup", {"account": "A-1"}).request.headers
    headers = {name: value for name, value in right.items() if name.startswith("webhook-")}
    response = site.client.post("/v1/partners/lookup", content=content, headers=headers)
    assert refused(response) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "access_key_missing"),
        ({"Authorization": "Basic abc"}, 401, "access_key_missing"),
        (UNKNOWN_KEY, 401, "access_key_unknown"),
        ({"Authorization": "Bearer " + "x" * 5000}, 401, "access_key_unknown"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/accounts", "/v1/accounts/A-1/balance", "/v1/quarantine"])
def test_without_an_access_key_nothing_is_shown(
    site: Site, refused: Any, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    response = site.client.get(path, headers=headers)
    assert refused(response) == (status, code)
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path",
    [
        "/balance",
        "/consumption",
        "/entries",
        "/entries/{entry}",
        "/top-ups",
        "/top-ups/{top_up}",
        "/tokens",
    ],
)
def test_anothers_account_looks_like_none(site: Site, refused: Any, path: str) -> None:
    owner, other = site.open(), site.open()
    paid = site.pay(owner, "20.00", next(TXN_IDS)).json()
    (entry,) = site.get(owner, "/entries")["items"]
    path = path.format(entry=entry["id"], top_up=paid["id"])
    foreign = site.client.get(f"/v1/accounts/{owner.number}{path}", headers=other.headers)
    unknown = site.client.get(f"/v1/accounts/A-none{path}", headers=other.headers)
    assert refused(foreign) == refused(unknown) == (404, "not_found")
    assert foreign.json() == unknown.json()
    site.get(owner, path)
    # Nor is another's entry or top-up found below one's own account.
    if "{" not in path and path.count("/") == 2:
        below = site.client.get(f"/v1/accounts/{other.number}{path}", headers=other.headers)
        assert refused(below) == (404, "not_found")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_operators_routes_refuse_customers(site: Site, refused: Any, method: str) -> None:
    customer = site.open()
    path = "/v1/quarantine" if method == "GET" else "/v1/meters"
    body = None if method == "GET" else {"number": "37000000017", "centre": "north"}
    response = site.client.request(method, path, headers=customer.headers, json=body)
    assert refused(response) == (403, "role_refused")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_request"),
        ({"amount": "10", "days": 3}, "invalid_request"),
        ({"amount": 10}, "invalid_request"),
        ({"energy_wh": 0}, "invalid_request"),
        ({"energy_wh": 10**30}, "invalid_request"),
        ({"energy_wh": 1.5}, "invalid_request"),
        ({"days": 366}, "invalid_request"),
        ({"amount": "x"}, "bad_amount"),
        ({"amount": "0"}, "amount_not_positive"),
        ({"amount": "0.001"}, "amount_too_precise"),
        ({"amount": "999999999999999999.99"}, "amount_above_maximum"),
    ],
)
def test_a_quote_that_cannot_be_asked_is_refused(
    site: Site, refused: Any, body: dict[str, object], code: str
) -> None:
    customer = site.open()
    path = f"/v1/accounts/{customer.number}/quotes"
    response = site.client.post(path, headers=customer.headers, json=body)
    assert refused(response) == (422, code)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/entries?cursor=abc", 422, "bad_cursor"),
        ("/entries?cursor=99999999999999999999", 422, "bad_cursor"),
        ("/entries?limit=0", 422, "invalid_request"),
        ("/entries?limit=501", 422, "invalid_request"),
        ("/entries/abc", 404, "not_found"),
        ("/entries/0", 404, "not_found"),
        ("/entries/1.0", 404, "not_found"),
        ("/entries/+1", 404, "not_found"),
        ("/entries/1_0", 404, "not_found"),
        ("/entries/01", 404, "not_found"),
        ("/entries/9223372036854775808", 404, "not_found"),
        ("/entries/99999999999999999999", 404, "not_found"),
        ("/entries/123456", 404, "not_found"),
        ("/top-ups/none", 404, "not_found"),
        ("/top-ups/%00", 422, "invalid_request"),
        ("/top-ups?cursor=%00", 422, "invalid_request"),
        ("/nothing", 404, "not_found"),
    ],
)
def test_a_path_that_leads_nowhere_is_a_problem(
    site: Site, refused: Any, path: str, status: int, code: str
) -> None:
    customer = site.open()
    response = site.client.get(f"/v1/accounts/{customer.number}{path}", headers=customer.headers)
    assert refused(response) == (status, code)


@pytest.mark.parametrize("day", ["1772323200", "2026-03-01T00:00:00Z", "20260301", "2026-3-1"])
def test_a_date_is_written_as_one(site: Site, refused: Any, day: str) -> None:
    assert refused(site.signed("GET", f"/recon/{day}")) == (422, "invalid_request")
    path = f"/v1/accounts/{site.open().number}/tariffs"
    body = {"tariff": "social", "from": int(day) if day.isdigit() else day, "reason": "x"}
    answer = site.client.post(path, headers=site.operator, json=body)
    assert refused(answer) == (422, "invalid_request")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/accounts/A-1/top-ups", "GET, POST"),
        ("/v1/partners/recon/2026-03-01", "GET, PUT"),
        ("/v1/adjustments", "GET, POST"),
        ("/v1/accounts/A-1/balance", "GET"),
        ("/healthz", "GET, HEAD"),
    ],
)
def test_a_refused_method_is_told_all_that_are_not(
    site: Site, refused: Any, path: str, allowed: str
) -> None:
    answer = site.client.patch(path)
    assert refused(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_what_watches_may_ask_for_the_head_alone(site: Site, path: str) -> None:
    whole, head = site.client.get(path), site.client.head(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert site.client.head("/v1/accounts/A-1/balance").status_code == 405
    counted = f'method="HEAD",route="{path}",status="200"'
    assert counted in site.client.get("/metrics").text


@pytest.mark.parametrize(
    "path", ["accounts/{}/top-ups", "adjustments", "payments/suspect", "payments?account={}"]
)
@pytest.mark.parametrize("cursor", ["zzz", "-1", "1.2", "x.00000000"])
def test_a_cursor_that_no_page_gave_is_refused(
    site: Site, refused: Any, path: str, cursor: str
) -> None:
    url = f"/v1/{path.format(site.open().number)}"
    url += f"{'&' if '?' in url else '?'}cursor={cursor}"
    assert refused(site.client.get(url, headers=site.operator)) == (422, "bad_cursor")


def test_lists_whose_ids_are_text_are_read_page_by_page(site: Site) -> None:
    customer, op = site.open(), site.operator
    for number in range(3):
        body = {"account": customer.number, "amount": "1", "reason": "x"}
        keyed = {**op, "Idempotency-Key": f"{customer.number}-{number}"}
        assert site.client.post("/v1/adjustments", json=body, headers=keyed).status_code == 201
        site.pay(customer, "20.00", next(TXN_IDS))
        unknown = payment("99999999999")
        assert site.signed("POST", "/payments", unknown).status_code == 202
    for path, query in (
        (f"accounts/{customer.number}/top-ups", {}),
        ("adjustments", {"account": customer.number}),
        ("payments", {"account": customer.number}),
        ("payments/suspect", {}),
    ):
        whole = site.client.get(f"/v1/{path}", headers=op, params=query).json()["items"]
        found, cursor = [], None
        while cursor is not None or not found:
            asked = query | {"limit": 1} | ({} if cursor is None else {"cursor": cursor})
            page = site.client.get(f"/v1/{path}", headers=op, params=asked).json()
            found += page["items"]
            cursor = page["next_cursor"]
        assert [each["id"] for each in found] == [each["id"] for each in whole], path
        assert len(found) >= 3


def test_emergency_credit_that_nobody_offers_is_refused(site: Site, refused: Any) -> None:
    customer = site.open()
    path = f"/v1/accounts/{customer.number}/emergency-credit"
    assert refused(site.client.post(path, headers=customer.headers)) == (409, "not_on_request")
    assert refused(site.client.get(path, headers=customer.headers)) == (405, "method_not_allowed")
