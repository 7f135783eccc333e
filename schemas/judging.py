"""What of a form may be taken: instants, registers and counters; what may not becomes a refusal."""

import re

from schemas.errors import DomainError
from schemas.identity import is_obis
from schemas.payload import printable
from schemas.quantities import format_instant, parse_instant_ms
from schemas.telemetry import PayloadError, Reason, Refused

# Before 2000 the clock was never set since its battery died; beyond this the clock runs ahead.
CLOCK_SET_FROM_MS = 946_684_800_000
FUTURE_TOLERANCE_MS = 5 * 60 * 1000
# As good as a clock gets in the field.
RIGHT_WITHIN_MS = 60_000
# Exact in every JSON reader (RFC 8259 clause 6) and in the database's bigint.
SAFE_INTEGER = 2**53 - 1

_FINER = re.compile(r"(\.[0-9]{3})[0-9]{1,9}(?![0-9])")

Faults = dict[Reason, list[str]]


def note(fault: PayloadError, faults: Faults) -> None:
    faults.setdefault(fault.reason, []).append(str(fault))


def refusals(
    faults: Faults,
    index: int | None,
    raw: bytes,
    meter: str | None,
    boot: int | None = None,
    seq: int | None = None,
) -> list[Refused]:
    """One refusal per reason, however many faults: the answer never outgrows the message."""
    return [
        Refused(
            reason,
            details[0] if len(details) == 1 else f"{details[0]} And {len(details) - 1} more.",
            index,
            raw,
            meter,
            boot,
            seq,
        )
        for reason, details in faults.items()
    ]


def register_fault(register: str, value_wh: int) -> PayloadError | None:
    if is_obis(register) is None:
        return PayloadError("unknown_register", f"Name registers C.D.E, not {printable(register)}.")
    return None if 0 <= value_wh <= SAFE_INTEGER else _value_fault(register, value_wh)


def _value_fault(register: str, value_wh: int) -> PayloadError:
    if value_wh == -1:
        return PayloadError("sentinel_register", f"{register} holds -1: no value was read.")
    if value_wh < 0:
        return PayloadError("negative_register", f"{register} is below zero; send cumulative Wh.")
    return PayloadError("unsafe_integer", f"{register} exceeds 2^53 - 1.")


def judged_instant_ms(text: str, now_ms: int) -> int:
    ts_ms = instant_ms(text)
    fault = instant_fault(ts_ms, now_ms)
    if fault is not None:
        raise fault
    return ts_ms


def instant_fault(ts_ms: int, now_ms: int) -> PayloadError | None:
    if ts_ms < CLOCK_SET_FROM_MS:
        return PayloadError("clock_1970", f"{format_instant(ts_ms)} is before 2000: set the clock.")
    if ts_ms > now_ms + FUTURE_TOLERANCE_MS:
        ahead_s = (ts_ms - now_ms) // 1000
        return PayloadError("future", f"The meter's clock is {ahead_s} s ahead: set the clock.")
    return None


def instant_ms(text: str) -> int:
    """What is finer than a millisecond is cut off: the same text is always the same instant."""
    try:
        return parse_instant_ms(_FINER.sub(r"\1", text, count=1))
    except DomainError as error:
        raise PayloadError("bad_instant", printable(str(error))) from None


def safe_integer(value: int) -> int:
    if value > SAFE_INTEGER:
        raise PayloadError("unsafe_integer", "Send integers below 2^53.")
    return value
