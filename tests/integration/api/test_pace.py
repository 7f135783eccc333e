"""Who asks too often is told to wait, and for how long."""

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from api.pace import network

Site = Any
# What the sites of these tests allow in a minute.
OF_CALLER, OF_ADDRESS = 3, 9


def refused_one(ask: Callable[[], Any], bound: int, status: int) -> Any:
    """The first answer that is refused for pace: after as many as are allowed in a minute, or in
    two where a minute ends meanwhile.
    """
    for asked in range(2 * bound + 1):
        answer = ask()
        if answer.status_code == 429:
            assert asked >= bound
            return answer
        assert answer.status_code == status
    raise AssertionError(f"{2 * bound + 1} answers and no refusal")


def test_a_caller_who_asks_too_often_waits_and_others_do_not(
    hasty_site: Site, refused: Any
) -> None:
    site, customer = hasty_site, hasty_site.open()
    late = refused_one(
        lambda: site.client.get("/v1/accounts", headers=customer.headers), OF_CALLER, 200
    )
    assert refused(late) == (429, "too_many_requests")
    assert 1 <= int(late.headers["retry-after"]) <= 120
    assert site.signed("POST", "/lookup", {"meter": customer.meter}).status_code == 200
    assert site.client.get("/v1/accounts", headers=site.operator).status_code == 200


def test_an_address_that_asks_too_often_waits_whoever_it_says_to_be(
    hasty_site: Site, refused: Any
) -> None:
    site = hasty_site
    guesses = count(1)

    def guess() -> Any:
        headers = {"Authorization": f"Bearer guess-{next(guesses)}"}
        return site.client.get("/v1/accounts", headers=headers)

    refused_one(guess, OF_ADDRESS, 401)
    late = site.client.get("/v1/accounts", headers=site.operator)
    assert refused(late) == (429, "too_many_requests")
    assert int(late.headers["retry-after"]) >= 1
    assert late.headers["cache-control"] == "no-store"
    for path in ("/healthz", "/readyz", "/metrics"):
        assert site.client.get(path).status_code == 200


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1%eth0", "2001:db8:1:2::"),
        ("", ""),
        ("a-name", "a-name"),
    ],
)
def test_an_address_is_counted_by_what_one_household_has(host: str, counted: str) -> None:
    assert network(host) == counted
