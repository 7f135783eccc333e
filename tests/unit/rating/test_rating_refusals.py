"""Every refusal of the rating contract names the field, and both where a rule binds two."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from credit_engine.engine import advance
from credit_engine.errors import CreditError
from credit_engine.facts import RecordedTopUp, Reversal
from credit_engine.position import genesis
from credit_engine.scenario import parse_scenario, run
from credit_engine.tariff import parse_terms

NIGHT = {"days": ["mon"], "from": "22:00", "to": "06:00"}
SHARE = {"kind": "payment_share", "percent": "20"}
VAT = {"name": "vat", "percent": "16", "on": ["energy"], "included": False}
BASE: dict[str, Any] = {
    "timezone": "Africa/Nouakchott",
    "currency": "MRU",
    "holidays": ["2026-03-20"],
    "tariff": {
        "versions": [
            {
                "valid_from": "2026-01-01",
                "period": "month",
                "bands": [
                    {
                        "name": "night",
                        "method": "volume",
                        "windows": [NIGHT],
                        "blocks": [{"up_to_kwh": "10", "price": "1"}, {"price": "2"}],
                    },
                    {"name": "rest", "method": "graduated", "blocks": [{"price": "3"}]},
                ],
                "standing_per_day": "1",
                "taxes": [VAT],
            }
        ]
    },
    "account": {
        "activated_at": "2026-03-01T00:00:00Z",
        "debt": {"outstanding": "5", "rules": [SHARE, {"kind": "daily", "amount": "1"}]},
        "emergency": {"limit": "2", "activation": "automatic"},
        "reconnect_at": "1",
        "non_disconnection": [{**NIGHT}],
    },
    "meter": {
        "id": "1",
        "max_power_w": 6600,
        "modulus_wh": 10**6,
        "opened_at": "2026-03-01T00:00:00Z",
        "opening_wh": 0,
    },
    "facts": [
        {"top_up": {"id": "p1", "time": "2026-03-01T09:00:00Z", "amount": "10"}},
        {"reading": {"time": "2026-03-02T00:00:00Z", "wh": 1000}},
        {"reversal": {"top_up": "p1", "time": "2026-03-02T01:00:00Z"}},
        {"emergency_request": {"time": "2026-03-02T02:00:00Z"}},
        {
            "exchange": {
                "time": "2026-03-02T03:00:00Z",
                "closing_wh": 1000,
                "meter": {"id": "2", "modulus_wh": 10**6, "opening_wh": 0},
            }
        },
    ],
    "quotes": [{"at": "2026-03-02T00:00:00Z", "amount": "5"}],
    "until": "2026-03-03T00:00:00Z",
}
VERSION = "tariff.versions[0]"
ABSENT = object()
EXCHANGE = BASE["facts"][4]["exchange"]


def edited(path: str, value: Any) -> dict[str, Any]:
    """`BASE` with the value at `path` replaced, added or, for ABSENT, taken out."""
    scenario = deepcopy(BASE)
    *parents, last = path.replace("[", ".[").split(".")
    place: Any = scenario
    for part in parents:
        place = place[int(part[1:-1])] if part.startswith("[") else place[part]
    if last == "[+]":
        place.append(value)
    elif value is ABSENT:
        del place[last]
    else:
        place[int(last[1:-1]) if last.startswith("[") else last] = value
    return scenario


def test_the_base_of_these_cases_is_accepted() -> None:
    assert run(parse_scenario(deepcopy(BASE)))["readings"]["accepted"] == 2


# path to edit, the value put there, the paths that the refusal names
CASES: list[tuple[str, Any, list[str]]] = [
    ("colour", "red", ["colour"]),
    ("until", ABSENT, ["until"]),
    ("until", "2026-03-03", ["until"]),
    ("until", "2026-03-03T00:00:00+01:00", ["until"]),
    ("until", "2026-02-30T00:00:00Z", ["until"]),
    ("until", "1066-10-14T00:00:00Z", ["until"]),
    ("until", 20260303, ["until"]),
    ("timezone", "Africa/Atlantis", ["timezone"]),
    ("timezone", "Africa", ["timezone"]),
    ("timezone", "../etc/passwd", ["timezone"]),
    ("currency", "ouguiya", ["currency"]),
    ("currency", 5, ["currency"]),
    ("holidays", "2026-03-20", ["holidays"]),
    ("holidays[0]", "20 March", ["holidays[0]"]),
    ("holidays[0]", "0001-01-01", ["holidays[0]"]),
    ("tariff", [], ["tariff"]),
    ("tariff.versions", [], ["tariff.versions"]),
    (f"{VERSION}.valid_form", "2026-01-01", [f"{VERSION}.valid_form"]),
    (f"{VERSION}.valid_from", "2026-03-02", ["account.activated_at", f"{VERSION}.valid_from"]),
    (
        "tariff.versions[+]",
        BASE["tariff"]["versions"][0],
        ["tariff.versions[1].valid_from", f"{VERSION}.valid_from"],
    ),
    (f"{VERSION}.period", "week", [f"{VERSION}.period"]),
    (f"{VERSION}.bands", [], [f"{VERSION}.bands"]),
    (f"{VERSION}.bands[0].windows", ABSENT, [f"{VERSION}.bands[0].windows"]),
    (f"{VERSION}.bands[0].windows", [], [f"{VERSION}.bands[0].windows"]),
    (f"{VERSION}.bands[1].windows", [NIGHT], [f"{VERSION}.bands[1].windows"]),
    (
        f"{VERSION}.bands[1].name",
        "night",
        [f"{VERSION}.bands[1].name", f"{VERSION}.bands[0].name"],
    ),
    (f"{VERSION}.bands[1].name", "", [f"{VERSION}.bands[1].name"]),
    (f"{VERSION}.bands[1].method", "flat", [f"{VERSION}.bands[1].method"]),
    (f"{VERSION}.bands[1].blocks", [], [f"{VERSION}.bands[1].blocks"]),
    (
        f"{VERSION}.bands[1].blocks[0].up_to_kwh",
        "5",
        [f"{VERSION}.bands[1].blocks[0].up_to_kwh"],
    ),
    (
        f"{VERSION}.bands[0].blocks[0].up_to_kwh",
        ABSENT,
        [f"{VERSION}.bands[0].blocks[0].up_to_kwh"],
    ),
    (f"{VERSION}.bands[0].blocks[0].up_to_kwh", "0", [f"{VERSION}.bands[0].blocks[0].up_to_kwh"]),
    (
        f"{VERSION}.bands[0].blocks",
        [{"up_to_kwh": "5", "price": "1"}, {"up_to_kwh": "5", "price": "1"}, {"price": "2"}],
        [
            f"{VERSION}.bands[0].blocks[1].up_to_kwh",
            f"{VERSION}.bands[0].blocks[0].up_to_kwh",
        ],
    ),
    (
        f"{VERSION}.bands[0].blocks[1].price",
        "0.999",
        [f"{VERSION}.bands[0].blocks[1].price", f"{VERSION}.bands[0].blocks[0].price"],
    ),
    (f"{VERSION}.bands[1].blocks[0].price", 3, [f"{VERSION}.bands[1].blocks[0].price"]),
    (f"{VERSION}.bands[1].blocks[0].price", "3.0001", [f"{VERSION}.bands[1].blocks[0].price"]),
    (f"{VERSION}.bands[1].blocks[0].price", "-3", [f"{VERSION}.bands[1].blocks[0].price"]),
    (f"{VERSION}.bands[0].windows[0].days", [], [f"{VERSION}.bands[0].windows[0].days"]),
    (
        f"{VERSION}.bands[0].windows[0].days[0]",
        "monday",
        [f"{VERSION}.bands[0].windows[0].days[0]"],
    ),
    (f"{VERSION}.bands[0].windows[0].from", "24:30", [f"{VERSION}.bands[0].windows[0].from"]),
    (f"{VERSION}.bands[0].windows[0].from", "6:00", [f"{VERSION}.bands[0].windows[0].from"]),
    (
        "account.non_disconnection[0].to",
        "22:00",
        ["account.non_disconnection[0].from", "account.non_disconnection[0].to"],
    ),
    (f"{VERSION}.standing_per_day", 1.2, [f"{VERSION}.standing_per_day"]),
    (f"{VERSION}.standing_per_day", "1e3", [f"{VERSION}.standing_per_day"]),
    (f"{VERSION}.taxes[0].percent", 16, [f"{VERSION}.taxes[0].percent"]),
    (f"{VERSION}.taxes[0].percent", "16.00001", [f"{VERSION}.taxes[0].percent"]),
    (f"{VERSION}.taxes[0].included", "no", [f"{VERSION}.taxes[0].included"]),
    (f"{VERSION}.taxes[0].on", [], [f"{VERSION}.taxes[0].on"]),
    (f"{VERSION}.taxes[0].on[0]", "debt", [f"{VERSION}.taxes[0].on[0]"]),
    (f"{VERSION}.taxes[0].name", "standing", [f"{VERSION}.taxes[0].name"]),
    (f"{VERSION}.taxes[+]", VAT, [f"{VERSION}.taxes[1]", f"{VERSION}.taxes[0]"]),
    ("account.reconect_at", "5.00", ["account.reconect_at"]),
    ("account.activated_at", "2026-03-01T00:00:01Z", ["account.activated_at", "meter.opened_at"]),
    ("account.debt.outstanding", "-1", ["account.debt.outstanding"]),
    (
        "account.debt.rules[+]",
        SHARE,
        ["account.debt.rules[2].kind", "account.debt.rules[0].kind"],
    ),
    ("account.debt.rules[0].kind", "weekly", ["account.debt.rules[0].kind"]),
    ("account.debt.rules[0].percent", "100.0001", ["account.debt.rules[0].percent"]),
    ("account.debt.rules[1].percent", "1", ["account.debt.rules[1].percent"]),
    ("account.debt.rules[1]", "daily", ["account.debt.rules[1]"]),
    ("account.emergency.limit", 2, ["account.emergency.limit"]),
    ("account.emergency.activation", "manual", ["account.emergency.activation"]),
    ("account.reconnect_at", None, ["account.reconnect_at"]),
    ("meter.id", 37000000017, ["meter.id"]),
    ("meter.id", "two\nlines", ["meter.id"]),
    ("meter.id", "\ud800", ["meter.id"]),
    ("meter.modulus_wh", 0, ["meter.modulus_wh"]),
    ("meter.opening_wh", "0", ["meter.opening_wh"]),
    ("meter.max_power_w", True, ["meter.max_power_w"]),
    ("meter.opening_wh", 10**15, ["meter.opening_wh"]),
    ("facts", {}, ["facts"]),
    ("facts[1]", {}, ["facts[1]"]),
    ("facts[1]", {**BASE["facts"][0], **BASE["facts"][1]}, ["facts[1]"]),
    ("facts[1].readings", {}, ["facts[1].readings"]),
    ("facts[1].reading.wh", -1, ["facts[1].reading.wh"]),
    ("facts[1].reading.wh", 1.5, ["facts[1].reading.wh"]),
    ("facts[1].reading.meter", 1, ["facts[1].reading.meter"]),
    ("facts[0].top_up.amount", 10.0, ["facts[0].top_up.amount"]),
    ("facts[0].top_up.amount", "10.0000001", ["facts[0].top_up.amount"]),
    ("facts[0].top_up.amount", "1000000000000", ["facts[0].top_up.amount"]),
    ("facts[0].top_up.id", ABSENT, ["facts[0].top_up.id"]),
    (
        "facts[+]",
        {"top_up": {"id": "p1", "time": "2026-03-01T09:00:00Z", "amount": "11"}},
        ["facts[5].top_up.id", "facts[0].top_up.id", "facts[5].top_up.amount"],
    ),
    (
        "facts[+]",
        {"reversal": {"top_up": "p1", "time": "2026-03-02T01:00:01Z"}},
        ["facts[5].reversal.time", "facts[2].reversal.time"],
    ),
    (
        "facts[2].reversal.time",
        "2026-03-01T08:59:59.999Z",
        ["facts[2].reversal.time", "facts[0].top_up.time"],
    ),
    ("facts[2].reversal.top_up", "p2", ["facts[2].reversal.top_up"]),
    (
        "facts[+]",
        {"exchange": {**EXCHANGE, "closing_wh": 1001}},
        ["facts[5].exchange.time", "facts[4].exchange.time"],
    ),
    (
        "facts[4].exchange.time",
        "2026-03-01T00:00:00Z",
        ["facts[4].exchange.time", "meter.opened_at"],
    ),
    (
        "facts[4].exchange.meter.opened_at",
        "2026-03-02T03:00:00Z",
        ["facts[4].exchange.meter.opened_at"],
    ),
    ("quotes[0].amount", 5, ["quotes[0].amount"]),
    ("quotes[0].at", "2026-03-03T00:00:00.001Z", ["quotes[0].at", "until"]),
    ("quotes[0].at", "2025-12-31T00:00:00Z", ["quotes[0].at", f"{VERSION}.valid_from"]),
    (
        f"{VERSION}.bands[1].blocks[0].price",
        "0",
        ["quotes[0].at", f"{VERSION}.bands[1].blocks[0].price"],
    ),
]


@pytest.mark.parametrize(("path", "value", "named"), CASES)
def test_bad_input_is_refused_by_path(path: str, value: Any, named: list[str]) -> None:
    with pytest.raises(CreditError) as refusal:
        run(parse_scenario(edited(path, value)))
    line = str(refusal.value)
    paths, _, advice = line.partition(": ")
    assert paths.split(", ") == named
    assert advice
    assert line.isprintable()


def test_a_scenario_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(CreditError, match="give a mapping"):
        parse_scenario(["facts"])


def test_a_key_that_would_break_the_line_is_quoted() -> None:
    with pytest.raises(CreditError) as refusal:
        parse_scenario(edited("account.two\nlines", "1"))
    assert str(refusal.value).isprintable()


def late_reversal() -> dict[str, Any]:
    return {"reversal": {"top_up": "p9", "time": "2026-03-03T00:00:00.001Z"}}


def free_first_block(scenario: dict[str, Any]) -> None:
    blocks = [{"up_to_kwh": "1", "price": "0"}, {"price": "2"}]
    scenario["tariff"]["versions"][0]["bands"][1]["blocks"] = blocks


ACCEPTED: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
    ("a fact after until is not yet a fact", lambda s: s["facts"].append(late_reversal())),
    ("the same reversal twice is one", lambda s: s["facts"].append(deepcopy(s["facts"][2]))),
    ("the same exchange twice is one", lambda s: s["facts"].append(deepcopy(s["facts"][4]))),
    ("a free block below the last", free_first_block),
]


@pytest.mark.parametrize(("name", "change"), ACCEPTED)
def test_what_is_no_bad_input(name: str, change: Callable[[dict[str, Any]], None]) -> None:
    scenario = deepcopy(BASE)
    change(scenario)
    result = run(parse_scenario(scenario))
    assert (result["readings"]["accepted"], result["readings"]["duplicate"]) == (2, 0)


def test_terms_are_read_from_the_tariff_and_account_of_a_scenario() -> None:
    keys = ("timezone", "currency", "holidays", "tariff", "account")
    terms = parse_terms({key: BASE[key] for key in keys})
    assert (terms.debt.share_ppm, terms.debt.daily_micro) == (200_000, 1_000_000)
    with pytest.raises(CreditError, match=r"^meter: unknown key"):
        parse_terms({**{key: BASE[key] for key in keys}, "meter": BASE["meter"]})


def test_a_reversal_from_before_the_position_needs_the_recorded_split() -> None:
    scenario = parse_scenario(deepcopy(BASE))
    start = genesis(scenario.terms, scenario.installation)
    anchor = advance(scenario.terms, start, scenario.facts[:2], scenario.facts[1].at_ms).position
    reversal = scenario.facts[2]
    assert isinstance(reversal, Reversal)
    with pytest.raises(CreditError) as refusal:
        advance(scenario.terms, anchor, [reversal], reversal.at_ms)
    assert refusal.value.code == "unknown_top_up"
    for split_at_ms, refused in ((reversal.at_ms + 1, True), (reversal.at_ms, False)):
        split = RecordedTopUp(split_at_ms, "payment", 8_000_000, 2_000_000)
        with_split = Reversal("p1", reversal.at_ms, split)
        if refused:
            with pytest.raises(CreditError) as too_early:
                advance(scenario.terms, anchor, [with_split], reversal.at_ms)
            assert too_early.value.code == "reversal_conflict"
        else:
            outcome = advance(scenario.terms, anchor, [with_split], reversal.at_ms)
            assert dict(outcome.postings[-1].legs) == {
                "customer": -8_000_000,
                "debt": -2_000_000,
                "clearing:payment": 10_000_000,
            }


def test_until_before_the_position_is_refused() -> None:
    scenario = parse_scenario(deepcopy(BASE))
    start = genesis(scenario.terms, scenario.installation)
    anchor = advance(scenario.terms, start, scenario.facts, scenario.until_ms).position
    with pytest.raises(CreditError) as refusal:
        advance(scenario.terms, anchor, [], anchor.at_ms - 1)
    assert refusal.value.code == "late_fact"
