"""One span for a request: by its route, in the caller's trace, and silent on whom it is about."""

import json
from typing import Any

import httpx
import pytest
import structlog
from opentelemetry.trace import SpanKind, StatusCode

from prepaid.logs import name_span

Site = Any
TRACE_ID, CALLERS_SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
BALANCE = "/v1/accounts/{account}/balance"


@pytest.fixture
def site(recorded_spans: Any, lively_site: Site) -> Site:
    return lively_site


def ended(site: Site, recorded_spans: Any) -> list[Any]:
    """All spans, once the server has ended: an answer is read before its span ends."""
    site.stop()
    return list(recorded_spans.get_finished_spans())


def facts(span: Any) -> tuple[str, dict[str, Any], StatusCode]:
    return span.name, dict(span.attributes), span.status.status_code


def test_an_answer_is_one_span_of_its_route(site: Site, recorded_spans: Any) -> None:
    customer = site.open()
    site.get(customer, "/balance")
    (span,) = ended(site, recorded_spans)
    attributes = {
        "http.request.method": "GET",
        "http.route": BALANCE,
        "http.response.status_code": 200,
    }
    assert facts(span) == (f"GET {BALANCE}", attributes, StatusCode.UNSET)
    assert (span.kind, span.parent) == (SpanKind.SERVER, None)


def test_a_request_goes_on_with_the_trace_of_its_caller(site: Site, recorded_spans: Any) -> None:
    sampled = f"00-{TRACE_ID}-{CALLERS_SPAN_ID}-01"
    for traceparent in (sampled, sampled[:-1] + "0", "00-not-a-trace-01"):
        site.client.get("/healthz", headers={"traceparent": traceparent})
    # The caller of the second keeps no trace, and so do we.
    joined, alone = ended(site, recorded_spans)
    assert f"{joined.context.trace_id:032x}" == TRACE_ID
    assert f"{joined.parent.span_id:016x}" == CALLERS_SPAN_ID
    assert joined.parent.is_remote
    assert alone.parent is None
    assert f"{alone.context.trace_id:032x}" != TRACE_ID


def test_a_refusal_is_no_error_of_ours(site: Site, recorded_spans: Any) -> None:
    customer = site.open()
    assert site.client.get(f"/v1/accounts/{customer.number}/balance").status_code == 401
    assert site.client.get(f"/nowhere/{customer.number}").status_code == 404
    refused, unmatched = ended(site, recorded_spans)
    attributes = {
        "http.request.method": "GET",
        "http.route": BALANCE,
        "http.response.status_code": 401,
    }
    assert facts(refused) == (f"GET {BALANCE}", attributes, StatusCode.UNSET)
    attributes = {"http.request.method": "GET", "http.response.status_code": 404}
    assert facts(unmatched) == ("GET", attributes, StatusCode.UNSET)


@pytest.mark.usefixtures("defect")
def test_a_defect_is_an_error_that_quotes_nothing(site: Site, recorded_spans: Any) -> None:
    site.client.get("/v1/accounts", headers={"Authorization": "Bearer x"})
    (span,) = ended(site, recorded_spans)
    attributes = {
        "http.request.method": "GET",
        "http.route": "/v1/accounts",
        "http.response.status_code": 500,
        "error.type": "500",
    }
    assert facts(span) == ("GET /v1/accounts", attributes, StatusCode.ERROR)
    assert (span.status.description, span.events) == (None, ())


def test_an_answer_that_breaks_off_is_an_error(
    site: Site, recorded_spans: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = site.open()

    async def fail(*_: object) -> bool:
        raise LookupError(customer.number)

    monkeypatch.setattr("api.streams.Streams._quiet", fail)
    path = f"/v1/accounts/{customer.number}/events"
    with (
        site.client.stream("GET", path, headers=customer.headers) as answer,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        answer.read()
    (span,) = ended(site, recorded_spans)
    assert span.attributes["http.response.status_code"] == 200
    assert (span.attributes["error.type"], span.status.status_code) == (
        "LookupError",
        StatusCode.ERROR,
    )
    assert customer.number not in span.to_json()


def test_no_span_holds_what_a_request_is_about(site: Site, recorded_spans: Any) -> None:
    customer = site.open()
    paid = site.pay(customer, "20.00", "txn-of-the-bank").json()
    site.read(customer, "2026-03-01T10:00:00Z", 100_500)
    site.get(customer, "/entries", limit=3)
    site.client.get(f"/v1/accounts/A-99?meter={customer.meter}", headers=customer.headers)
    site.client.post("/v1/auth/otp", json={"phone": "+22236123456"})
    # Whoever calls may put any method there is in its place; another word is no HTTP.
    site.client.request("PURGE", f"/v1/accounts/{customer.number}/balance")
    odd = site.client.request(customer.number, f"/v1/accounts/{customer.number}/balance")
    assert (odd.status_code, customer.number in odd.text) == (400, False)
    site.client.get("/healthz", headers={"baggage": f"account={customer.number}"})
    spans = ended(site, recorded_spans)
    assert len(spans) == 6
    assert spans[4].attributes["http.request.method"] == "_OTHER"
    told = "".join(span.to_json() for span in spans)
    key = customer.headers["Authorization"].removeprefix("Bearer ")
    secrets = (
        "txn-of-the-bank",
        key,
        customer.number,
        customer.meter,
        "36123456",
        "A-99",
        "Aminata",
    )
    assert [each for each in (*secrets, *paid["tokens"]) if each in told] == []


def test_a_stream_is_one_span_and_told_as_it_happens(site: Site, recorded_spans: Any) -> None:
    customer = site.open(tariff=site.free_of_charges())
    path = f"/v1/accounts/{customer.number}/events"
    with site.client.stream("GET", path, headers=customer.headers) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        before = json.loads(next(lines).removeprefix("data: "))
        site.read(customer, "2026-03-01T01:00:00Z", 101_000)
        assert json.loads(next(lines).removeprefix("data: ")) != before
        # It was told while the stream, and so its span, was open.
        assert recorded_spans.get_finished_spans() == ()
    (span,) = ended(site, recorded_spans)
    assert span.name == "GET /v1/accounts/{account}/events"
    assert span.attributes["http.response.status_code"] == 200
    assert span.status.status_code == StatusCode.UNSET


def test_the_line_of_a_request_carries_the_ids_of_its_span(site: Site, recorded_spans: Any) -> None:
    with structlog.testing.capture_logs(processors=[name_span]) as lines:
        site.client.get("/healthz")
        (span,) = ended(site, recorded_spans)
    (line,) = [line for line in lines if line["event"] == "request_served"]
    assert int(line["trace_id"], 16) == span.context.trace_id
    assert int(line["span_id"], 16) == span.context.span_id
