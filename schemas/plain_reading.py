"""What nearly every message is, a plain reading of a meter, read in less than half of the time.

One object with the total and perhaps what was measured beside it, in plain ASCII. `read_plain`
knows no rule of its own:

- law: a reading that it reads is the one that `schemas.decoding` reads, by the form `wire.Reading`;
- everything else it leaves alone, and the form says what is wrong with it, or what else it is.
"""

from typing import Annotated, Literal

import msgspec

from schemas.errors import DomainError
from schemas.identity import ACTIVE_IMPORT
from schemas.quantities import parse_instant_ms
from schemas.telemetry import DecodedReading

_Counter = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
_NOTHING = msgspec.Raw()
# What travels along is kept as it was written, if every reader of JSON reads it alike: no escapes,
# no exponents, no number that 64 bits cannot hold, few levels. The kinds of its octets tell:
# digits, e, brackets that open, what is not plain ASCII, and the rest.
_KINDS = bytes(
    ord("0") if octet in b"0123456789"
    else ord("e") if octet in b"eE"
    else ord("[") if octet in b"[{"
    else ord("!") if octet in b"\\" or not 32 <= octet < 127
    else ord(" ")
    for octet in range(256)
)  # fmt: skip
_LONG = "0" * 19
_BRACKETS_MAX = 32


class _Form(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """As `wire.Reading`; keys unknown here are left to it."""

    v: Literal[1]
    boot: _Counter
    seq: _Counter
    ts: str
    reg: dict[str, _Counter]
    tq: Literal["sync", "drift", "lost"] = "sync"
    hist: bool = False
    inst: msgspec.Raw = _NOTHING
    relay: Literal["closed", "open", "armed"] | msgspec.UnsetType = msgspec.UNSET
    credit: msgspec.Raw = _NOTHING
    rcpt: bool = False


_decode = msgspec.json.Decoder(_Form).decode


def read_plain(
    meter: str, payload: bytes, earliest_ms: int, latest_ms: int
) -> DecodedReading | None:
    """The reading, if it is plain and of an instant between the two; None: it may be anything."""
    try:
        form = _decode(payload)
        ts_ms = parse_instant_ms(form.ts)
    except (msgspec.MsgspecError, DomainError):
        return None
    registers = form.reg
    value_wh = registers.get(ACTIVE_IMPORT)
    if value_wh is None or len(registers) != 1 or not earliest_ms <= ts_ms <= latest_ms:
        return None
    rest = None
    if form.inst is not _NOTHING or form.credit is not _NOTHING:
        rest = _beside(bytes(form.inst), bytes(form.credit))
        if rest is None:
            return None
    relay = form.relay
    return DecodedReading._make((
        meter, ACTIVE_IMPORT, ts_ms, value_wh, form.boot, form.seq, form.tq, form.hist, form.rcpt,
        None if relay is msgspec.UNSET else relay, rest,
    ))  # fmt: skip


def _beside(inst: bytes, credit: bytes) -> bytes | None:
    """Both as one JSON object; None: not certainly what the form makes of them."""
    # As text, which is searched three times as fast as octets.
    kinds = (inst + credit).translate(_KINDS).decode()
    if "!" in kinds or "0e" in kinds or _LONG in kinds or kinds.count("[") > _BRACKETS_MAX:
        return None
    if not credit:
        return b'{"inst":%b}' % inst if inst[:1] == b"{" else None
    if credit[:1] != b"{" or inst[:1] not in {b"", b"{"}:
        return None
    return b'{"inst":%b,"credit":%b}' % (inst, credit) if inst else b'{"credit":%b}' % credit
