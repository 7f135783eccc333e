"""A business date's payments as a file with a trailer that proves it whole."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from partner_client.errors import Unusable

_AMOUNT = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,2}))?")


@dataclass(frozen=True, slots=True)
class Line:
    """One payment as you have it. `amount`: a decimal string; `paid_at`: with its time zone."""

    partner_txn_id: str
    meter: str
    amount: str
    paid_at: datetime

    def form(self) -> dict[str, str]:
        """As it is sent."""
        return {
            "partner_txn_id": self.partner_txn_id,
            "meter": self.meter,
            "amount": _hundredths_text(hundredths(self.amount)),
            "paid_at": instant(self.paid_at),
        }


@dataclass(frozen=True, slots=True)
class DailyFile:
    """Every payment of one business date, those that were taken back later included."""

    lines: Sequence[Line]

    def form(self) -> dict[str, object]:
        """Lines and trailer, as they are sent. Errors: Unusable, an amount or an instant."""
        total = sum(hundredths(line.amount) for line in self.lines)
        return {
            "lines": [line.form() for line in self.lines],
            "trailer": {
                "count": len(self.lines),
                "sum": _hundredths_text(total),
                "sha256": hashlib.sha256(self.canonical()).hexdigest(),
            },
        }

    def canonical(self) -> bytes:
        """What the digest is of: a line each of number, meter, amount with six decimals and instant
        in UTC, tab between and newline after, in the order of the file.
        """
        return "".join(
            f"{line.partner_txn_id}\t{line.meter}\t"
            f"{_hundredths_text(hundredths(line.amount))}0000\t{instant(line.paid_at)}\n"
            for line in self.lines
        ).encode()


def hundredths(amount: str) -> int:
    """`"50.1"` -> 5010. Errors: Unusable."""
    found = _AMOUNT.fullmatch(amount)
    if found is None:
        raise Unusable(f'write an amount such as "50.00", at most 2 decimals, not {amount!r:.40}')
    units, fraction = found.groups(default="")
    return int(units) * 100 + int(fraction.ljust(2, "0"))


def _hundredths_text(value: int) -> str:
    return f"{value // 100}.{value % 100:02d}"


def instant(at: datetime) -> str:
    """RFC 3339 in UTC, with milliseconds only where they are not zero. Errors: Unusable."""
    if at.tzinfo is None:
        raise Unusable("give an instant with its time zone: datetime.now(UTC), say")
    utc = at.astimezone(UTC)
    milliseconds = utc.microsecond // 1000
    text = utc.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{milliseconds:03d}Z" if milliseconds else f"{text}Z"
