"""Laws of the description: money names its currency, and what ages says as of when."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from api.openapi import openapi_text

DESCRIBED: Mapping[str, Any] = json.loads(openapi_text())
SCHEMAS: Mapping[str, Mapping[str, Any]] = DESCRIBED["components"]["schemas"]
AMOUNT = r"^-?[0-9]+\.[0-9]{6}$"


def within(form: object) -> Iterator[Mapping[str, Any]]:
    """Every mapping of a description."""
    if isinstance(form, Mapping):
        yield form
        for each in form.values():
            yield from within(each)
    elif isinstance(form, list):
        for each in form:
            yield from within(each)


def named(form: object) -> set[str]:
    """The schemas that a description refers to."""
    return {
        each["$ref"].rpartition("/")[2]
        for each in within(form)
        if isinstance(each.get("$ref"), str)
    }


def answered() -> set[str]:
    """The schemas that are whole answers."""
    return {
        name
        for path in DESCRIBED["paths"].values()
        for operation in path.values()
        for response in operation["responses"].values()
        for name in named(response)
    }


def says_currency(name: str) -> bool:
    schema = SCHEMAS[name]
    return "currency" in schema.get("properties", {}) or "Money" in named(schema)


def bare(name: str) -> bool:
    """Whether it has amounts without a currency of its own."""
    return not says_currency(name) and any(
        each.get("pattern") == AMOUNT for each in within(SCHEMAS[name].get("properties", {}))
    )


def test_an_amount_stands_beside_its_currency_or_within_what_names_it() -> None:
    holders = {name: {other for other in SCHEMAS if name in named(SCHEMAS[other])}
               for name in SCHEMAS}  # fmt: skip
    found = {name for name in SCHEMAS if bare(name)}
    assert found, "the pattern of amounts has changed"
    lost = set()
    for name in found:
        around, seen = {name}, set()
        while around:
            each = around.pop()
            seen.add(each)
            if says_currency(each):
                continue
            if each in answered() or not holders[each]:
                lost.add(name)
            around |= holders[each] - seen
    assert lost == set()


# Figures that are counted or reckoned at the instant of the answer.
AGING = {
    "BalanceAnswer", "ConsumptionAnswer", "AccountReportAnswer", "MeterAnswer", "MeterPage",
    "GatewayAnswer", "CentreAnswer", "TariffAnswer", "ItemAnswer", "ItemPage", "StandingAnswer",
    "LookupAnswer", "TokenPage", "CommandPage", "ReadyAnswer", "ImportAnswer",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(AGING))
def test_what_ages_says_as_of_when(name: str) -> None:
    assert "as_of" in SCHEMAS[name]["required"]
