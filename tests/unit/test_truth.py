"""The auditor of scenarios: silent when all is as it must be, and never silent otherwise."""

from collections import Counter
from dataclasses import replace

import pytest

from simulators.auditor import SimpleTariff
from simulators.device import Device
from simulators.fleet import Broker
from simulators.load import SteadyLoad
from simulators.meter import Meter, Nameplate
from simulators.meter_state import MeterState
from simulators.truth import Found, Installed, Truth, told

NUMBER = "37000000017"
TOKEN = "1" * 20
HOUR = 3_600_000
NOON = 1_769_860_800_000  # 2026-01-31T12:00:00Z


def device() -> Device:
    meter = Meter(Nameplate(NUMBER, 1000, HOUR, 0), SteadyLoad(600, NOON), MeterState())
    made = Device(meter, Broker("127.0.0.1"), lambda: NOON)
    made.truth.update({NOON + HOUR: 1600, NOON + 2 * HOUR: 2200, NOON + 3 * HOUR: 2800})
    # The last one never came out of the meter.
    made.arrived.update({NOON + HOUR: 1600, NOON + 2 * HOUR: 2200})
    made.spoke = True
    made.answers["c-1"] = "done"
    made.tokens.results[TOKEN] = ["Accept", "UsedError"]
    return made


def truth() -> Truth:
    paid = {NOON: 1_000_000}
    installed = [Installed(device(), NOON, 1000)]
    return Truth(SimpleTariff([(None, 100)]), installed, paid, refused=Counter(conflict=1))


FOUND = Found(
    readings={
        (NUMBER, NOON + HOUR): (1600, "accepted"),
        (NUMBER, NOON + 2 * HOUR): (2200, "accepted"),
    },
    refused={"conflict": 1},
    energy_wh=1200,
    entries_micro=880_000,
    balance_micro=880_000,
    relays={NUMBER: "closed"},
    tokens={TOKEN: "Accept"},
    commands={"c-1": ("relay", "done")},
)


def test_nothing_is_said_when_all_is_true() -> None:
    assert truth().differences(FOUND, NOON + 3 * HOUR) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"readings": {}}, "reading"),
        ({"readings": {**FOUND.readings, (NUMBER, NOON + 5): (1001, "accepted")}}, "reading"),
        ({"readings": {**FOUND.readings, (NUMBER, NOON + HOUR): (1601, "accepted")}}, "reading"),
        ({"readings": {**FOUND.readings, (NUMBER, NOON + HOUR): (1600, "conflict")}}, "reading"),
        ({"refused": {}}, "refused as conflict"),
        ({"refused": {"conflict": 2}}, "refused as conflict"),
        ({"refused": {"conflict": 1, "future": 1}}, "refused as future"),
        ({"energy_wh": 1800}, "energy billed"),
        ({"balance_micro": 880_001}, "balance"),
        ({"entries_micro": 879_999}, "entries"),
        ({"relays": {NUMBER: "open"}}, "relay"),
        ({"relays": {}}, "relay"),
        ({"tokens": {TOKEN: "OldError"}}, "a token"),
        ({"tokens": {TOKEN: None}}, "a token"),
        ({"tokens": {}}, "a token"),
        ({"commands": {"c-1": ("relay", "sent")}}, "command c-1"),
        ({"commands": {}}, "command c-1"),
    ],
)
def test_each_thing_that_is_not_true_is_said(wrong: dict[str, object], says: str) -> None:
    said = truth().differences(replace(FOUND, **wrong), NOON + 3 * HOUR)  # type: ignore[arg-type]
    assert said
    assert all(line.startswith(says) for line in said)


def test_what_a_scenario_expects_otherwise_is_true() -> None:
    expected = truth()
    expected.unbilled[NUMBER, NOON + 2 * HOUR] = "register_decreased"
    expected.overtaken["c-1"] = "unknown"
    found = replace(
        FOUND,
        readings={
            **FOUND.readings,
            (NUMBER, NOON + 2 * HOUR): (2200, "register_decreased"),
        },
        energy_wh=600,
        entries_micro=940_000,
        balance_micro=940_000,
        commands={"c-1": ("relay", "unknown")},
    )
    assert expected.differences(found, NOON + 3 * HOUR) == []


def test_an_exchanged_meter_counts_up_to_its_closing_value() -> None:
    old, new = device(), device()
    new.number = "37000000025"
    installed = [
        Installed(old, NOON, 1000, NOON + HOUR + 5, 1650),
        Installed(new, NOON + HOUR + 5, 500),
    ]
    curve = Truth(SimpleTariff([(None, 1)]), installed).curve()
    assert curve == [(NOON + HOUR, 600), (NOON + HOUR + 5, 650), (NOON + 2 * HOUR, 650 + 1700)]


def test_many_differences_are_told_in_one_line() -> None:
    assert told([str(i) for i in range(9)], 2) == "0; 1; and 7 more"
    assert told(["a"]) == "a"
