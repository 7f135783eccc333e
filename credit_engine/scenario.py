"""A scenario: one account, its facts and an instant, as one mapping (section 10).

`parse_scenario` reads it, `run` rates it, `credit_engine.scenario_report.differences` compares.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from credit_engine.engine import advance
from credit_engine.errors import CreditError
from credit_engine.facts import EmergencyRequest, Exchange, Fact, Reading, Reversal, TopUp
from credit_engine.form import Form, bad_input
from credit_engine.outcome import Outcome
from credit_engine.position import genesis
from credit_engine.quote import Quote, quote
from credit_engine.scenario_report import report
from credit_engine.tariff import TARIFF_KEYS, parse_account, parse_installation, parse_tariff
from credit_engine.terms import Installation, Terms

REQUIRED = ("timezone", "currency", "tariff", "account", "meter", "until")
OPTIONAL = ("holidays", "facts", "quotes", "expected")


@dataclass(frozen=True, slots=True)
class QuoteRequest:
    at_ms: int
    amount_micro: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """`facts` in order of arrival. `expected`: None where the scenario expects nothing."""

    terms: Terms
    installation: Installation
    facts: tuple[Fact, ...]
    quotes: tuple[QuoteRequest, ...]
    until_ms: int
    expected: Any = None


def parse_scenario(mapping: Any) -> Scenario:
    """Errors: CreditError bad_input, with a message that begins with the path of the field."""
    if not isinstance(mapping, dict):
        raise bad_input("give a mapping", "scenario")
    fields = Form("", mapping).fields(REQUIRED, OPTIONAL)
    tariff = parse_tariff({key: form.value for key, form in fields.items() if key in TARIFF_KEYS})
    terms = parse_account(fields["account"].value, tariff)
    facts = fields["facts"].items() if "facts" in fields else []
    scenario = Scenario(
        terms=terms,
        installation=parse_installation(fields["meter"]),
        facts=tuple(parse_fact(form) for form in facts),
        quotes=tuple(map(_quote_request, fields["quotes"].items())) if "quotes" in fields else (),
        until_ms=fields["until"].instant(),
        expected=mapping.get("expected"),
    )
    for place, request in enumerate(scenario.quotes):
        if request.at_ms > scenario.until_ms:
            raise bad_input("a quote must not lie after `until`", f"quotes[{place}].at", "until")
    return scenario


def parse_fact(form: Form) -> Fact:
    """One fact, a mapping with one key. Errors: CreditError bad_input."""
    given = form.fields((), tuple(_FACTS))
    if len(given) != 1:
        raise form.refuse(f"give one of: {', '.join(_FACTS)}")
    [(kind, content)] = given.items()
    return _FACTS[kind](content)


def rate(scenario: Scenario) -> tuple[Outcome, list[Quote]]:
    """The outcome at `until`, and the quotes, each after all facts up to its instant.

    Errors: CreditError, with a message that names the fields by their paths.
    """
    terms = scenario.terms
    try:
        start = genesis(terms, scenario.installation)
        outcome = advance(terms, start, scenario.facts, scenario.until_ms)
    except CreditError as error:
        raise _with_paths(scenario, error) from None
    quotes = []
    for place, request in enumerate(scenario.quotes):
        try:
            then = advance(terms, start, scenario.facts, request.at_ms)
            quotes.append(quote(terms, then.totals, request.at_ms, request.amount_micro))
        except CreditError as error:
            raise _with_paths(scenario, error, f"quotes[{place}].at") from None
    return outcome, quotes


def run(scenario: Scenario) -> dict[str, Any]:
    """The result of section 10, ready for JSON. Errors: as `rate`."""
    outcome, quotes = rate(scenario)
    return report(scenario.terms, outcome, quotes)


def _with_paths(scenario: Scenario, error: CreditError, *paths: str) -> CreditError:
    """The same refusal, its objects named by their place in the scenario."""
    named = [*paths]
    for bound, name in error.binds:
        if bound is scenario.terms:
            named.append(f"account.{name}")
        elif bound is scenario.installation:
            named.append(f"meter.{name}")
        named.extend(
            f"tariff.versions[{version.place}].{name}"
            for version in scenario.terms.tariff.versions
            if bound is version
        )
        named.extend(
            f"facts[{place}].{_KINDS[type(fact)]}.{name}"
            for place, fact in enumerate(scenario.facts)
            if bound is fact
        )
    return CreditError(error.code, f"{', '.join(named)}: {error}", *error.binds)


def _reading(form: Form) -> Reading:
    fields = form.fields(("time", "wh"), ("meter",))
    meter = fields["meter"].text() if "meter" in fields else None
    return Reading(fields["time"].instant(), fields["wh"].integer(), meter)


def _top_up(form: Form) -> TopUp:
    fields = form.fields(("id", "time", "amount"))
    return TopUp(fields["id"].text(), fields["time"].instant(), fields["amount"].money())


def _reversal(form: Form) -> Reversal:
    fields = form.fields(("top_up", "time"))
    return Reversal(fields["top_up"].text(), fields["time"].instant())


def _exchange(form: Form) -> Exchange:
    fields = form.fields(("time", "closing_wh", "meter"))
    meter = parse_installation(fields["meter"], fields["time"].instant())
    return Exchange(fields["closing_wh"].integer(), meter)


def _emergency_request(form: Form) -> EmergencyRequest:
    return EmergencyRequest(form.fields(("time",))["time"].instant())


def _quote_request(form: Form) -> QuoteRequest:
    fields = form.fields(("at", "amount"))
    return QuoteRequest(fields["at"].instant(), fields["amount"].money())


_FACTS: Mapping[str, Callable[[Form], Fact]] = {
    "reading": _reading,
    "top_up": _top_up,
    "reversal": _reversal,
    "exchange": _exchange,
    "emergency_request": _emergency_request,
}
_KINDS: Mapping[type, str] = {
    Reading: "reading",
    TopUp: "top_up",
    Reversal: "reversal",
    Exchange: "exchange",
    EmergencyRequest: "emergency_request",
}
