"""Each profile that comes with us, on payloads as devices send them; sources in the profiles."""

from datetime import datetime
from typing import Any

import pytest

from meter_gateway.foreign import device_profile as profile
from meter_gateway.foreign import json_messages
from meter_gateway.foreign.device_profile import JsonProfile
from meter_gateway.foreign.values import ForeignReading, ForeignState
from schemas.errors import DomainError
from schemas.telemetry import PayloadError

TASMOTA = (
    b'{"Time":"2022-01-11T21:57:38","ENERGY":{"TotalStartTime":"2020-10-21T22:15:00",'
    b'"Total":3.705,"Yesterday":0.028,"Today":0.026,"Period":1,"Power":5,"ApparentPower":5,'
    b'"ReactivePower":0,"Factor":1.00,"Voltage":233,"Current":0.021}}'
)
SHELLY_EVENT = (
    b'{"src":"shellypro3em-0cb815fc53dc","dst":"shellypro3em-0cb815fc53dc/events",'
    b'"method":"NotifyStatus","params":{"ts":1678699440.94,"emdata:0":{"id":0,'
    b'"a_total_act_energy":5631.61,"a_total_act_ret_energy":0.00,"b_total_act_energy":5934.31,'
    b'"b_total_act_ret_energy":0.00,"c_total_act_energy":8703.38,"c_total_act_ret_energy":0.00,'
    b'"total_act":20269.29,"total_act_ret":0.00}}}'
)
SHELLY_POWER = (
    b'{"src":"shellypro3em-0cb815fc53dc","method":"NotifyStatus","params":{"ts":1678699437.95,'
    b'"em:0":{"id":0,"a_act_power":2407.9,"n_current":null,"total_act_power":3039.524}}}'
)
SHELLY_STATUS = (
    b'{"id":0,"a_total_act_energy":5631.61,"a_total_act_ret_energy":0.00,"total_act":20269.29,'
    b'"total_act_ret":0.00}'
)
NAME = "shellypro3em-0cb815fc53dc"

# profile, topic, payload, what it says
SAID: list[tuple[str, str, bytes, Any]] = [
    (
        "tasmota-energy",
        "tele/plug-1/SENSOR",
        TASMOTA,
        ForeignReading(
            "plug-1",
            {"1.8.0": 3705},
            local=datetime(2022, 1, 11, 21, 57, 38),
            instantaneous={"P": "5", "V": "233", "I": "0.021"},
        ),
    ),
    (
        "tasmota-energy",
        "tele/plug-1/SENSOR",
        b'{"Time":"2022-01-11T21:57:38","Switch1":"ON"}',
        None,
    ),
    ("tasmota-energy", "tele/plug-1/LWT", b"Online", ForeignState("plug-1", online=True)),
    ("tasmota-energy", "tele/plug-1/LWT", b"Offline", ForeignState("plug-1", online=False)),
    (
        "shelly-em-gen2",
        f"{NAME}/events/rpc",
        SHELLY_EVENT,
        ForeignReading(NAME, {"1.8.0": 20269, "2.8.0": 0}, 1678699440940),
    ),
    ("shelly-em-gen2", f"{NAME}/events/rpc", SHELLY_POWER, None),
    (
        "shelly-em-gen2",
        f"{NAME}/status/emdata:0",
        SHELLY_STATUS,
        ForeignReading(NAME, {"1.8.0": 20269, "2.8.0": 0}),
    ),
    ("shelly-em-gen2", f"{NAME}/online", b"true", ForeignState(NAME, online=True)),
    ("shelly-em-gen2", f"{NAME}/online", b"false", ForeignState(NAME, online=False)),
]


def read(name: str, topic: str, payload: bytes) -> object:
    found = profile.load(name)
    assert isinstance(found, JsonProfile)
    for message in found.messages:
        device = message.device(topic)
        if device is not None:
            return json_messages.read(message, device, payload)
    raise AssertionError(topic)


@pytest.mark.parametrize(("name", "topic", "payload", "said"), SAID)
def test_a_profile_reads_what_its_devices_send(
    name: str, topic: str, payload: bytes, said: object
) -> None:
    assert read(name, topic, payload) == said


