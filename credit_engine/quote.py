"""What an amount buys now, and what energy costs now (section 9)."""

from collections.abc import Callable
from dataclasses import dataclass

from credit_engine.days import Cell, cell_at, day_at
from credit_engine.errors import CreditError
from credit_engine.position import Totals
from credit_engine.rating import block_lines, share_of_top_up, tax_due, tax_increase
from credit_engine.terms import Terms

QUOTE_STEP_WH = 100
# Of what so much costs it is guessed how much an amount buys: 10 kWh.
_SAMPLE_STEPS = 100


@dataclass(frozen=True, slots=True)
class QuoteLine:
    """`name`: debt, owed, energy, a tax, or change; `wh` and the price with energy only."""

    name: str
    amount_micro: int
    wh: int | None = None
    price_micro_per_wh: int | None = None


@dataclass(frozen=True, slots=True)
class Quote:
    """The amounts of `lines` sum to `amount_micro`; `cost_micro` is the energy with its taxes."""

    at_ms: int
    amount_micro: int
    debt_micro: int
    owed_micro: int
    energy_wh: int
    cost_micro: int
    change_micro: int
    lines: tuple[QuoteLine, ...]


def quote(terms: Terms, totals: Totals, at_ms: int, amount_micro: int) -> Quote:
    """The lines of a top-up of `amount_micro` at `at_ms`, `totals` being those of that instant.

    Errors: free_energy, no_tariff.
    """
    cell = _cell(terms, at_ms)
    debt, owed, rest = _split(terms, totals, cell, amount_micro)
    energy = _bought_wh(totals, cell, rest)
    energy_lines = _energy_lines(totals, cell, energy)
    cost = sum(line.amount_micro for line in energy_lines)
    return Quote(
        at_ms=at_ms,
        amount_micro=amount_micro,
        debt_micro=debt,
        owed_micro=owed,
        energy_wh=energy,
        cost_micro=cost,
        change_micro=rest - cost,
        lines=(
            QuoteLine("debt", debt),
            QuoteLine("owed", owed),
            *energy_lines,
            QuoteLine("change", rest - cost),
        ),
    )


def bought_wh(terms: Terms, totals: Totals, at_ms: int, amount_micro: int) -> int:
    """The energy of a quote for an amount of which nothing is owed and no debt takes a share, as
    what is in a balance has paid both. Errors: free_energy, no_tariff.
    """
    return _bought_wh(totals, _cell(terms, at_ms), amount_micro)


def energy_cost(terms: Terms, totals: Totals, at_ms: int, energy_wh: int) -> tuple[QuoteLine, ...]:
    """The energy and tax lines of `energy_wh` from the present position. Errors: no_tariff."""
    return _energy_lines(totals, _cell(terms, at_ms), energy_wh)


def amount_for(terms: Terms, totals: Totals, at_ms: int, energy_wh: int) -> int:
    """The least top-up that leaves the cost of `energy_wh` after debt and what is owed.

    Errors: no_tariff.
    """
    cell = _cell(terms, at_ms)
    cost = _cost_micro(totals, cell, energy_wh)
    if cost == 0:
        return 0
    # What remains of an amount never falls as the amount rises: a share takes at most all of it.
    return 1 + _greatest(lambda amount: _split(terms, totals, cell, amount)[2] < cost)


def _cell(terms: Terms, at_ms: int) -> Cell:
    if day_at(terms.tariff, at_ms).version is None:
        raise CreditError(
            "no_tariff",
            "no tariff version is in force at that instant: ask for a later one",
            (terms.tariff.versions[0], "valid_from"),
        )
    return cell_at(terms.tariff, at_ms)


def _bought_wh(totals: Totals, cell: Cell, amount_micro: int) -> int:
    """The most energy, in whole steps, that costs no more than an amount. Errors: free_energy."""
    band, version = cell.band, cell.version
    if band.prices[-1] == 0:
        last = f"bands[{version.bands.index(band)}].blocks[{len(band.prices) - 1}].price"
        raise CreditError(
            "free_energy",
            "the last block of the band in force is free: no amount bounds its energy",
            (version, last),
        )
    sample = _cost_micro(totals, cell, _SAMPLE_STEPS * QUOTE_STEP_WH)
    return QUOTE_STEP_WH * _greatest(
        lambda steps: _cost_micro(totals, cell, steps * QUOTE_STEP_WH) <= amount_micro,
        near=amount_micro * _SAMPLE_STEPS // sample if sample > 0 else 1,
    )


def _split(terms: Terms, totals: Totals, cell: Cell, amount_micro: int) -> tuple[int, int, int]:
    debt = share_of_top_up(terms, totals, cell.day.month, amount_micro)
    owed = min(amount_micro - debt, max(0, -totals.balance_micro))
    return debt, owed, amount_micro - debt - owed


def _energy_lines(totals: Totals, cell: Cell, energy_wh: int) -> tuple[QuoteLine, ...]:
    position = totals.consumed_wh.get(cell.position_key, 0)
    blocks = block_lines(cell.band, position, energy_wh) if energy_wh else []
    charge = sum(line["amount_micro"] for line in blocks)
    lines = [
        QuoteLine("energy", line["amount_micro"], line["wh"], line["price_micro_per_wh"])
        for line in blocks
    ]
    for key, tax in cell.energy_taxes:
        if not tax.included:
            base = totals.taxed_micro.get(key, 0)
            lines.append(QuoteLine(tax.name, tax_due(tax, base + charge) - tax_due(tax, base)))
    return tuple(lines)


def _cost_micro(totals: Totals, cell: Cell, energy_wh: int) -> int:
    """The sum of the energy lines, without writing them: a search asks for several."""
    position, total = totals.consumed_wh.get(cell.position_key, 0), cell.band.total_micro
    charge = total(position + energy_wh) - total(position)
    return charge + tax_increase(totals.taxed_micro, cell.energy_taxes, charge)


def _greatest(holds: Callable[[int], bool], near: int = 1) -> int:
    """The greatest number for which `holds`, given that it holds for 0 and then fails for good.

    The better the guess `near`, the fewer numbers are tried; it changes nothing else.
    """
    step = 1
    if holds(near):
        lower, upper = near, near + 1
        while holds(upper):
            lower, step = upper, step * 2
            upper += step
    else:
        lower, upper = near - 1, near
        while lower > 0 and not holds(lower):
            upper, step = lower, step * 2
            lower = max(0, lower - step)
    while upper - lower > 1:
        middle = (lower + upper) // 2
        lower, upper = (middle, upper) if holds(middle) else (lower, middle)
    return lower
