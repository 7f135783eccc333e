"""Readings between which nothing happens but consumption: what they cost, in a few integers.

Most readings follow the one before in the same cell of the tariff and the same block, leave the
balance above every threshold, and move nothing else. `begin` says whether an account stands so;
`Steady.take` then rates one reading after the other. It knows no rule of its own:

- law: a reading that it takes gives what `advance` gives - the posting, the position, the status;
- what it cannot take it refuses and stays as it was, and `advance` rates it instead.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import NamedTuple

from credit_engine.days import MEMO_LIMIT, Cell, cell_at
from credit_engine.position import Position
from credit_engine.rating import PPM
from credit_engine.terms import Tariff, Terms

# As many taxes as a row of the ledger's lean table has room for.
TAXES_MAX = 4


class TaxOn(NamedTuple):
    """Section 6 on one base: due is `(base * factor + half) // divisor`; `place` in the numbers."""

    place: int
    factor: int
    half: int
    divisor: int
    included: bool


@dataclass(slots=True)
class Pricing:
    """What all energy of a steady stretch is priced by: one block of one band in one period.

    Shared by all accounts of a tariff; `layouts` keeps where their positions count what.
    """

    cell: Cell
    price_micro_per_wh: int
    # The uppermost position of the block; the last one is open, beyond any register.
    upper_wh: int
    # A reading at midnight belongs to the day that ends, and what happens then to no cell.
    end_ms: int
    layouts: dict[tuple[object, ...], "Layout"] = field(default_factory=dict)

    @property
    def accounts(self) -> tuple[str, ...]:
        """The ledger accounts that a debit moves, beside what `Steady.take` gives."""
        taxes = (f"tax:{tax.name}" for _, tax in self.cell.energy_taxes)
        return ("customer", "revenue:energy", *taxes)

    def layout(self, keys: tuple[object, ...]) -> "Layout":
        """Where numbers with these keys count the month, the year and the taxed charges."""
        found = self.layouts.get(keys)
        if found is None:
            cell = self.cell
            taxes = []
            for key, tax in cell.energy_taxes:
                whole = PPM + tax.ppm if tax.included else PPM
                on = TaxOn(keys.index(key), 2 * tax.ppm, whole, 2 * whole, tax.included)
                taxes.append(on)
            month_at, year_at = keys.index(cell.month_key), keys.index(cell.year_key)
            found = self.layouts[keys] = Layout(month_at, year_at, tuple(taxes))
        return found


class Layout(NamedTuple):
    """Places in the numbers of a position."""

    month_at: int
    year_at: int
    taxes: tuple[TaxOn, ...]


Mark = tuple[int, int, int, int, list[int]]

# What a reading without consumption moves.
NOTHING: tuple[int, ...] = ()


class Steady:
    """An account within one cell and block; `take` moves it, `position` says where it stands.

    `numbers` is laid out as `Position.numbers`. `floor_micro`: the balance stays above it.
    """

    __slots__ = (
        "at_ms",
        "balance_micro",
        "consumed_wh",
        "floor_micro",
        "layout",
        "max_power_w",
        "numbers",
        "pricing",
        "wh",
    )

    def __init__(self, position: Position, pricing: Pricing, floor_micro: int) -> None:
        self.pricing = pricing
        self.layout = pricing.layout(position.keys())
        self.at_ms = position.at_ms
        self.wh = position.register_wh
        self.balance_micro = position.totals.balance_micro
        self.floor_micro = floor_micro
        self.consumed_wh = position.totals.consumed_wh[pricing.cell.position_key]
        self.numbers = position.numbers()
        self.max_power_w = position.installation.max_power_w

    @property
    def ended(self) -> bool:
        """Whether the cell is over: the next reading begins in another."""
        return self.at_ms >= self.pricing.end_ms

    def take(self, at_ms: int, wh: int) -> tuple[int, ...] | None:
        """Rate the next reading. The signed µ of `pricing.accounts`, `NOTHING` where nothing was
        consumed; None: not steady, and nothing has changed.
        """
        start_ms, energy, pricing = self.at_ms, wh - self.wh, self.pricing
        if energy < 0 or not start_ms < at_ms <= pricing.end_ms:
            return None
        power = self.max_power_w
        if power is not None and (energy - 10) * 36_000_000 > 11 * power * (at_ms - start_ms):
            return None
        if not energy:
            self.at_ms = at_ms
            return NOTHING
        consumed = self.consumed_wh + energy
        if consumed > pricing.upper_wh:
            return None
        charge = debited = earned = energy * pricing.price_micro_per_wh
        month_at, year_at, taxes = self.layout
        # A new list: `mark` keeps the old one.
        numbers = self.numbers.copy()
        moved: list[int] = []
        for place, factor, half, divisor, included in taxes:
            base = numbers[place]
            due = (base * factor + half) // divisor
            base += charge
            numbers[place] = base
            amount = (base * factor + half) // divisor - due
            # The ledger has no legs of zero.
            if not amount:
                return None
            if included:
                earned -= amount
            else:
                debited += amount
            moved.append(amount)
        balance = self.balance_micro - debited
        if balance <= self.floor_micro or not earned:
            return None
        numbers[month_at] += energy
        numbers[year_at] += energy
        numbers[0] = self.wh = wh
        self.at_ms, self.consumed_wh, self.balance_micro = at_ms, consumed, balance
        self.numbers = numbers
        return (-debited, earned, *moved)

    def bases(self) -> list[int]:
        """Of each tax on energy, the charges of the month so far, in µ."""
        numbers = self.numbers
        return [numbers[tax.place] for tax in self.layout.taxes]

    def mark(self) -> Mark:
        """Where it stands, for `back_to`."""
        return self.at_ms, self.wh, self.consumed_wh, self.balance_micro, self.numbers

    def back_to(self, mark: Mark) -> None:
        """As if nothing had been taken since."""
        self.at_ms, self.wh, self.consumed_wh, self.balance_micro, self.numbers = mark


def begin(terms: Terms, position: Position, floor_micro: int) -> Steady | None:
    """The account from `position` on, if it is steady and its balance above `floor_micro`."""
    if position.reconnect_armed or position.emergency_in_use:
        return None
    if position.at_ms != position.register_at_ms or position.totals.balance_micro <= floor_micro:
        return None
    cell = cell_at(terms.tariff, position.at_ms)
    # The first reading of a day leaves a position to rate again from.
    if position.at_ms == cell.day.start_ms:
        return None
    pricing = _pricing(terms.tariff, cell, position)
    return None if pricing is None else Steady(position, pricing, floor_micro)


def _pricing(tariff: Tariff, cell: Cell, position: Position) -> Pricing | None:
    consumed, taxed = position.totals.consumed_wh, position.totals.taxed_micro
    # The engine begins the counts of a period; here they only grow.
    if cell.month_key not in consumed or cell.year_key not in consumed:
        return None
    if any(key not in taxed for key, _ in cell.energy_taxes):
        return None
    names = {tax.name for _, tax in cell.energy_taxes}
    if len(names) != len(cell.energy_taxes) or len(names) > TAXES_MAX:
        return None
    band, used_wh = cell.band, consumed[cell.position_key]
    # The block of the next Wh: one that is full to its edge ends with it.
    block = bisect_left(band.upper_wh, used_wh + 1)
    if band.prices[block] <= 0:
        return None
    # Volume: from one block to the next the whole period is priced anew.
    if not band.graduated and bisect_left(band.upper_wh, used_wh) != block:
        return None
    found = tariff.pricings.get((cell.start_ms, block))
    if found is None:
        if len(tariff.pricings) >= MEMO_LIMIT:
            tariff.pricings.clear()
        upper = band.upper_wh[block] if block < len(band.upper_wh) else 2**63
        end_ms = min(cell.end_ms, cell.day.end_ms - 1)
        found = Pricing(cell, band.prices[block], upper, end_ms)
        tariff.pricings[cell.start_ms, block] = found
    return found
