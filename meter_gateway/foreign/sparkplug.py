"""Sparkplug B: births name metrics and give them aliases, data refers to them, a death ends them.

State per edge node, kept in memory only: a restart, a lost message (`seq`) or data before a birth
asks the node for a rebirth, and until that comes nothing is read by alias, since an alias may mean
another metric by then. A birth carries every total anew, so that no energy is lost meanwhile.

- Births: NBIRTH `seq` 0 begins a node and forgets what it said before; DBIRTH adds a device.
- Deaths: NDEATH is the will of the connection whose NBIRTH had the same `bdSeq`; another is late.
- `is_historical`: a reading from the node's buffer, never "current".
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from google.protobuf.message import DecodeError

from meter_gateway.foreign.device_profile import SparkplugProfile
from meter_gateway.foreign.tahu import BOOLEAN, SIGNED_BITS, Payload
from meter_gateway.foreign.values import (
    ForeignReading,
    ForeignState,
    decimal_of_double,
    decimal_of_single,
    whole_wh,
)
from schemas.telemetry import PayloadError, Refused

SEQ_MODULUS = 256
# Nodes that are followed; a node beyond displaces the one born first, which is then born again.
NODES_MAX = 10_000
# A node that was asked is given this long before it is asked again.
REBIRTH_PAUSE_MS = 10_000
REBIRTH = "Node Control/Rebirth"


@dataclass(slots=True)
class SparkplugOutcome:
    """What one message gave. `rebirth` is the topic to ask on, with `rebirth_request()`."""

    readings: list[ForeignReading] = field(default_factory=list)
    states: list[ForeignState] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    rebirth: str | None = None


@dataclass(slots=True)
class _Node:
    bd_seq: int | None
    seq: int
    # alias -> (device, register, data type)
    aliases: dict[int, tuple[str, str, int]] = field(default_factory=dict)
    # (device, metric name) -> data type, which data need not repeat
    types: dict[tuple[str, str], int] = field(default_factory=dict)
    devices: set[str] = field(default_factory=set)


class SparkplugNodes:
    """The edge nodes of one profile. Not for two threads."""

    def __init__(self, profile: SparkplugProfile) -> None:
        self._profile = profile
        self._registers = {metric.name: name for name, metric in profile.registers.items()}
        self._nodes: dict[str, _Node] = {}
        self._asked_ms: dict[str, int] = {}

    def read(self, topic: str, payload: bytes, now_ms: int) -> SparkplugOutcome:
        """What one message says. Errors: PayloadError (`wrong_type`, `undecodable`)."""
        kind, node, device = self._parts(topic)
        message = Payload()
        try:
            message.ParseFromString(payload)
        except DecodeError:
            raise PayloadError("undecodable", "Send a Sparkplug B payload.") from None
        outcome = SparkplugOutcome()
        if kind == "NDEATH":
            self._end_node(node, _bd_seq(message), outcome)
            return outcome
        if kind == "NBIRTH":
            self._begin_node(node, message)
        elif not self._follows(node, message):
            self._ask(node, now_ms, outcome)
        if kind == "DDEATH":
            known = self._nodes.get(node)
            if known is not None:
                known.devices.discard(device)
            outcome.states.append(ForeignState(device, online=False))
            return outcome
        if kind in {"NBIRTH", "DBIRTH"}:
            self._learn(node, device, message)
            outcome.states.append(ForeignState(device, online=True))
        self._take(node, device, message, outcome)
        if any(each.reason == "no_birth" for each in outcome.refused):
            self._ask(node, now_ms, outcome)
        return outcome

    # --- who speaks ---------------------------------------------------------------------------

    def _parts(self, topic: str) -> tuple[str, str, str]:
        """(kind, node, the device's name in the registry)."""
        levels = topic.split("/")
        if len(levels) in {4, 5} and levels[:2] == ["spBv1.0", self._profile.group]:
            kind, node = levels[2], levels[3]
            if len(levels) == 4 and kind in {"NBIRTH", "NDATA", "NDEATH"}:
                return kind, node, node
            if len(levels) == 5 and kind in {"DBIRTH", "DDATA", "DDEATH"}:
                return kind, node, f"{node}/{levels[4]}"
        raise PayloadError("wrong_type", "This is no topic of the profile's Sparkplug group.")

    def _begin_node(self, node: str, message: Any) -> None:
        if message.seq != 0:
            raise PayloadError("wrong_type", "An NBIRTH has seq 0.")
        self._nodes.pop(node, None)
        while len(self._nodes) >= NODES_MAX:
            first = next(iter(self._nodes))
            del self._nodes[first]
            self._asked_ms.pop(first, None)
        self._nodes[node] = _Node(_bd_seq(message), 0, devices={node})
        self._asked_ms.pop(node, None)

    def _follows(self, node: str, message: Any) -> bool:
        """Whether nothing was lost before this message; else the node is forgotten."""
        known = self._nodes.get(node)
        if known is None:
            return False
        if not message.HasField("seq") or message.seq != (known.seq + 1) % SEQ_MODULUS:
            del self._nodes[node]
            return False
        known.seq = message.seq
        return True

    def _end_node(self, node: str, bd_seq: int | None, outcome: SparkplugOutcome) -> None:
        known = self._nodes.get(node)
        if known is None:
            outcome.states.append(ForeignState(node, online=False))
            return
        if known.bd_seq is not None and bd_seq != known.bd_seq:
            return  # the will of a connection before this one
        del self._nodes[node]
        outcome.states.extend(ForeignState(device, online=False) for device in known.devices)

    def _ask(self, node: str, now_ms: int, outcome: SparkplugOutcome) -> None:
        asked_ms = self._asked_ms.get(node)
        if asked_ms is not None and now_ms - asked_ms < REBIRTH_PAUSE_MS:
            return
        if len(self._asked_ms) >= NODES_MAX:
            self._asked_ms.clear()
        self._asked_ms[node] = now_ms
        outcome.rebirth = f"spBv1.0/{self._profile.group}/NCMD/{node}"

    # --- what is said -------------------------------------------------------------------------

    def _learn(self, node: str, device: str, message: Any) -> None:
        """Names, aliases and data types of the profile's metrics; others are not kept."""
        known = self._nodes.get(node)
        if known is None:
            return
        known.devices.add(device)
        for metric in message.metrics:
            register = self._registers.get(metric.name)
            if register is not None:
                known.types[device, metric.name] = metric.datatype
                if metric.HasField("alias"):
                    known.aliases[metric.alias] = (device, register, metric.datatype)

    def _take(self, node: str, device: str, message: Any, outcome: SparkplugOutcome) -> None:
        known = self._nodes.get(node)
        grouped: dict[tuple[int, bool], dict[str, int]] = {}
        for metric in message.metrics:
            if metric.HasField("name") and metric.name:
                register = self._registers.get(metric.name)
                types = {} if known is None else known.types
                datatype = metric.datatype or types.get((device, metric.name), 0)
            elif known is None:
                _refuse(outcome, "no_birth", "An alias without a birth; a rebirth is asked for.")
                continue
            else:
                of, register, datatype = known.aliases.get(metric.alias, ("", None, 0))
                register = register if of == device else None
            if register is None or metric.is_null:
                continue
            at_ms = metric.timestamp or message.timestamp
            if not at_ms:
                _refuse(outcome, "bad_instant", "A metric without a timestamp.")
                continue
            try:
                factor = self._profile.registers[register].factor
                whole = whole_wh(_number(metric, datatype), factor)
            except PayloadError as error:
                _refuse(outcome, error.reason, f"{register}: {error}")
                continue
            grouped.setdefault((at_ms, metric.is_historical), {})[register] = whole
        outcome.readings.extend(
            ForeignReading(device, registers, at_ms, historical=historical)
            for (at_ms, historical), registers in sorted(grouped.items())
        )


def rebirth_request(now_ms: int) -> bytes:
    """The NCMD payload that asks an edge node for its births (Sparkplug 3.0, 6.4.21)."""
    request = Payload(timestamp=now_ms)
    request.metrics.add(name=REBIRTH, timestamp=now_ms, datatype=BOOLEAN, boolean_value=True)
    serialized: bytes = request.SerializeToString()
    return serialized


def _refuse(outcome: SparkplugOutcome, reason: Any, detail: str) -> None:
    """One refusal per reason: the answer never outgrows the message."""
    if all(each.reason != reason for each in outcome.refused):
        outcome.refused.append(Refused(reason, detail, None, b""))


def _bd_seq(message: Any) -> int | None:
    for metric in message.metrics:
        if metric.name == "bdSeq":
            return int(_number(metric, metric.datatype))
    return None


def _number(metric: Any, datatype: int) -> Decimal:
    """The metric's value, exact. Errors: PayloadError `wrong_type`."""
    which = metric.WhichOneof("value")
    if which in {"int_value", "long_value"}:
        value = int(getattr(metric, which))
        bits = SIGNED_BITS.get(datatype)
        if bits is not None:
            value &= (1 << bits) - 1
            value -= (value >> (bits - 1)) << bits
        return Decimal(value)
    if which == "float_value":
        return decimal_of_single(metric.float_value)
    if which == "double_value":
        return decimal_of_double(metric.double_value)
    raise PayloadError("wrong_type", "The metric holds no number.")
