"""A bank's payment that waits for a person, as the customer of its account sees it."""

from itertools import count
from typing import Any

import pytest

from credit_engine.days import DAY_MS
from schemas.quantities import format_instant
from store import suspects

Site = Any
NUMBERS = (f"held-{number}" for number in count(1))


@pytest.fixture
def site(shared_site: Site) -> Site:
    return shared_site


def unusual(site: Site, customer: Any) -> Any:
    """A payment so large that it is held, as its bank is told."""
    for _ in range(3):
        site.pay(customer, "20.00", next(NUMBERS))
    site.clock.now += 60_000
    held = site.pay(customer, "2000.00", next(NUMBERS))
    assert held.status_code == 202
    return held.json()


def reached(top_up: Any) -> list[str]:
    return [each["state"] for each in top_up["states"]]


def decide(site: Site, customer: Any, held: Any, decision: str) -> None:
    who = {"who": "finn", "reason": "the payer was asked", "now_ms": site.clock.now + 1000}
    if decision == "returned":
        suspects.send_back(site.conn, held["id"], **who)
    else:
        module = site.security_module
        of = {"meter": customer.meter, **who}
        suspects.credit(site.conn, site.terms, module, held["id"], **of)


@pytest.mark.parametrize(
    ("decision", "states"),
    [
        (None, ["received", "suspect"]),
        ("returned", ["received", "suspect", "reversed"]),
        ("credited", ["received", "suspect", "credited", "token_issued"]),
    ],
)
def test_a_held_payment_is_shown_to_its_customer_and_so_is_its_end(
    site: Site, decision: str | None, states: list[str]
) -> None:
    customer, other = site.open(), site.open()
    held = unusual(site, customer)
    if decision is not None:
        decide(site, customer, held, decision)
    newest, *rest = site.get(customer, "/top-ups")["items"]
    assert (newest["amount"]["amount"], newest["channel"]) == ("2000.000000", "bank")
    assert (newest["account"], newest["meter"]) == (customer.number, customer.meter)
    assert (newest["state"], reached(newest)) == (states[-1], states)
    assert [each["state"] for each in rest] == ["token_issued"] * 3
    # The number that was first told stays one of it.
    for number in (held["id"], newest["id"]):
        assert site.get(customer, f"/top-ups/{number}") == newest
    page = site.get(customer, "/top-ups", limit=1)
    assert page["items"] == [newest]
    assert site.get(customer, "/top-ups", cursor=page["next_cursor"])["items"] == rest
    assert site.get(other, "/top-ups")["items"] == []
    path = f"/v1/accounts/{other.number}/top-ups/{held['id']}"
    assert site.client.get(path, headers=other.headers).status_code == 404


@pytest.mark.parametrize(
    ("ahead_ms", "held"), [(0, False), (DAY_MS, False), (DAY_MS + 60_000, True), (10**12, True)]
)
def test_what_is_paid_in_the_future_waits_for_a_person_and_is_not_lost(
    site: Site, ahead_ms: int, held: bool
) -> None:
    customer = site.open()
    # Of a clock that is set by hand real time may be far from it: either may be the later.
    at = format_instant(max(site.clock.now, site.wall_ms()) + ahead_ms)
    number = next(NUMBERS)
    taken = site.pay(customer, "20.00", number, paid_at=at)
    assert (taken.status_code, taken.json()["suspicion"]) == (
        (202, "future") if held else (201, None)
    )
    site.clock.now += 2 * ahead_ms if ahead_ms <= 2 * DAY_MS else 1
    again = site.pay(customer, "20.00", number, paid_at=at)
    assert (again.status_code, again.json()["id"]) == (taken.status_code, taken.json()["id"])
    (shown,) = site.get(customer, "/top-ups")["items"]
    assert (shown["state"] == "suspect") == held
    listed = site.client.get("/v1/payments/suspect?limit=500", headers=site.operator).json()[
        "items"
    ]
    assert [each["suspicion"] for each in listed if each["id"] == taken.json()["id"]] == (
        ["future"] if held else []
    )


@pytest.mark.parametrize("fraction", ["123456", "123000", "1239999", "123456789"])
def test_an_instant_is_taken_to_the_millisecond_however_fine_it_is(
    site: Site, fraction: str
) -> None:
    customer, number = site.open(), next(NUMBERS)
    for text in (f"2026-03-01T00:00:00.{fraction}Z", "2026-03-01T00:00:00.123Z"):
        paid = site.pay(customer, "20.00", number, paid_at=text)
        assert (paid.status_code, paid.json()["paid_at"]) == (201, "2026-03-01T00:00:00.123Z")


def test_what_was_credited_to_another_meter_is_shown_where_it_went(site: Site) -> None:
    customer, meant = site.open(), site.open()
    held = unusual(site, customer)
    decide(site, meant, held, "credited")
    assert len(site.get(customer, "/top-ups")["items"]) == 3
    (shown,) = site.get(meant, "/top-ups")["items"]
    assert reached(shown) == ["received", "suspect", "credited", "token_issued"]


def test_a_repeat_is_given_the_first_answer_after_the_meter_was_exchanged(site: Site) -> None:
    customer, meant = site.open(), site.open(sts=False)
    own = site.open(sts=False)
    paid = site.pay(own, "20.00", next(NUMBERS)).json()["id"]
    held = unusual(site, customer)["id"]
    requests = [
        (f"/v1/payments/suspect/{held}/crediting", {"meter": meant.meter, "reason": "he meant it"}),
        (f"/v1/accounts/{own.number}/top-ups/{paid}/moves", {"meter": meant.meter}),
    ]

    def answered() -> list[Any]:
        return [
            site.client.post(
                path, json=body, headers=site.operator | {"Idempotency-Key": path[-40:]}
            )
            for path, body in requests
        ]

    first = answered()
    assert [each.status_code for each in first] == [200, 201], [each.text for each in first]
    site.exchange(meant, format_instant(site.clock.now + 3_600_000))
    assert [each.json() for each in answered()] == [each.json() for each in first]
