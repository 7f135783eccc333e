"""Who sends a body is asked before it is read."""

from typing import Any

import pytest
from fastapi.routing import APIRoute

from api.admission import KnownFirst, calls_of
from api.app import ROUTES
from api.dependencies import Allowed, signed_by

Site = Any
JSON = {"content-type": "application/json"}
OF_BODIES = [
    route
    for module in ROUTES
    for route in module.router.routes
    if isinstance(route, APIRoute) and route.body_field is not None
]
KNOWN = [
    (sorted(route.methods)[0], route.path, signed_by in calls)
    for route in OF_BODIES
    for calls in [list(calls_of(route.dependant))]
    if signed_by in calls or any(isinstance(call, Allowed) for call in calls)
]


@pytest.fixture
def site(shared_site: Site) -> Site:
    return shared_site


def test_every_route_of_a_body_asks_who_sends_it_first() -> None:
    assert [each.path for each in OF_BODIES if not isinstance(each, KnownFirst)] == []
    assert len(KNOWN) > 20


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 60_000, b"{}"])
def test_a_stranger_is_told_that_he_is_one_whatever_he_sends(
    site: Site, refused: Any, content: bytes
) -> None:
    for method, path, signed in KNOWN:
        url = path.replace("{", "").replace("}", "").replace(":path", "")
        headers = {**JSON, "Idempotency-Key": "k"}
        answer = site.client.request(method, url, content=content, headers=headers)
        wanted = "signature_missing" if signed else "access_key_missing"
        assert refused(answer) == (401, wanted), (method, path)


def test_who_signed_with_another_key_is_told_that_and_nothing_of_his_body(
    site: Site, refused: Any
) -> None:
    for method, path in (("POST", "/lookup"), ("PUT", "/recon/2026-03-01")):
        wrong = site.signed(method, path, raw=b"{", key=site.wallet_key())
        assert refused(wrong) == (401, "signature_mismatch")
        assert site.signed(method, path, raw=b"{").status_code == 422


def test_who_may_not_do_it_is_told_that_first(site: Site, refused: Any) -> None:
    customer = site.open()
    headers = {**customer.headers, **JSON, "Idempotency-Key": "k"}
    answer = site.client.post("/v1/adjustments", content=b"{", headers=headers)
    assert refused(answer) == (403, "role_refused")
