"""What goes over the socket: a length of four octets, then one JSON object, either way.

A request is one operation of `tokens.security_module.SecurityModule` with its arguments; the
answer is its result, or the refusal. No operation takes or gives a key, and what a key change token
says of one stays behind the wall.
"""

import socket
import struct
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from tokens import apdu
from tokens.apdu import Apdu
from tokens.keys import KeyAttributes

LENGTH = struct.Struct(">I")
# The longest request has two sets of key attributes: a fifth of this.
FRAME_OCTETS_MAX = 4096
# struct ucred: pid, uid, gid.
PEER_CREDENTIALS = struct.Struct("3i")


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class IssueCredit(_Form):
    op: Literal["issue_credit"] = "issue_credit"
    meter_pan: str
    attributes: KeyAttributes
    subclass: int
    amount: int
    tid_minutes: int
    rnd: int


class IssueManagement(_Form):
    op: Literal["issue_management"] = "issue_management"
    meter_pan: str
    attributes: KeyAttributes
    subclass: int
    fields: dict[str, int]
    tid_minutes: int
    rnd: int


class IssueKeyChange(_Form):
    op: Literal["issue_key_change"] = "issue_key_change"
    meter_pan: str
    old: KeyAttributes
    new: KeyAttributes
    tid_minutes: int
    triplet: bool


class Verify(_Form):
    op: Literal["verify"] = "verify"
    meter_pan: str
    attributes: KeyAttributes
    digits: str


class CheckValue(_Form):
    op: Literal["key_check_value"] = "key_check_value"
    sgc: str
    krn: int


Request = IssueCredit | IssueManagement | IssueKeyChange | Verify | CheckValue
REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="op")])


class Read(_Form):
    """A token as this meter reads it."""

    cls: int
    subclass: int
    fields: dict[str, int]

    @classmethod
    def of(cls, token: Apdu) -> "Read":
        shown = {name: v for name, v in token.fields.items() if name not in apdu.SECRET_FIELDS}
        return cls(cls=token.cls, subclass=token.subclass, fields=shown)


class Refused(_Form):
    """`retry_after_s`: of a limit, when its interval is over."""

    code: str
    message: str
    retry_after_s: int | None = None


class Answer(_Form):
    """One of these is set."""

    digits: list[str] | None = None
    read: Read | None = None
    check_value: str | None = None
    refused: Refused | None = None


def send(connection: socket.socket, form: _Form) -> None:
    """Errors: OSError."""
    body = form.model_dump_json(exclude_none=True).encode()
    connection.sendall(LENGTH.pack(len(body)) + body)


def receive(connection: socket.socket) -> bytes | None:
    """One body; None where the other side has ended. Errors: OSError; ValueError (too long)."""
    head = _exactly(connection, LENGTH.size)
    if head is None:
        return None
    (octets,) = LENGTH.unpack(head)
    if octets > FRAME_OCTETS_MAX:
        raise ValueError("the frame is longer than any of this protocol")
    return _exactly(connection, octets)


def _exactly(connection: socket.socket, octets: int) -> bytes | None:
    read = bytearray()
    while len(read) < octets:
        some = connection.recv(octets - len(read))
        if not some:
            return None
        read += some
    return bytes(read)


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """(process id, user id) of the other side, as the kernel says it."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size)
    process, user, _ = PEER_CREDENTIALS.unpack(raw)
    return process, user
