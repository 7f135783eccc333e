"""What is said to a meter: commands, receipts, time answers; and how a command may end.

Clause 3 of the MQTT contract. A payload is built as canonical bytes (keys sorted, no blanks,
UTF-8), so that a signature over them can be checked by any party that holds the same value.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import orjson
from pydantic import TypeAdapter, ValidationError

from schemas import wire
from schemas.errors import DomainError
from schemas.quantities import format_instant, parse_instant_ms

CommandType = Literal["relay", "arm", "token", "credit", "limit", "read", "resend", "display"]
CommandState = Literal[
    "queued",
    "sent",
    "accepted",
    "executing",
    "done",
    "failed",
    "refused",
    "expired",
    "superseded",
    "unknown",
]
COMMAND_TYPES: tuple[CommandType, ...] = get_args(CommandType)
TOKEN_RESULTS: tuple[wire.TokenResult, ...] = get_args(wire.TokenResult)
# `UsedError` for a token that was delivered twice is success: the first delivery did the work.
TOKEN_SUCCESSES: frozenset[wire.TokenResult] = frozenset(
    {"Accept", "1stKCT", "2ndKCT", "UsedError"}
)
ARGUMENTS: dict[CommandType, tuple[str, ...]] = {
    "relay": ("to", "why"),
    "arm": (),
    "token": ("tokens", "tid"),
    "credit": ("wh", "as_of_seq"),
    "limit": ("w",),
    "read": (),
    "resend": ("boot", "from", "to"),
    "display": ("text",),
}
_OPTIONAL: frozenset[str] = frozenset({"why", "tid", "as_of_seq"})

# Of meters, and of refused rows, in one receipt to a gateway: within its own 64 KiB.
RECEIPT_ROWS = 400

# From each state, the states it may become. `queued` that passes `exp` is expired: nothing was
# said. Said and unanswered at `exp` is unknown, and a late answer still tells how it ended.
TRANSITIONS: dict[CommandState, frozenset[CommandState]] = {
    "queued": frozenset({"sent", "expired", "superseded"}),
    "sent": frozenset(
        {"accepted", "executing", "done", "failed", "refused", "expired", "superseded", "unknown"}
    ),
    "accepted": frozenset({"executing", "done", "failed", "refused", "superseded", "unknown"}),
    "executing": frozenset({"done", "failed", "refused", "unknown"}),
    "unknown": frozenset(
        {"accepted", "executing", "done", "failed", "refused", "expired", "superseded"}
    ),
    "done": frozenset(),
    "failed": frozenset(),
    "refused": frozenset(),
    "expired": frozenset(),
    "superseded": frozenset(),
}
FINAL: frozenset[CommandState] = frozenset(s for s, after in TRANSITIONS.items() if not after)


def may_become(before: CommandState, after: CommandState) -> bool:
    """Whether the table allows the step; a repeat of the same state is not a step."""
    return after in TRANSITIONS[before]


def sources(after: CommandState) -> list[CommandState]:
    """The states that may become this one."""
    return [before for before in TRANSITIONS if may_become(before, after)]


class CommandError(DomainError):
    """A payload on `dn/cmd` that is no command; `cmd` where it could be read, to answer it."""

    def __init__(self, code: str, message: str, cmd: str | None) -> None:
        super().__init__(code, message)
        self.cmd = cmd


@dataclass(frozen=True, slots=True)
class Command:
    """One order to one meter. `ctr` only grows per meter; `meter` behind a gateway and wherever the
    command is signed: an order to one meter must not be one to another.

    Raises DomainError `bad_command`: an unknown type, an argument missing or not of the type,
    an expiry not after the issue.
    """

    cmd: str
    type: CommandType
    ctr: int
    issued_ms: int
    expires_ms: int
    args: Mapping[str, object] = field(default_factory=dict)
    meter: str | None = None

    def __post_init__(self) -> None:
        known = ARGUMENTS.get(self.type)
        if known is None:
            raise DomainError("bad_command", f"Send one of {', '.join(COMMAND_TYPES)}.")
        if set(self.args) - set(known) or set(known) - set(self.args) - _OPTIONAL:
            raise DomainError(
                "bad_command", f"Give {self.type} the arguments {', '.join(known) or 'none'}."
            )
        if self.expires_ms <= self.issued_ms or self.ctr < 0:
            raise DomainError("bad_command", "Let a command expire after it is issued, ctr from 0.")


def canonical(command: Command) -> bytes:
    """The bytes that a signature covers: the payload without `sig`."""
    return encode(_payload(command))


def payload(command: Command, signature: str | None = None) -> bytes:
    """The bytes for `dn/cmd`; `signature` is base64url Ed25519 over `canonical(command)`."""
    form = _payload(command)
    if signature is not None:
        form["sig"] = signature
    return encode(form)


def _payload(command: Command) -> dict[str, object]:
    form: dict[str, object] = {
        "v": 1,
        "cmd": command.cmd,
        "type": command.type,
        "ctr": command.ctr,
        "iat": format_instant(command.issued_ms),
        "exp": format_instant(command.expires_ms),
        "args": dict(command.args),
    }
    if command.meter is not None:
        form["meter"] = command.meter
    return form


def encode(form: Mapping[str, object]) -> bytes:
    """Canonical JSON of any wire form: keys sorted, no blanks, UTF-8, no NaN."""
    return json.dumps(
        form, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


_COMMAND: TypeAdapter[wire.Command] = TypeAdapter(wire.Command)
_RECEIPT: TypeAdapter[wire.Receipt] = TypeAdapter(wire.Receipt)
_GATEWAY_RECEIPT: TypeAdapter[wire.GatewayReceipt] = TypeAdapter(wire.GatewayReceipt)


class SignedCommand(NamedTuple):
    """A command as it arrived, and the signature beside it: not yet checked."""

    command: Command
    signature: str | None


def parse_command(data: bytes) -> Command:
    """The command in a `dn/cmd` payload, whoever signed it. Raises CommandError."""
    return parse_signed_command(data).command


def parse_signed_command(data: bytes) -> SignedCommand:
    """The command in a `dn/cmd` payload with its `sig`. Raises CommandError."""
    try:
        form = _COMMAND.validate_json(data)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]["type"]
        message = f"Send a command as in clause 3 of the contract: {fault}."
        raise CommandError("bad_command", message, None) from None
    found: CommandType | None = None
    for known in COMMAND_TYPES:
        if known == form["type"]:
            found = known
    if found is None:
        message = f"Send one of {', '.join(COMMAND_TYPES)}."
        raise CommandError("unknown_type", message, form["cmd"])
    try:
        command = Command(
            cmd=form["cmd"],
            type=found,
            ctr=form["ctr"],
            issued_ms=parse_instant_ms(form["iat"]),
            expires_ms=parse_instant_ms(form["exp"]),
            args=form["args"],
            meter=form.get("meter"),
        )
    except DomainError as error:
        raise CommandError("bad_command", str(error), form["cmd"]) from None
    return SignedCommand(command, form.get("sig"))


def receipt(boot: int, seq: int) -> bytes:
    """The bytes for a meter's `dn/receipt`: everything of `boot` up to `seq` is committed."""
    return encode({"v": 1, "boot": boot, "seq": seq})


