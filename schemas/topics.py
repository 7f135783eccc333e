"""The topic tree of the MQTT contract, clause 1: `build` and `parse` are inverses."""

import re
from typing import Literal, NamedTuple

from schemas.errors import DomainError
from schemas.identity import is_gateway_name, is_meter_number

Side = Literal["m", "g"]
Direction = Literal["up", "dn"]
Kind = Literal[
    "reading", "batch", "event", "ack", "hello", "state", "time", "cmd", "cfg", "receipt"
]

KINDS: dict[tuple[Side, Direction], tuple[Kind, ...]] = {
    ("m", "up"): ("reading", "event", "ack", "hello", "state", "time"),
    ("m", "dn"): ("cmd", "cfg", "receipt", "time"),
    ("g", "up"): ("batch", "event", "ack", "hello", "state"),
    ("g", "dn"): ("cmd", "cfg", "receipt", "time"),
}
# Retained: the broker keeps the last one. Commands are never retained.
RETAINED: frozenset[tuple[Direction, Kind]] = frozenset({("up", "state"), ("dn", "cfg")})
# Everything is QoS 1 except the time exchange, where an old answer is worse than none.
QOS_0: frozenset[Kind] = frozenset({"time"})

UP_FILTER = "pm/v1/+/+/up/#"

_BY_NAME: dict[tuple[str, str, str], tuple[Side, Direction, Kind]] = {
    (side, direction, kind): (side, direction, kind)
    for (side, direction), kinds in KINDS.items()
    for kind in kinds
}


class Topic(NamedTuple):
    """One topic: `side` m (meter) or g (gateway), `device` its number or name, and what it says."""

    side: Side
    device: str
    direction: Direction
    kind: Kind


def build(topic: Topic) -> str:
    """The topic's text. Raises DomainError `bad_topic` for what the tree does not hold."""
    text = f"pm/v1/{topic.side}/{topic.device}/{topic.direction}/{topic.kind}"
    parse(text)
    return text


def parse(text: str) -> Topic:
    """The parts of a topic. Raises DomainError `bad_topic`."""
    if text.startswith("pm/v1/m/") and text.endswith("/up/reading"):
        device = text[8:-11]
        if is_meter_number(device):
            return Topic._make(("m", device, "up", "reading"))
    parts = text.split("/")
    if len(parts) == 6 and parts[0] == "pm" and parts[1] == "v1":
        found = _BY_NAME.get((parts[2], parts[4], parts[5]))
        if found is not None:
            side, direction, kind = found
            device = parts[3]
            if (is_meter_number if side == "m" else is_gateway_name)(device):
                return Topic(side, device, direction, kind)
    raise DomainError(
        "bad_topic", f"Publish to a topic of the contract's clause 1, not to {text!r:.80}."
    )


def shared_up_filter(group: str) -> str:
    """What ingest workers subscribe to: the messages of all devices, each to one of the group."""
    return f"$share/{group}/{UP_FILTER}"


def downlink_filter(side: Side, device: str) -> str:
    """What one device subscribes to: everything that is said to it and nothing else."""
    return f"pm/v1/{side}/{device}/dn/+"


# Enrolment stands outside the tree of devices: ingest never sees a request, and a claim certificate
# has no right in the tree.
ENROLMENT_FILTER = "pm/v1/e/+/csr"
CLAIM_NAME = r"^claim\.[A-Za-z0-9_-]{1,40}$"
is_claim_name = re.compile(CLAIM_NAME[1:-1]).fullmatch


def enrolment_topics(claim: str) -> tuple[str, str]:
    """Where a claim's requests and their answers go. Raises DomainError `bad_topic`."""
    if not is_claim_name(claim):
        raise DomainError("bad_topic", "Name a claim as claim.NAME.")
    return f"pm/v1/e/{claim}/csr", f"pm/v1/e/{claim}/cert"


def claim_of(topic: str) -> str:
    """The claim whose request this is. Raises DomainError `bad_topic`."""
    parts = topic.split("/")
    if len(parts) == 5 and enrolment_topics(parts[3])[0] == topic:
        return parts[3]
    raise DomainError("bad_topic", f"Ask on pm/v1/e/CLAIM/csr, not on {topic!r:.80}.")