def test_an_offset_in_a_local_clock_is_taken_as_it_says() -> None:
    payload = TASMOTA.replace(b"21:57:38", b"21:57:38+01:00")
    said = read("tasmota-energy", "tele/plug-1/SENSOR", payload)
    assert isinstance(said, ForeignReading)
    assert (said.at_ms, said.local) == (1641934658000, None)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"rubbish", "undecodable"),
        (b"[" * 50_000, "undecodable"),
        (b'{"Time":"2022-01-11T21:57:38","ENERGY":{"Total":NaN}}', "undecodable"),
        (b'{"Time":"2022-01-11T21:57:38","ENERGY":{"Total":1e999999999}}', "wrong_type"),
        (b'{"Time":"2022-01-11T21:57:38","ENERGY":{"Total":"much"}}', "wrong_type"),
        (b'{"Time":"2022-01-11T21:57:38","ENERGY":{"Total":true}}', "wrong_type"),
        # A plug of two channels: its totals are two, and no profile of one channel reads them.
        (b'{"Time":"2022-01-11T21:57:38","ENERGY":{"Total":[0.000,2.910]}}', "wrong_type"),
        (b'{"Time":"yesterday","ENERGY":{"Total":3.705}}', "bad_instant"),
        (b'{"Time":1641934658,"ENERGY":{"Total":3.705}}', "bad_instant"),
        (b'{"ENERGY":{"Total":3.705}}', "bad_instant"),
        (b'{"ENERGY":{}}', "wrong_type"),
    ],
)
def test_a_payload_that_is_not_of_the_profile_is_refused(payload: bytes, reason: str) -> None:
    with pytest.raises(PayloadError) as refused:
        read("tasmota-energy", "tele/plug-1/SENSOR", payload)
    assert refused.value.code == reason


def test_a_state_in_other_words_is_refused() -> None:
    with pytest.raises(PayloadError):
        read("tasmota-energy", "tele/plug-1/LWT", b"ONLINE")


@pytest.mark.parametrize("name", profile.names())
def test_the_profiles_that_come_with_us_are_sound(name: str) -> None:
    found = profile.load(name)
    assert found.profile == name
    assert found.sources
    assert all(each.strip("+") for each in found.filters)


def test_a_total_that_can_be_set_back_is_not_trusted() -> None:
    trusted = {name for name in profile.names() if profile.load(name).trusted}
    assert trusted == {"dlms-push", "sparkplug-meters"}


GOOD = """
profile: mine
model: Mine
sources: [a manual]
trusted: true
format: json
messages:
  - topic: meters/{device}/energy
    clock: {path: [t], written: unix_s}
    registers: {"1.8.0": {path: [e, 0], unit: kWh}}
"""


def test_a_profile_of_ones_own_reads_lists_and_numbers_written_as_text() -> None:
    mine = profile.parse(GOOD, "mine.yaml")
    assert isinstance(mine, JsonProfile)
    [message] = mine.messages
    said = json_messages.read(message, "x", b'{"t": 1700000000, "e": ["12.3456", 9]}')
    assert said == ForeignReading("x", {"1.8.0": 12345}, 1700000000000)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kWh", "kW"),
        ('"1.8.0"', '"total"'),
        ("{device}/energy", "energy"),
        ("{device}/energy", "{device}/#"),
        ("{device}/energy", "{device}/{room}"),
        ("clock: {path: [t], written: unix_s}", "clock: {path: [t], written: local_s}"),
        ("    clock: {path: [t], written: unix_s}\n", ""),
        ("trusted: true", "trusted: perhaps"),
        ("trusted: true", "trusted: true\nscale: 10"),
        ("sources: [a manual]", "sources: []"),
        ("format: json", "format: xml"),
        ("[e, 0]", "&e [e, 0]\n    twice: *e"),
        ("model: Mine", "model: [Mine"),
        ("profile: mine", "profile: ../mine"),
    ],
)
def test_a_mistake_in_a_profile_is_found_when_it_is_loaded(old: str, new: str) -> None:
    assert old in GOOD
    with pytest.raises(DomainError) as refused:
        profile.parse(GOOD.replace(old, new), "mine.yaml")
    assert refused.value.code == "bad_profile"
    assert "mine.yaml" in str(refused.value)


def test_a_profile_may_be_a_file_of_ones_own(tmp_path: Any) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD)
    assert profile.load(str(tmp_path / "mine.yaml")).profile == "mine"


@pytest.mark.parametrize("name", ["nothing-of-the-kind", "../profile", "missing.yaml"])
def test_a_profile_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(DomainError) as refused:
        profile.load(name)
    assert refused.value.code == "unknown_profile"
