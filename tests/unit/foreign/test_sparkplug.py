from typing import Any

import pytest

from meter_gateway.foreign import device_profile as profile
from meter_gateway.foreign.device_profile import SparkplugProfile
from meter_gateway.foreign.sparkplug import REBIRTH_PAUSE_MS, SparkplugNodes, rebirth_request
from meter_gateway.foreign.tahu import Payload
from meter_gateway.foreign.values import ForeignReading, ForeignState
from schemas.telemetry import PayloadError

NOW = 1_772_360_100_000
DOUBLE, FLOAT, UINT64, INT32 = 10, 9, 8, 3
IMPORT = "Energy/Active Import"
EXPORT = "Energy/Active Export"
NODE, METER = "N1", "N1/M1"


@pytest.fixture
def nodes() -> SparkplugNodes:
    found = profile.load("sparkplug-meters")
    assert isinstance(found, SparkplugProfile)
    return SparkplugNodes(found)


def payload(seq: int | None, *metrics: dict[str, Any], at: int = NOW) -> bytes:
    message = Payload(timestamp=at)
    if seq is not None:
        message.seq = seq
    for metric in metrics:
        message.metrics.add(**metric)
    return bytes(message.SerializeToString())


def bd_seq(value: int) -> dict[str, Any]:
    return {"name": "bdSeq", "datatype": UINT64, "long_value": value}


def birth(kwh: float, alias: int = 7) -> dict[str, Any]:
    return {"name": IMPORT, "alias": alias, "datatype": DOUBLE, "double_value": kwh}


def say(nodes: SparkplugNodes, kind: str, *body: Any, now: int = NOW, **more: Any) -> Any:
    device = "/M1" if kind.startswith("D") else ""
    return nodes.read(f"spBv1.0/meters/{kind}/{NODE}{device}", payload(*body, **more), now)


def born(nodes: SparkplugNodes, bd: int = 0) -> None:
    say(nodes, "NBIRTH", 0, bd_seq(bd))
    say(nodes, "DBIRTH", 1, birth(10.0))


def test_a_birth_names_and_data_refer_by_alias(nodes: SparkplugNodes) -> None:
    assert say(nodes, "NBIRTH", 0, bd_seq(0)).states == [ForeignState(NODE, online=True)]
    first = say(nodes, "DBIRTH", 1, birth(1234.567))
    assert first.readings == [ForeignReading(METER, {"1.8.0": 1234567}, NOW)]
    assert first.states == [ForeignState(METER, online=True)]
    later = say(nodes, "DDATA", 2, {"alias": 7, "double_value": 1235.001}, at=NOW + 1000)
    assert later.readings == [ForeignReading(METER, {"1.8.0": 1235001}, NOW + 1000)]
    assert (later.rebirth, later.refused) == (None, [])


def test_metrics_of_other_names_are_left_alone(nodes: SparkplugNodes) -> None:
    born(nodes)
    other = {"name": "Voltage/L1", "datatype": DOUBLE, "double_value": 230.1}
    said = say(nodes, "DDATA", 2, other, {"alias": 99, "double_value": 1.0})
    assert (said.readings, said.refused, said.rebirth) == ([], [], None)


def test_a_metric_has_its_own_time_and_may_be_historical(nodes: SparkplugNodes) -> None:
    born(nodes)
    said = say(
        nodes,
        "DDATA",
        2,
        {"alias": 7, "timestamp": NOW - 5000, "is_historical": True, "double_value": 10.5},
        {"alias": 7, "timestamp": NOW, "double_value": 11.0},
    )
    assert said.readings == [
        ForeignReading(METER, {"1.8.0": 10500}, NOW - 5000, historical=True),
        ForeignReading(METER, {"1.8.0": 11000}, NOW),
    ]


def test_seq_runs_from_0_to_255_and_on(nodes: SparkplugNodes) -> None:
    born(nodes)
    for number in range(2, 600):
        said = say(nodes, "DDATA", number % 256, {"alias": 7, "double_value": 11.0})
        assert (len(said.readings), said.rebirth) == (1, None)


def test_after_a_loss_nothing_is_read_by_alias_until_the_node_is_born_again(
    nodes: SparkplugNodes,
) -> None:
    born(nodes)
    lost = say(nodes, "DDATA", 3, {"alias": 7, "double_value": 11.0})
    assert lost.rebirth == "spBv1.0/meters/NCMD/N1"
    assert [each.reason for each in lost.refused] == ["no_birth"]
    assert lost.readings == []
    # A name says what it is, whatever was lost.
    named = say(nodes, "DDATA", 4, {"name": IMPORT, "double_value": 11.0})
    assert named.readings == [ForeignReading(METER, {"1.8.0": 11000}, NOW)]
    born(nodes, 1)
    again = say(nodes, "DDATA", 2, {"alias": 7, "double_value": 12.0})
    assert again.readings == [ForeignReading(METER, {"1.8.0": 12000}, NOW)]


