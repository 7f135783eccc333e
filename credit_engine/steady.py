"""Readings between which nothing happens but consumption: what they cost, many at once.

Most readings follow the one before in the same cell of the tariff and the same block, leave the
balance above every threshold, and move nothing else. `begin` says whether an account stands so and
what it is then: a row of few integers (`STEADY`). `take` rates the next reading of each of many
such rows, a column at a time. It knows no rule of its own:

- law: a reading that it takes gives what `advance` gives - the posting, the position, the status;
- what it cannot take it refuses and leaves as it was, and `advance` rates it instead.

A late reading within an interval that was debited is the same work: `reopen` gives the row from
before that debit, and the reading and the one that ended the interval are the next two.

Its integers have 64 bits; an account whose numbers could leave them is not begun.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from credit_engine.days import MEMO_LIMIT, Cell, cell_at
from credit_engine.position import Position
from credit_engine.rating import PPM, explain_energy, tax_line
from credit_engine.terms import Tariff, Tax, Terms

# As many taxes as a row of the ledger's lean table has room for.
TAXES_MAX = 4
# Of one position (credit_engine.position): the register, three bands' months and years, taxes.
NUMBERS_MAX = 12
# Between two readings; per Wh; of one connection: beyond them the general way rates.
ENERGY_MAX_WH = PRICE_MAX_MICRO = POWER_MAX_W = 10**9
# Of balances and counts, so that what comes on top of them fits, too.
AMOUNT_MAX = 10**18

# Section 6 on one base: due is `(base * factor + half) // divisor`, up to a base of `most`;
# `place` in the numbers. A row without a tax has factor 0.
_TAX = np.dtype([(name, np.int64) for name in (
    "place", "factor", "half", "divisor", "most", "included")], align=True)  # fmt: skip
_NO_TAX = (0, 0, 0, 1, AMOUNT_MAX, 0)
# One account. `numbers` is laid out as `Position.numbers`, the first `count` of them; `month_at`
# and `year_at` are places in it. `floor_micro`: the balance stays above it. `max_power_w`: -1 is
# unknown. `upper_wh`: the uppermost position of the block.
STEADY = np.dtype([
    *((name, np.int64) for name in (
        "at_ms", "wh", "consumed_wh", "balance_micro", "floor_micro", "max_power_w", "end_ms",
        "upper_wh", "price_micro_per_wh", "month_at", "year_at", "count", "taxes")),
    ("tax", _TAX, (TAXES_MAX,)),
    ("numbers", np.int64, (NUMBERS_MAX,)),
], align=True)  # fmt: skip

Rows = NDArray[np.void]
Integers = NDArray[np.int64]
Marks = NDArray[np.bool_]


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
        """The ledger accounts that a debit moves, in the order of `Taken.amounts`."""
        taxes = (f"tax:{tax.name}" for _, tax in self.cell.energy_taxes)
        return ("customer", "revenue:energy", *taxes)

    def explain(
        self,
        meter_id: str,
        registers: tuple[int, int, int, int],
        position_wh: int,
        energy_wh: int,
        charge_micro: int,
        taxes: Sequence[tuple[int, int, int]],
    ) -> dict[str, Any]:
        """A debit of one interval, as `credit_engine.rating` words it; `registers`: instant and Wh
        of either end; `taxes`: base, due and amount of each.
        """
        block = {
            "wh": energy_wh,
            "price_micro_per_wh": self.price_micro_per_wh,
            "amount_micro": charge_micro,
        }
        lines = [
            tax_line(tax, *line)
            for (_, tax), line in zip(self.cell.energy_taxes, taxes, strict=True)
        ]
        segment = registers[0], registers[2]
        return explain_energy(
            meter_id, registers, segment, self.cell, position_wh, [block], charge_micro, lines
        )

    def layout(self, keys: tuple[object, ...]) -> "Layout":
        """Where numbers with these keys count the month, the year and the taxed charges."""
        found = self.layouts.get(keys)
        if found is None:
            cell = self.cell
            taxes = [_tax(keys.index(key), tax) for key, tax in cell.energy_taxes]
            taxes += [_NO_TAX] * (TAXES_MAX - len(taxes))
            month_at, year_at = keys.index(cell.month_key), keys.index(cell.year_key)
            found = self.layouts[keys] = Layout(month_at, year_at, tuple(taxes))
        return found


class Layout(NamedTuple):
    """Places in the numbers of a position; `taxes` as rows of `_TAX`."""

    month_at: int
    year_at: int
    taxes: tuple[tuple[int, ...], ...]


def _tax(place: int, tax: Tax) -> tuple[int, ...]:
    whole = PPM + tax.ppm if tax.included else PPM
    shared = gcd(2 * tax.ppm, whole)
    factor, half, divisor = 2 * tax.ppm // shared, whole // shared, 2 * whole // shared
    most = min(AMOUNT_MAX, (2**63 - 1 - half) // factor)
    return (place, factor, half, divisor, most, int(tax.included))


class Steady(NamedTuple):
    """An account that stands so: what prices it, and its row of `STEADY`."""

    pricing: Pricing
    row: tuple[Any, ...]


class Debit(NamedTuple):
    """A debit of the energy between two readings that follow each other; `bases`: before it, in the
    order of the taxes.
    """

    from_ms: int
    from_wh: int
    position_wh: int
    bases: tuple[int, ...]


class Taken(NamedTuple):
    """Of each reading: whether it is taken, and for those that are: where it began, what was
    consumed before and since (0: nothing is debited), the signed µ of `Pricing.accounts`, and of
    each tax the month's charges with this one; of taxes that a row has not, 0.
    """

    taken: Marks
    from_ms: Integers
    position_wh: Integers
    energy_wh: Integers
    amounts: Integers
    bases: Integers


def taxes_due(rows: Rows, bases: Integers) -> Integers:
    """What each tax of the rows comes to on these charges of a month; 0 where there is none."""
    tax = rows["tax"]
    return np.asarray((bases * tax["factor"] + tax["half"]) // tax["divisor"])


def take(rows: Rows, at_ms: Integers, wh: Integers) -> Taken:
    """Rate the next reading of each row, and move the rows whose reading is taken."""
    start_ms, energy = rows["at_ms"].copy(), wh - rows["wh"]
    elapsed, power = at_ms - start_ms, rows["max_power_w"]
    taken = (energy >= 0) & (energy <= ENERGY_MAX_WH) & (elapsed > 0) & (at_ms <= rows["end_ms"])
    taken &= (power < 0) | ((energy - 10) * 36_000_000 <= 11 * power * elapsed)
    moves = energy != 0
    position, everything = rows["consumed_wh"].copy(), np.arange(len(rows))
    charge = energy * rows["price_micro_per_wh"]
    fits = position + energy <= rows["upper_wh"]
    debited, earned = charge.copy(), charge.copy()
    taxes = int(rows["taxes"].max(initial=0))
    amounts = np.zeros((len(rows), 2 + TAXES_MAX), np.int64)
    bases = np.zeros((len(rows), TAXES_MAX), np.int64)
    for nth in range(taxes):
        tax = rows["tax"][:, nth]
        factor, half, divisor = tax["factor"], tax["half"], tax["divisor"]
        before = rows["numbers"][everything, tax["place"]]
        base = before + charge
        amount = (base * factor + half) // divisor - (before * factor + half) // divisor
        # The ledger has no legs of zero.
        fits &= (base <= tax["most"]) & ((amount != 0) | (factor == 0))
        included = tax["included"] != 0
        earned -= np.where(included, amount, 0)
        debited += np.where(included, 0, amount)
        amounts[:, 2 + nth] = amount
        bases[:, nth] = np.where(factor == 0, 0, base)
    balance = rows["balance_micro"] - debited
    fits &= (balance > rows["floor_micro"]) & (earned != 0)
    taken &= fits | ~moves
    amounts[:, 0], amounts[:, 1] = -debited, earned
    rows["at_ms"] = np.where(taken, at_ms, start_ms)
    moved = np.flatnonzero(taken & moves)
    _move(rows, moved, wh, energy, balance, bases)
    return Taken(taken, start_ms, position, energy, amounts, bases)


def _move(
    rows: Rows, moved: Integers, wh: Integers, energy: Integers, balance: Integers, bases: Integers
) -> None:
    """Count what was consumed and charged; `moved`: the places of the rows that it happened to."""
    numbers, energy = rows["numbers"], energy[moved]
    rows["wh"][moved] = numbers[moved, 0] = wh[moved]
    rows["consumed_wh"][moved] += energy
    rows["balance_micro"][moved] = balance[moved]
    numbers[moved, rows["month_at"][moved]] += energy
    numbers[moved, rows["year_at"][moved]] += energy
    for nth in range(TAXES_MAX):
        taxed = moved[rows["taxes"][moved] > nth]
        numbers[taxed, rows["tax"]["place"][taxed, nth]] = bases[taxed, nth]


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
    pricing = _pricing_of(terms.tariff, cell, position)
    numbers, power = position.numbers(), position.installation.max_power_w
    if pricing is None or len(numbers) > NUMBERS_MAX or (power or 0) > POWER_MAX_W:
        return None
    balance = position.totals.balance_micro
    if balance > AMOUNT_MAX or not all(0 <= each <= AMOUNT_MAX for each in numbers):
        return None
    used_wh = position.totals.consumed_wh[cell.position_key]
    return _steady(
        pricing, position.keys(), numbers, position.at_ms, used_wh, balance, floor_micro, power
    )


def _steady(
    pricing: Pricing,
    keys: tuple[object, ...],
    numbers: list[int],
    at_ms: int,
    consumed_wh: int,
    balance_micro: int,
    floor_micro: int,
    max_power_w: int | None,
) -> Steady:
    layout = pricing.layout(keys)
    row = (
        at_ms,
        numbers[0],
        consumed_wh,
        balance_micro,
        floor_micro,
        -1 if max_power_w is None else max_power_w,
        pricing.end_ms,
        pricing.upper_wh,
        pricing.price_micro_per_wh,
        layout.month_at,
        layout.year_at,
        len(numbers),
        len(pricing.cell.energy_taxes),
        list(layout.taxes),
        numbers + [0] * (NUMBERS_MAX - len(numbers)),
    )
    return Steady(pricing, row)


def reopen(
    tariff: Tariff, debit: Debit, balance_micro: int, max_power_w: int | None
) -> Steady | None:
    """The account just before a debit, as far as other debits of that energy need it: its row, then
    moved by `take`, counts no month, year or tax that is not of this debit.

    `balance_micro`: before it, in the order of instants. Only what leaves it above zero is taken.
    """
    cell = cell_at(tariff, debit.from_ms)
    pricing = _pricing(tariff, cell, debit.position_wh)
    numbers = [debit.from_wh, 0, 0, *debit.bases]
    if pricing is None or len(debit.bases) != len(cell.energy_taxes):
        return None
    if (max_power_w or 0) > POWER_MAX_W or max(balance_micro, *numbers) > AMOUNT_MAX:
        return None
    keys = (None, cell.month_key, cell.year_key, *(key for key, _ in cell.energy_taxes))
    return _steady(
        pricing, keys, numbers, debit.from_ms, debit.position_wh, balance_micro, 0, max_power_w
    )


def _pricing_of(tariff: Tariff, cell: Cell, position: Position) -> Pricing | None:
    consumed, taxed = position.totals.consumed_wh, position.totals.taxed_micro
    # The engine begins the counts of a period; here they only grow.
    if cell.month_key not in consumed or cell.year_key not in consumed:
        return None
    if any(key not in taxed for key, _ in cell.energy_taxes):
        return None
    return _pricing(tariff, cell, consumed[cell.position_key])


def _pricing(tariff: Tariff, cell: Cell, used_wh: int) -> Pricing | None:
    """`used_wh`: in the band and the period of the cell, before."""
    names = {tax.name for _, tax in cell.energy_taxes}
    if len(names) != len(cell.energy_taxes) or len(names) > TAXES_MAX:
        return None
    if not all(0 < tax.ppm <= PPM for _, tax in cell.energy_taxes):
        return None
    band = cell.band
    # The block of the next Wh: one that is full to its edge ends with it.
    block = bisect_left(band.upper_wh, used_wh + 1)
    if not 0 < band.prices[block] <= PRICE_MAX_MICRO:
        return None
    # Volume: from one block to the next the whole period is priced anew.
    if not band.graduated and bisect_left(band.upper_wh, used_wh) != block:
        return None
    found = tariff.pricings.get((cell.start_ms, block))
    if found is None:
        if len(tariff.pricings) >= MEMO_LIMIT:
            tariff.pricings.clear()
        upper = min(band.upper_wh[block], AMOUNT_MAX) if block < len(band.upper_wh) else AMOUNT_MAX
        end_ms = min(cell.end_ms, cell.day.end_ms - 1)
        found = Pricing(cell, band.prices[block], upper, end_ms)
        tariff.pricings[cell.start_ms, block] = found
    return found
