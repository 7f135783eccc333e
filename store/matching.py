"""A partner's lines of a business date against our payments: pure, no order matters.

Law: every line and every payment of the date is in exactly one item, and swapping lines or payments
changes no item. Lines find payments by the partner's own number; what is left on both sides then
meets by meter and amount within a day, one pair at a time, the nearest first.

| class          | theirs          | ours                                        |
|----------------|-----------------|---------------------------------------------|
| matched        | a line          | its payment, of the same business date      |
| late           | a line          | its payment, of another business date       |
| amount_differs | a line          | its payment, of another amount              |
| duplicate      | a line          | a payment that an earlier line accounts for |
| theirs_only    | a line          | none                                        |
| ours_only      | none            | a payment of the business date              |
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from schemas.errors import DomainError
from schemas.quantities import format_instant, format_micro

Class = Literal["matched", "ours_only", "theirs_only", "amount_differs", "duplicate", "late"]
# Without a number in common, the same money for the same meter this near is the same payment.
NEAR_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class Line:
    """What a partner says that it sent."""

    partner_txn_id: str
    meter: str
    amount_micro: int
    paid_ms: int


@dataclass(frozen=True, slots=True)
class Trailer:
    """The end of a file: how many lines, their sum, and the digest of `canonical`."""

    count: int
    sum_micro: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Ours:
    """A payment that we took; `business_date` is that of `paid_ms` in the tariff's zone.
    `accounted_for`: by the file of another business date.
    """

    id: str
    partner_txn_id: str
    meter: str
    amount_micro: int
    paid_ms: int
    business_date: date
    accounted_for: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """What met; `place` is the same whenever the same payment is matched again."""

    place: str
    cls: Class
    theirs: Line | None
    ours: Ours | None


def canonical(lines: Iterable[Line]) -> bytes:
    """The bytes that a trailer's digest is of: a line each of number, meter, amount with six
    decimals and instant in UTC, tab between and newline after, in the order of the file.
    """
    return "".join(
        f"{line.partner_txn_id}\t{line.meter}\t{format_micro(line.amount_micro)}"
        f"\t{format_instant(line.paid_ms)}\n"
        for line in lines
    ).encode()


def trailer_of(lines: Sequence[Line]) -> Trailer:
    """The trailer of these lines in this order."""
    return Trailer(
        len(lines),
        sum(line.amount_micro for line in lines),
        hashlib.sha256(canonical(lines)).digest(),
    )


def check_trailer(lines: Sequence[Line], trailer: Trailer) -> None:
    """Errors: DomainError `trailer_differs`, naming what differs."""
    found = trailer_of(lines)
    for name in ("count", "sum_micro", "sha256"):
        if getattr(found, name) != getattr(trailer, name):
            raise DomainError(
                "trailer_differs",
                f"the trailer's {name.removesuffix('_micro')} is not that of the lines: send the "
                "whole file again",
            )


@dataclass(slots=True)
class _Sides:
    """What is still unmatched on both sides: lines by their place in the order, payments by id."""

    lines: dict[int, Line]
    payments: dict[str, Ours]
    items: list[Item] = field(default_factory=list)

    def pair(self, place: int, ours: Ours, business_date: date) -> None:
        line = self.lines.pop(place)
        self.payments.pop(ours.id, None)
        if ours.amount_micro != line.amount_micro:
            cls: Class = "amount_differs"
        elif ours.business_date != business_date:
            cls = "late"
        else:
            cls = "matched"
        self.items.append(Item(f"theirs:{line.partner_txn_id}", cls, line, ours))


def match(lines: Iterable[Line], payments: Iterable[Ours], business_date: date) -> tuple[Item, ...]:
    """The items of one business date, in order of place. `payments`: ours of the date, and those of
    other dates that a line may mean.
    """
    order = sorted(lines, key=lambda line: (line.partner_txn_id, line.paid_ms, _rest(line)))
    known = {ours.id: ours for ours in sorted(payments, key=lambda ours: ours.id)}
    by_number = {ours.partner_txn_id: ours for ours in known.values()}
    sides = _Sides(dict(enumerate(order)), dict(known))
    _match_numbers(sides, by_number, business_date)
    _match_near(sides, business_date)
    sides.items += [
        Item(f"theirs:{line.partner_txn_id}", "theirs_only", line, None)
        for line in sides.lines.values()
    ]
    sides.items += [
        Item(f"ours:{ours.id}", "ours_only", None, ours)
        for ours in sides.payments.values()
        if ours.business_date == business_date and not ours.accounted_for
    ]
    return tuple(sorted(sides.items, key=lambda item: item.place))


def _rest(line: Line) -> tuple[str, int]:
    return line.meter, line.amount_micro


def _match_numbers(sides: _Sides, by_number: Mapping[str, Ours], business_date: date) -> None:
    times: dict[str, int] = {}
    for place, line in list(sides.lines.items()):
        number = line.partner_txn_id
        times[number] = times.get(number, 0) + 1
        ours = by_number.get(number)
        if times[number] > 1 or (ours is not None and ours.accounted_for):
            del sides.lines[place]
            again = f"theirs:{number}" if times[number] == 1 else f"theirs:{number}#{times[number]}"
            sides.items.append(Item(again, "duplicate", line, ours))
        elif ours is not None:
            sides.pair(place, ours, business_date)


def _match_near(sides: _Sides, business_date: date) -> None:
    alike: dict[tuple[str, int], list[Ours]] = {}
    for ours in sides.payments.values():
        if not ours.accounted_for:
            alike.setdefault((ours.meter, ours.amount_micro), []).append(ours)
    near = sorted(
        (abs(line.paid_ms - ours.paid_ms), line.partner_txn_id, ours.id, place)
        for place, line in sides.lines.items()
        for ours in alike.get(_rest(line), ())
        if abs(line.paid_ms - ours.paid_ms) <= NEAR_MS
    )
    for _, _, payment, place in near:
        found = sides.payments.get(payment)
        if place in sides.lines and found is not None:
            sides.pair(place, found, business_date)