def test_a_node_is_asked_once_in_a_while(nodes: SparkplugNodes) -> None:
    data = (5, {"alias": 7, "double_value": 1.0})
    assert say(nodes, "DDATA", *data).rebirth is not None
    assert say(nodes, "DDATA", *data, now=NOW + 1).rebirth is None
    assert say(nodes, "DDATA", *data, now=NOW + REBIRTH_PAUSE_MS).rebirth is not None


def test_an_alias_of_another_device_is_none_of_this_one(nodes: SparkplugNodes) -> None:
    born(nodes)
    topic = "spBv1.0/meters/DDATA/N1/M2"
    said = nodes.read(topic, payload(2, {"alias": 7, "double_value": 99.0}), NOW)
    assert said.readings == []


def test_the_death_of_this_connection_ends_node_and_devices(nodes: SparkplugNodes) -> None:
    born(nodes, 4)
    late = say(nodes, "NDEATH", None, bd_seq(3))
    assert late.states == []
    ended = say(nodes, "NDEATH", None, bd_seq(4))
    assert {(each.device, each.online) for each in ended.states} == {(NODE, False), (METER, False)}
    after = say(nodes, "DDATA", 2, {"alias": 7, "double_value": 1.0})
    assert (after.readings, after.rebirth is not None) == ([], True)


def test_the_death_of_a_device_leaves_its_node(nodes: SparkplugNodes) -> None:
    born(nodes)
    assert say(nodes, "DDEATH", 2).states == [ForeignState(METER, online=False)]
    assert say(nodes, "NDATA", 3).rebirth is None


@pytest.mark.parametrize(
    ("metric", "wh"),
    [
        ({"datatype": UINT64, "long_value": 2**40}, 2**40 * 1000),
        ({"datatype": INT32, "int_value": 2**32 - 1}, -1000),
        ({"datatype": FLOAT, "float_value": 1234.567}, 1234567),
    ],
)
def test_a_metric_is_exact_in_its_data_type(
    nodes: SparkplugNodes, metric: dict[str, Any], wh: int
) -> None:
    say(nodes, "NBIRTH", 0, bd_seq(0))
    said = say(nodes, "DBIRTH", 1, {"name": IMPORT, **metric})
    assert said.readings == [ForeignReading(METER, {"1.8.0": wh}, NOW)]


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ({"datatype": DOUBLE, "double_value": float("nan")}, "wrong_type"),
        ({"datatype": DOUBLE, "double_value": float("inf")}, "wrong_type"),
        ({"datatype": FLOAT, "float_value": float("nan")}, "wrong_type"),
        ({"datatype": 12, "string_value": "10"}, "wrong_type"),
        ({"datatype": DOUBLE}, "wrong_type"),
    ],
)
def test_one_bad_metric_leaves_the_others(
    nodes: SparkplugNodes, metric: dict[str, Any], reason: str
) -> None:
    say(nodes, "NBIRTH", 0, bd_seq(0))
    good = {"name": EXPORT, "datatype": DOUBLE, "double_value": 1.0}
    said = say(nodes, "DBIRTH", 1, {"name": IMPORT, **metric}, good)
    assert said.readings == [ForeignReading(METER, {"2.8.0": 1000}, NOW)]
    assert [each.reason for each in said.refused] == [reason]


def test_a_null_is_no_value(nodes: SparkplugNodes) -> None:
    say(nodes, "NBIRTH", 0, bd_seq(0))
    said = say(nodes, "DBIRTH", 1, {"name": IMPORT, "datatype": DOUBLE, "is_null": True})
    assert (said.readings, said.refused) == ([], [])


def test_a_metric_without_any_time_is_refused(nodes: SparkplugNodes) -> None:
    say(nodes, "NBIRTH", 0, bd_seq(0))
    said = say(nodes, "DBIRTH", 1, birth(1.0), at=0)
    assert [each.reason for each in said.refused] == ["bad_instant"]


@pytest.mark.parametrize(
    ("topic", "body", "reason"),
    [
        ("spBv1.0/meters/NDATA/N1", b"\xff\xff", "undecodable"),
        ("spBv1.0/meters/NBIRTH/N1", payload(9, bd_seq(0)), "wrong_type"),
        ("spBv1.0/meters/NCMD/N1", payload(0), "wrong_type"),
        ("spBv1.0/others/NDATA/N1", payload(0), "wrong_type"),
        ("spBv1.0/meters/NDATA/N1/M1", payload(0), "wrong_type"),
    ],
)
def test_what_is_no_message_of_the_group_is_refused(
    nodes: SparkplugNodes, topic: str, body: bytes, reason: str
) -> None:
    with pytest.raises(PayloadError) as refused:
        nodes.read(topic, body, NOW)
    assert refused.value.code == reason


def test_a_rebirth_request_is_a_metric_that_every_node_knows() -> None:
    message = Payload.FromString(rebirth_request(NOW))
    [metric] = message.metrics
    assert (metric.name, metric.datatype) == ("Node Control/Rebirth", 11)
    assert (metric.boolean_value, metric.timestamp, message.timestamp) == (True, NOW, NOW)
