"""What goes into a batch and what comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.telemetry import Decoded
from schemas.topics import Topic
from store.answers import BatchAnswer, Receipt
from store.devices import FrameCounter


@dataclass(slots=True)
class Incoming:
    """One message from the broker. `topic` is None where the topic is none of the contract's.

    `received_ms` is our clock as it arrived, where the broker is known not to have held it back:
    what the device says of its own clock may be compared with it. None: it may be old.
    `frame` is the counter of a foreign device's protected frame, kept in the same commit.
    `kept`: of a gateway's batch, {(meter, boot): seq} that is committed already (store.steady).
    """

    topic: Topic | None
    topic_text: str
    payload: bytes
    content_type: str | None
    decoded: Decoded
    frame: FrameCounter | None = None
    received_ms: int | None = None
    kept: Mapping[tuple[str, int], int] | None = None

    def said_now(self) -> bool:
        """Whether the device says something just now; a state that is taken back is no word."""
        taken_back = self.topic is not None and self.topic.kind == "state"
        return self.received_ms is not None and not (taken_back and self.decoded.online is None)

    def meters(self) -> list[str]:
        """Numbers of the meters that it is about, some more than once."""
        decoded = self.decoded
        numbers = [reading.meter for reading in decoded.readings]
        if decoded.ack is not None and decoded.ack.meter is not None:
            numbers.append(decoded.ack.meter)
        if decoded.event is not None and decoded.event.meter is not None:
            numbers.append(decoded.event.meter)
        if self.topic is not None and self.topic.side == "m":
            numbers.append(self.topic.device)
        return numbers


@dataclass(slots=True)
class Recorded:
    """What became of a batch."""

    accepted: int = 0
    duplicate: int = 0
    quarantined: int = 0
    commands: int = 0
    receipts: list[Receipt] = field(default_factory=list)
    # payment to supply reported on, of those that found it off
    reconnections_ms: list[int] = field(default_factory=list)
    answers: list[BatchAnswer] = field(default_factory=list)

    def add(self, other: "Recorded") -> None:
        """Count another commit in."""
        self.accepted += other.accepted
        self.duplicate += other.duplicate
        self.quarantined += other.quarantined
        self.commands += other.commands
        self.receipts += other.receipts
        self.answers += other.answers
        self.reconnections_ms += other.reconnections_ms
