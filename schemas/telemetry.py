"""What devices say, as values: readings, reports, and refusals with stable reasons.

`schemas.decoding.decode_up` makes these from the bytes of one `up` message.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from schemas.errors import DomainError
from schemas.wire import AckState, Relay, TimeQuality, TokenOutcome

Reason = Literal[
    "undecodable",
    "unknown_version",
    "wrong_type",
    "too_large",
    "bad_instant",
    "clock_1970",
    "future",
    "negative_register",
    "sentinel_register",
    "unsafe_integer",
    "unknown_register",
    # of foreign devices (clause 4)
    "unknown_device",
    "no_birth",
    "not_authentic",
    "replayed",
    "no_time",
]


class PayloadError(DomainError):
    """Bytes from a device that the MQTT contract refuses; `code` is one of `Reason`."""

    def __init__(self, code: Reason, message: str) -> None:
        super().__init__(code, message)
        self.reason: Reason = code


class DecodedReading(NamedTuple):
    """One register of one meter at one instant; several share (boot, seq).

    `rest` holds what the message said beyond these fields (`inst`, `credit`, keys unknown here), as
    the bytes of a JSON object.
    """

    meter: str
    register: str
    ts_ms: int
    value_wh: int
    boot: int
    seq: int
    tq: TimeQuality
    hist: bool
    rcpt: bool
    relay: Relay | None
    rest: bytes | None = None


class Refused(NamedTuple):
    """What was not taken: why, and from which row (None: the whole message).

    `raw` is the message as received (cut at the limit), or the row alone as JSON.
    `meter` is set where the refused row names one, `boot` and `seq` (of a batch's row: the last)
    where they could be read: up to there the sender may forget the row, for it is kept here.
    """

    reason: Reason
    detail: str
    row_index: int | None
    raw: bytes
    meter: str | None = None
    boot: int | None = None
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Ack:
    """A meter's word on a command; `meter` is the sender or, behind a gateway, the one named.

    `tokens` has the outcome of each token of the command, in their order; `last_token` is set where
    the meter told that of the last one entered and no more.
    `beside`: what it said beyond these fields, and its instant as written, fit for a database.
    """

    meter: str | None
    cmd: str
    state: AckState
    ts_ms: int
    relay: Relay | None
    reg: Mapping[str, int]
    tokens: tuple[TokenOutcome, ...]
    why: str | None
    last_token: TokenOutcome | None = None
    beside: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hello:
    """Birth of a connection; what it does not state is None or empty."""

    boot: int
    ts_ms: int
    seq: int | None
    tq: TimeQuality
    model: str | None
    firmware: str | None
    relay: Relay | None
    reg: Mapping[str, int]
    ctr: int | None
    buffered: int | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened at the meter; `meter` as for Ack."""

    meter: str | None
    type: str
    ts_ms: int
    boot: int | None
    seq: int | None
    info: Mapping[str, object]


class Decoded(NamedTuple):
    """The outcome of one message: every part that was taken and every part that was not."""

    readings: tuple[DecodedReading, ...] = ()
    refused: tuple[Refused, ...] = ()
    ack: Ack | None = None
    hello: Hello | None = None
    event: Event | None = None
    online: bool | None = None
    time_request_ms: int | None = None
    batch_id: str | None = None
