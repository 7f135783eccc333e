"""What nearly every batch of a gateway is, one register of its meters, read in half of the time.

`read_plain_batch` knows no rule of its own:

- law: a batch that it reads is the one that `schemas.decoding` reads, by the form `wire.Batch`;
- everything else it leaves alone, and the form says what is wrong with it, or what else it is.
"""

from typing import Annotated, Literal

import msgspec

from schemas.errors import DomainError
from schemas.identity import METER_NUMBER_LENGTHS, is_obis
from schemas.judging import SAFE_INTEGER
from schemas.quantities import parse_instant_ms
from schemas.telemetry import Decoded, DecodedReading

_Counter = Annotated[int, msgspec.Meta(ge=0, le=SAFE_INTEGER)]
_Row = tuple[str, _Counter, _Counter, list[tuple[_Counter] | None]]


class _Form(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """As `wire.Batch`; keys unknown here are left to it."""

    v: Literal[1]
    t0: str
    dt: Annotated[int, msgspec.Meta(ge=1, le=86_400)]
    cols: tuple[str]
    rows: list[_Row]
    id: Annotated[str, msgspec.Meta(max_length=64)] | msgspec.UnsetType = msgspec.UNSET
    tq: Literal["sync", "drift", "lost"] = "sync"
    hist: bool = False
    rcpt: bool = False


_decode = msgspec.json.Decoder(_Form).decode


def read_plain_batch(payload: bytes, earliest_ms: int, latest_ms: int) -> Decoded | None:
    """The batch, if it is plain and of instants between the two; None: it may be anything."""
    try:
        form = _decode(payload)
        t0_ms = parse_instant_ms(form.t0)
    except (msgspec.MsgspecError, DomainError):
        return None
    (register,), rows, step_ms = form.cols, form.rows, form.dt * 1000
    batch_id = None if form.id is msgspec.UNSET else form.id
    if is_obis(register) is None or not _are_meters([row[0] for row in rows]):
        return None
    if batch_id is not None and "\0" in batch_id:
        return None
    most = max([len(row[3]) for row in rows])
    if t0_ms < earliest_ms or t0_ms + (most - 1) * step_ms > latest_ms:
        return None
    if max([row[2] for row in rows]) + most > SAFE_INTEGER:
        return None
    tq, hist, rcpt, make = form.tq, form.hist, form.rcpt, DecodedReading._make
    readings = [
        make((
            meter, register, t0_ms + i * step_ms, slot[0], boot, first + i, tq, hist, rcpt, None,
            None,
        ))
        for meter, boot, first, slots in rows
        for i, slot in enumerate(slots)
        if slot is not None
    ]  # fmt: skip
    return Decoded(tuple(readings), batch_id=batch_id)


def _are_meters(numbers: list[str]) -> bool:
    """Whether there are some, and each is a meter's number."""
    digits = "".join(numbers)
    return (
        digits.isascii() and digits.isdigit() and METER_NUMBER_LENGTHS.issuperset(map(len, numbers))
    )
