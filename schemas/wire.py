"""The forms that travel over MQTT, as devices write them (MQTT contract, clauses 2 and 3).

Strict: a number is a number, a string a string; `true` is no integer. (What is read is taken more
kindly where that costs nobody anything: `schemas.forgiving`.) Unknown keys are allowed everywhere:
the store keeps the raw message. The JSON Schemas in `schemas/json` are generated from
these. Instants are RFC 3339 UTC, registers are integers in Wh (varh), `t1..t3` are UTC ms.

Receipts: after the commit of a message with `rcpt: true` or `hist: true`, and of every batch of a
gateway, the server answers on `dn/receipt` with the highest `seq` of each boot in the message; the
meter frees every buffered row of the boot up to it. A PUBACK alone frees nothing. A reading that is
refused is kept in quarantine and receipted: saying it again would change nothing.
"""

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from schemas.identity import METER_NUMBER, OBIS

Version = Annotated[int, Field(ge=1, le=1)]
Counter = Annotated[int, Field(ge=0, strict=True)]
MeterNumber = Annotated[str, Field(pattern=METER_NUMBER, strict=True)]
# No NUL: the database's text cannot hold one.
PlainText = Annotated[str, Field(max_length=64, pattern=r"^[^\x00]*$")]
RegisterName = Annotated[str, Field(pattern=OBIS)]
CommandId = Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{1,64}$")]
# Ed25519, base64url without padding.
Signature = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{86}$")]
# Clock right; off by at most a quarter of an hour; unknown (stored, not billed).
TimeQuality = Literal["sync", "drift", "lost"]
Relay = Literal["closed", "open", "armed"]
# What a meter can be asked for. One order of these words everywhere: `typing` keeps one object for
# equal Literals, so that another order elsewhere would depend on what was imported first.
DesiredRelay = Literal["closed", "open"]
AckState = Literal["accepted", "executing", "done", "failed", "refused"]
TokenResult = Literal[
    "Accept",
    "1stKCT",
    "2ndKCT",
    "OverflowError",
    "KeyTypeError",
    "FormatError",
    "RangeError",
    "FunctionError",
    "OldError",
    "UsedError",
    "KeyExpiredError",
    "DDTKError",
    "AuthenticationError",
    "MfrCodeError",
]


# Unknown keys are let through, here and below: they travel along (`DecodedReading.rest`,
# `telemetry.Ack.beside`).
@with_config(ConfigDict(strict=True, extra="allow"))
class Reading(TypedDict):
    """up/reading: the cumulative registers at one instant; also as a list of such."""

    v: Version
    boot: Counter
    seq: Counter
    ts: str
    tq: NotRequired[TimeQuality]
    hist: NotRequired[bool]
    # Signs are judged per register, so that one broken register does not lose the others.
    reg: Annotated[dict[str, int], Field(min_length=1)]
    inst: NotRequired[dict[str, object]]
    relay: NotRequired[Relay]
    credit: NotRequired[dict[str, object]]
    rcpt: NotRequired[bool]


# [meter, boot, first seq, slots]: slot i has seq `first + i` and instant `t0 + i*dt`; a gap (null)
# uses up its seq, so that a lost slot shows as a seq that never came.
# Strict by itself, as rows are also judged one by one.
BatchSlot = list[Annotated[int, Field(strict=True)] | None] | None
BatchRow = Annotated[tuple[MeterNumber, Counter, Counter, list[BatchSlot]], Field(strict=False)]


@with_config(ConfigDict(strict=True, extra="allow"))
class Batch(TypedDict):
    """up/batch: many meters of one gateway on one time grid. `dt` is in seconds.

    Each batch is answered on the gateway's `dn/receipt`, with its `id` where it has one.
    """

    v: Version
    id: NotRequired[PlainText]
    t0: str
    dt: Annotated[int, Field(ge=1, le=86_400)]
    cols: Annotated[list[RegisterName], Field(min_length=1)]
    tq: NotRequired[TimeQuality]
    hist: NotRequired[bool]
    rcpt: NotRequired[bool]
    rows: list[BatchRow]


@with_config(ConfigDict(strict=True, extra="allow"))
class BatchHead(TypedDict):
    """A batch whose columns and rows are still to be judged one by one."""

    v: Version
    id: NotRequired[PlainText]
    t0: str
    dt: Annotated[int, Field(ge=1, le=86_400)]
    cols: Annotated[list[str], Field(min_length=1)]
    tq: NotRequired[TimeQuality]
    hist: NotRequired[bool]
    rcpt: NotRequired[bool]
    rows: list[object]


@with_config(ConfigDict(strict=True))
class TokenOutcome(TypedDict):
    """What the meter made of one token: four stages and the result of IEC 62055-41."""

    format: bool
    authentication: bool
    validation: bool
    execution: bool
    result: TokenResult


