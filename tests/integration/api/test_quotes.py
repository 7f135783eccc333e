"""A partner's quotes: the vend is the quote, or its answer says what changed in between."""

from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.quantities import format_instant

Site = Any
NUMBERS = (f"q-{number}" for number in count(1))
HOUR = 3_600_000


@pytest.fixture
def site(shared_site: Site) -> Site:
    """Each test opens accounts of its own."""
    shared_site.clock.now += HOUR
    return shared_site


def pay(site: Site, meter: str, amount: str, number: str, **more: Any) -> Any:
    partner = more.pop("partner", "bank")
    key = {"key": site.wallet_key()} if partner == "wallet" else {}
    body = {"partner_txn_id": number, "meter": meter, "amount": amount}
    body |= {"paid_at": format_instant(site.clock.now), **more}
    return site.signed("POST", "/payments", body, partner=partner, **key)


def shown(site: Site, number: str) -> Any:
    answer = site.signed("GET", f"/payments/{number}")
    assert answer.status_code == 200, answer.text
    return answer.json()


# What may happen to an account before a payment, and between a quote and its payment.
EVENTS = st.one_of(
    st.tuples(st.just("read"), st.integers(0, 60_000)),
    st.tuples(st.just("wait"), st.integers(1, 40 * HOUR)),
    st.tuples(st.just("pay"), st.integers(100, 40_000)),
)
AMOUNTS = st.integers(100, 500_000)


def happen(site: Site, customer: Any, register: int, event: tuple[str, int]) -> int:
    kind, size = event
    if kind == "read":
        site.read(customer, format_instant(site.clock.now + HOUR), register + size)
        return register + size
    if kind == "wait":
        site.clock.now += size
    else:
        assert pay(site, customer.meter, cents(size), next(NUMBERS)).status_code in {201, 202}
    return register


def cents(amount: int) -> str:
    return f"{amount // 100}.{amount % 100:02d}"


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    before=st.lists(EVENTS, max_size=3),
    between=st.lists(EVENTS, max_size=2),
    amount=AMOUNTS,
    debt=st.sampled_from(["0", "35.00"]),
)
def test_a_quote_is_the_vend_unless_its_answer_says_what_changed(
    site: Site, before: list[Any], between: list[Any], amount: int, debt: str
) -> None:
    """Nothing between: equal to the last unit. Else: equal lines, or words for what changed."""
    share = {"outstanding": debt, "rules": [{"kind": "payment_share", "percent": "20"}]}
    customer, register = site.open(**({"debt": share} if debt != "0" else {})), 100_000
    for event in before:
        register = happen(site, customer, register, event)
    quoted = site.signed("POST", "/quotes", {"meter": customer.meter, "amount": cents(amount)})
    quote = quoted.json()
    assert sum_of(quote["lines"]) == amount * 10_000
    for event in between:
        register = happen(site, customer, register, event)
    number = next(NUMBERS)
    answer = pay(site, customer.meter, cents(amount), number, quote_id=quote["quote_id"])
    if answer.status_code == 202:
        assert answer.json()["quote"] == {
            "quote_id": quote["quote_id"], "equal": None, "changed": [],
        }  # fmt: skip
        return
    paid = answer.json()
    named = paid["quote"]
    same = (paid["lines"], paid["energy_wh"]) == (quote["lines"], quote["energy_wh"])
    assert (named["equal"], named["quote_id"]) == (same, quote["quote_id"])
    assert same or between
    assert bool(named["changed"]) is not same
    assert shown(site, number)["quote"] == named


def sum_of(lines: list[Any]) -> int:
    return sum(int(line["amount"].replace(".", "")) for line in lines)


def test_a_quote_that_is_none_of_the_payments_binds_nothing_and_is_told(site: Site) -> None:
    customer, other = site.open(), site.open()
    body = {"meter": other.meter, "amount": "10.00"}
    quote = site.signed("POST", "/quotes", body).json()["quote_id"]
    unlike = pay(site, customer.meter, "12.00", next(NUMBERS), quote_id=quote).json()["quote"]
    assert unlike["equal"] is False
    assert {each["what"] for each in unlike["changed"]} >= {"meter", "amount"}
    # Another bank's quote is none.
    of = {"partner": "wallet", "quote_id": quote}
    foreign = pay(site, other.meter, "10.00", next(NUMBERS), **of).json()["quote"]
    assert [each["what"] for each in foreign["changed"]] == ["quote_id"]


def test_a_held_payment_is_compared_with_its_quote_when_it_is_credited(site: Site) -> None:
    number, customer = next(NUMBERS), site.open()
    body = {"meter": customer.meter, "amount": "15.00"}
    quote = site.signed("POST", "/quotes", body).json()["quote_id"]
    held = pay(site, "99999999999", "15.00", number, quote_id=quote).json()
    done = site.client.post(
        f"/v1/payments/suspect/{held['id']}/crediting",
        headers=site.operator | {"Idempotency-Key": number},
        json={"meter": customer.meter, "reason": "read again"},
    )
    assert done.status_code == 200
    assert shown(site, number)["quote"] == {"quote_id": quote, "equal": True, "changed": []}


def test_old_quotes_are_removed_a_few_at_a_time(site: Site) -> None:
    customer = site.open()
    body = {"meter": customer.meter, "amount": "15.00"}
    first = site.signed("POST", "/quotes", body).json()["quote_id"]
    site.clock.now += 3 * 24 * HOUR
    for _ in range(20):
        site.signed("POST", "/quotes", body)
    kept = site.conn.execute("SELECT count(*), bool_or(id = %s) FROM partner_quote", (first,))
    assert kept.fetchone() == (20, False)