def gateway_receipts(
    batch_id: str | None,
    kept: Sequence[tuple[str, int, int]],
    refused: Sequence[wire.RefusedRow] = (),
) -> list[bytes]:
    """The messages for a gateway's `dn/receipt` after one batch: (meter, boot, seq) per meter, and
    what was refused; mostly one, at most `RECEIPT_ROWS` of both in each.
    """
    head: dict[str, object] = {"v": 1} if batch_id is None else {"v": 1, "id": batch_id}
    said: list[bytes] = []
    for first in range(0, max(len(kept), len(refused), 1), RECEIPT_ROWS):
        form = head | {"rows": kept[first : first + RECEIPT_ROWS]}
        if refused[first : first + RECEIPT_ROWS]:
            form["refused"] = refused[first : first + RECEIPT_ROWS]
        # As `encode` writes it, in a tenth of the time: a worker writes one for each batch.
        said.append(orjson.dumps(form, option=orjson.OPT_SORT_KEYS))
    return said


def parse_receipt(data: bytes) -> tuple[int, int]:
    """(boot, seq) of a meter's receipt. Raises DomainError `bad_receipt`."""
    try:
        form = _RECEIPT.validate_json(data)
    except ValidationError:
        raise DomainError("bad_receipt", 'Send a receipt as {"v":1,"boot":B,"seq":S}.') from None
    return form["boot"], form["seq"]


def time_answer(t1_ms: int, t2_ms: int, t3_ms: int) -> bytes:
    """The bytes for `dn/time`: asked, received, answered, UTC ms."""
    return encode({"v": 1, "t1": t1_ms, "t2": t2_ms, "t3": t3_ms})


@dataclass(frozen=True, slots=True)
class BatchReceipt:
    """A gateway's receipt: what it may forget, (meter, boot, seq) each, and what was refused."""

    batch_id: str | None
    kept: tuple[tuple[str, int, int], ...]
    refused: tuple[wire.RefusedRow, ...]


def parse_gateway_receipt(data: bytes) -> BatchReceipt:
    """The inverse of one message of `gateway_receipts`. Raises DomainError `bad_receipt`."""
    try:
        form = _GATEWAY_RECEIPT.validate_json(data)
    except ValidationError:
        raise DomainError(
            "bad_receipt", 'Send a receipt as {"v":1,"rows":[[METER,B,S],...]}.'
        ) from None
    return BatchReceipt(form.get("id"), tuple(form["rows"]), tuple(form.get("refused", ())))