@with_config(ConfigDict(strict=True, extra="allow"))
class Ack(TypedDict):
    """up/ack: how far a command has come. `relay` is measured, `reg` taken as it switched.

    `meter` names the target where a gateway speaks for it; `why` gives a refusal's reason
    (`stale`, `expired`, `bad_command`, `unknown_type`). `token` is the outcome of the last token
    entered, `tokens` has one per token of the command.
    """

    v: Version
    cmd: CommandId
    state: AckState
    ts: str
    meter: NotRequired[MeterNumber]
    relay: NotRequired[Relay]
    reg: NotRequired[dict[RegisterName, Counter]]
    token: NotRequired[TokenOutcome]
    tokens: NotRequired[list[TokenOutcome]]
    why: NotRequired[PlainText]


@with_config(ConfigDict(strict=True))
class BufferRange(TypedDict):
    """The rows of this boot and before that wait for a receipt: how many, and since when."""

    rows: Counter
    oldest: NotRequired[str]


@with_config(ConfigDict(strict=True))
class Hello(TypedDict):
    """up/hello: birth. First message after every connection."""

    v: Version
    boot: Counter
    ts: str
    model: NotRequired[PlainText]
    fw: NotRequired[PlainText]
    seq: NotRequired[Counter]
    tq: NotRequired[TimeQuality]
    reg: NotRequired[dict[RegisterName, Counter]]
    relay: NotRequired[Relay]
    ctr: NotRequired[Counter]
    # The version of the configuration that it holds; 0: as it left the factory.
    cfg: NotRequired[Counter]
    buf: NotRequired[BufferRange]


@with_config(ConfigDict(strict=True))
class Event(TypedDict):
    """up/event. Known types: tamper, cover_open, over_power, relay_by_hand, power_fail,
    power_return, clock_set (`info`: `before` and `after`, instants of the meter's clock), also
    written with `-`. Others are kept as they come.
    """

    v: Version
    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    ts: str
    meter: NotRequired[MeterNumber]
    boot: NotRequired[Counter]
    seq: NotRequired[Counter]
    info: NotRequired[dict[PlainText, object]]


@with_config(ConfigDict(strict=True))
class TimeRequest(TypedDict):
    """up/time: `t1` is the meter's clock when it asked, UTC ms."""

    v: Version
    t1: int


@with_config(ConfigDict(strict=True))
class TimeAnswer(TypedDict):
    """dn/time: `t1` as asked, `t2` server clock at receipt, `t3` at answer, UTC ms."""

    v: Version
    t1: int
    t2: int
    t3: int


@with_config(ConfigDict(strict=True))
class Receipt(TypedDict):
    """dn/receipt to a meter: everything of `boot` up to `seq` is committed."""

    v: Version
    boot: Counter
    seq: Counter


@with_config(ConfigDict(strict=True))
class RefusedRow(TypedDict):
    """What of a batch was not taken, and why: a row of it by its index, or a reading of a meter by
    its counter; neither: the batch as a whole.
    """

    reason: str
    row: NotRequired[Counter]
    meter: NotRequired[str]
    boot: NotRequired[Counter]
    seq: NotRequired[Counter]


@with_config(ConfigDict(strict=True))
class GatewayReceipt(TypedDict):
    """dn/receipt to a gateway, after the commit of a batch: up to which counter each meter's rows
    are kept, and what of them was refused. The buffer is free of both: a refused row is kept in
    quarantine, and saying it again changes nothing. A long answer comes as several receipts.
    """

    v: Version
    id: NotRequired[PlainText]
    rows: list[Annotated[tuple[MeterNumber, Counter, Counter], Field(strict=False)]]
    refused: NotRequired[list[RefusedRow]]


@with_config(ConfigDict(strict=True))
class Command(TypedDict):
    """dn/cmd, as the meter receives it. `meter` names the target: behind a gateway, and always
    where there is a `sig` (Ed25519 over the canonical payload without it).
    """

    v: Version
    cmd: CommandId
    type: str
    ctr: Counter
    iat: str
    exp: str
    args: dict[str, object]
    meter: NotRequired[MeterNumber]
    sig: NotRequired[str]


@with_config(ConfigDict(strict=True))
class Configuration(TypedDict):
    """dn/cfg, retained: the newest version counts. `sig` is made with a key held already."""

    v: Version
    meter: MeterNumber
    version: Counter
    command_keys: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]],
        Field(min_length=1, max_length=2),
    ]
    sig: Signature


@with_config(ConfigDict(strict=True))
class EnrolmentRequest(TypedDict):
    """pm/v1/e/{claim}/csr: a PKCS #10 request (PEM) whose common name is the meter's number."""

    v: Version
    meter: MeterNumber
    csr: Annotated[str, Field(max_length=4096)]


@with_config(ConfigDict(strict=True))
class EnrolmentAnswer(TypedDict):
    """pm/v1/e/{claim}/cert: the certificate and its authority's (PEM), or why there is none.

    All who ask under one claim read it: a certificate is public, and each looks for its number.
    """

    v: Version
    meter: MeterNumber
    certificate: NotRequired[str]
    ca: NotRequired[str]
    refused: NotRequired[str]
