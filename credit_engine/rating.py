"""Charges, taxes and shares: the only arithmetic on money, and the postings that it makes.

`Books` is the account while it is being rated. Laws: the legs of each posting sum to zero; the
balance is the sum of all `customer` legs, the outstanding debt minus the sum of all `debt` legs.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

from credit_engine.consumption import Interval
from credit_engine.days import Cell, Day, Taxed
from credit_engine.facts import Adjustment, RecordedTopUp, Reversal, TopUp
from credit_engine.outcome import Legs, Posting, PostingKind
from credit_engine.position import Totals
from credit_engine.terms import Band, Tax, Terms

PPM = 1_000_000


def tax_due(tax: Tax, base_micro: int) -> int:
    """Section 6: what is due on the charges of a month so far, rounded half up."""
    if tax.included:
        return (2 * base_micro * tax.ppm + PPM + tax.ppm) // (2 * (PPM + tax.ppm))
    return (2 * base_micro * tax.ppm + PPM) // (2 * PPM)


def block_lines(band: Band, consumed_wh: int, energy_wh: int) -> list[dict[str, int]]:
    """How `energy_wh` from the position `consumed_wh` falls into blocks; `volume` has one line, at
    the price that the whole period now has.
    """
    end_wh = consumed_wh + energy_wh
    if not band.graduated:
        price = band.prices[bisect_left(band.upper_wh, end_wh)]
        amount = band.total_micro(end_wh) - band.total_micro(consumed_wh)
        return [{"wh": energy_wh, "price_micro_per_wh": price, "amount_micro": amount}]
    lines = []
    while consumed_wh < end_wh:
        block = bisect_left(band.upper_wh, consumed_wh + 1)
        upper = band.upper_wh[block] if block < len(band.upper_wh) else end_wh
        wh, price = min(upper, end_wh) - consumed_wh, band.prices[block]
        lines.append({"wh": wh, "price_micro_per_wh": price, "amount_micro": wh * price})
        consumed_wh += wh
    return lines


def tax_line(tax: Tax, base_micro: int, due_micro: int, amount_micro: int) -> dict[str, Any]:
    """`base_micro`, `due_micro`: of the month, with this charge."""
    return {
        "name": tax.name,
        "ppm": tax.ppm,
        "included": tax.included,
        "base_micro": base_micro,
        "due_micro": due_micro,
        "amount_micro": amount_micro,
    }


def energy_key(start_ms: int, end_ms: int) -> str:
    """The key of the posting of a segment's energy."""
    return f"energy:{start_ms}-{end_ms}"


def explain_energy(
    meter_id: str,
    registers: tuple[int, int, int, int],
    segment: tuple[int, int],
    cell: Cell,
    position_wh: int,
    blocks: Sequence[Mapping[str, int]],
    charge_micro: int,
    taxes: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """A debit of energy down to its registers; `registers`: instant and Wh of either end."""
    from_ms, from_wh, to_ms, to_wh = registers
    return {
        "meter": meter_id,
        "registers": {
            "from": {"at_ms": from_ms, "wh": from_wh},
            "to": {"at_ms": to_ms, "wh": to_wh},
        },
        "segment": {"from_ms": segment[0], "to_ms": segment[1]},
        "band": cell.band.name,
        "valid_from": cell.version.valid_from.isoformat(),
        "period": cell.position_key[0],
        "position_wh": position_wh,
        "method": cell.band.method,
        "blocks": blocks,
        "charge_micro": charge_micro,
        "taxes": taxes,
    }


def tax_increase(taxed: Mapping[Any, int], taxes: Sequence[Taxed], charge_micro: int) -> int:
    """What a charge adds to the taxes that are not included."""
    increase = 0
    for key, tax in taxes:
        if not tax.included:
            base = taxed.get(key, 0)
            increase += tax_due(tax, base + charge_micro) - tax_due(tax, base)
    return increase


def share_of_top_up(terms: Terms, totals: "Totals | Books", month: str, amount_micro: int) -> int:
    """Section 7: what debt takes of a top-up in a local month."""
    debt = terms.debt
    if debt.share_ppm is None or totals.debt_micro <= 0:
        return 0
    taken = min(totals.debt_micro, amount_micro * debt.share_ppm // PPM)
    if debt.share_cap_micro is not None:
        used = totals.cap_used_micro if totals.cap_month == month else 0
        taken = min(taken, max(0, debt.share_cap_micro - used))
    return taken


class Books:
    """Totals that change, and the postings that changed them."""

    __slots__ = (
        "balance_micro",
        "cap_month",
        "cap_used_micro",
        "consumed_wh",
        "debt_micro",
        "postings",
        "splits",
        "taxed_micro",
        "terms",
    )

    def __init__(self, terms: Terms, totals: Totals) -> None:
        self.terms = terms
        self.balance_micro = totals.balance_micro
        self.debt_micro = totals.debt_micro
        self.cap_month = totals.cap_month
        self.cap_used_micro = totals.cap_used_micro
        self.consumed_wh = dict(totals.consumed_wh)
        self.taxed_micro = dict(totals.taxed_micro)
        self.postings: list[Posting] = []
        self.splits: dict[str, RecordedTopUp] = {}

    def totals(self, day: Day) -> Totals:
        """Without the periods that are over on `day`."""
        month, periods = day.month, (day.month, day.year)
        in_month = self.cap_used_micro != 0 and self.cap_month == month
        return Totals(
            balance_micro=self.balance_micro,
            debt_micro=self.debt_micro,
            cap_month=month if in_month else "",
            cap_used_micro=self.cap_used_micro if in_month else 0,
            consumed_wh={key: wh for key, wh in self.consumed_wh.items() if key[0] in periods},
            taxed_micro={key: base for key, base in self.taxed_micro.items() if key[0] == month},
        )

    def charge_energy(
        self, cell: Cell, interval: Interval, start_ms: int, end_ms: int, energy: int
    ) -> None:
        """Post the energy of `(start, end]`, a part of one cell; nothing if no energy."""
        if energy == 0:
            return
        consumed = self.consumed_wh
        position = consumed.get(cell.position_key, 0)
        band = cell.band
        charge = band.total_micro(position + energy) - band.total_micro(position)
        consumed[cell.month_key] = consumed.get(cell.month_key, 0) + energy
        consumed[cell.year_key] = consumed.get(cell.year_key, 0) + energy
        legs, tax_lines = self._debit_charge("revenue:energy", charge, cell.energy_taxes)
        explanation = explain_energy(
            interval.meter_id,
            (interval.start_ms, interval.from_wh, interval.end_ms, interval.to_wh),
            (start_ms, end_ms),
            cell,
            position,
            block_lines(band, position, energy),
            charge,
            tax_lines,
        )
        self.postings.append(
            Posting(
                energy_key(start_ms, end_ms),
                "energy",
                end_ms,
                cell.day.date,
                band.name,
                energy,
                charge,
                legs,
                explanation,
            )
        )

    def charge_standing(self, day: Day) -> None:
        version = day.version
        if version is None or not version.standing_micro:
            return
        charge = version.standing_micro
        legs, tax_lines = self._debit_charge("revenue:standing", charge, day.standing_taxes)
        explanation = {
            "date": day.date.isoformat(),
            "valid_from": version.valid_from.isoformat(),
            "charge_micro": charge,
            "taxes": tax_lines,
        }
        key = f"standing:{day.date.isoformat()}"
        self._post(key, "standing", day.start_ms, day, legs, explanation, charge)

    def take_daily_debt(self, day: Day) -> None:
        amount = min(self.debt_micro, self.terms.debt.daily_micro or 0)
        if amount <= 0 or self.balance_micro <= 0:
            return
        explanation = {"date": day.date.isoformat(), "debt_before_micro": self.debt_micro}
        self.balance_micro -= amount
        self.debt_micro -= amount
        legs = (("customer", -amount), ("debt", amount))
        key = f"daily_debt:{day.date.isoformat()}"
        self._post(key, "daily_debt", day.start_ms, day, legs, explanation)

    def credit(self, top_up: TopUp, day: Day) -> None:
        taken = share_of_top_up(self.terms, self, day.month, top_up.amount_micro)
        rest = top_up.amount_micro - taken
        explanation = {
            "amount_micro": top_up.amount_micro,
            "credited_micro": rest,
            "debt_micro": taken,
            "debt_before_micro": self.debt_micro,
            "share_ppm": self.terms.debt.share_ppm or 0,
        }
        if self.terms.debt.share_cap_micro is not None:
            if self.cap_month != day.month:
                self.cap_month, self.cap_used_micro = day.month, 0
            self.cap_used_micro += taken
        self.balance_micro += rest
        self.debt_micro -= taken
        rounding = top_up.rounding_micro
        if rounding:
            explanation["cash_rounding_micro"] = rounding
        split = RecordedTopUp(top_up.at_ms, top_up.channel, rest, taken, rounding)
        self.splits[top_up.id] = split
        legs = _legs(
            ("customer", rest),
            ("debt", taken),
            ("cash_rounding", rounding),
            (f"clearing:{top_up.channel}", -(top_up.amount_micro + rounding)),
        )
        self._post(f"top_up:{top_up.id}", "top_up", top_up.at_ms, day, legs, explanation)

    def reverse(self, reversal: Reversal, split: RecordedTopUp, day: Day) -> None:
        """What the month's cap had used stays used."""
        self.balance_micro -= split.credited_micro
        self.debt_micro += split.debt_micro
        explanation = {
            "top_up": reversal.top_up_id,
            "top_up_at_ms": split.at_ms,
            "credited_micro": split.credited_micro,
            "debt_micro": split.debt_micro,
        }
        legs = _legs(
            ("customer", -split.credited_micro),
            ("debt", -split.debt_micro),
            ("cash_rounding", -split.rounding_micro),
            (
                f"clearing:{split.channel}",
                split.credited_micro + split.debt_micro + split.rounding_micro,
            ),
        )
        key = f"reversal:{reversal.top_up_id}"
        self._post(key, "reversal", reversal.at_ms, day, legs, explanation)

    def adjust(self, adjustment: Adjustment, day: Day) -> None:
        """An operator's correction: the balance alone, or the balance against the debt."""
        amount = adjustment.amount_micro
        explanation: dict[str, Any] = {"amount_micro": amount, "reason": adjustment.reason}
        if adjustment.to_debt:
            explanation |= {"to_debt": True, "debt_before_micro": self.debt_micro}
            self.debt_micro += amount
        self.balance_micro += amount
        against = "debt" if adjustment.to_debt else "adjustment"
        legs = _legs(("customer", amount), (against, -amount))
        key = f"adjustment:{adjustment.id}"
        self._post(key, "adjustment", adjustment.at_ms, day, legs, explanation)

    def open_debt(self, day: Day) -> None:
        """The counterpart of the debt that the account began with; it is in the totals already."""
        amount = self.debt_micro
        if amount:
            legs = (("debt", -amount), ("opening", amount))
            at_ms = self.terms.activated_at_ms
            self._post("opening_debt", "opening_debt", at_ms, day, legs, {"debt_micro": amount})

    def balance_within(self, cell: Cell, energy_wh: int) -> int:
        """The balance if `energy_wh` more were consumed in `cell`; nothing is posted."""
        position = self.consumed_wh.get(cell.position_key, 0)
        band = cell.band
        charge = band.total_micro(position + energy_wh) - band.total_micro(position)
        return (
            self.balance_micro - charge - tax_increase(self.taxed_micro, cell.energy_taxes, charge)
        )

    def _debit_charge(
        self, revenue: str, charge: int, taxes: Sequence[Taxed]
    ) -> tuple[Legs, list[dict[str, Any]]]:
        if not taxes:
            self.balance_micro -= charge
            return ((("customer", -charge), (revenue, charge)) if charge else ()), []
        debited = earned = charge
        due: dict[str, int] = {}
        lines = []
        for key, tax in taxes:
            base = self.taxed_micro.get(key, 0)
            before, after = tax_due(tax, base), tax_due(tax, base + charge)
            self.taxed_micro[key] = base + charge
            amount = after - before
            account = f"tax:{tax.name}"
            due[account] = due.get(account, 0) + amount
            if tax.included:
                earned -= amount
            else:
                debited += amount
            lines.append(tax_line(tax, base + charge, after, amount))
        self.balance_micro -= debited
        return _legs(("customer", -debited), (revenue, earned), *due.items()), lines

    def _post(
        self,
        key: str,
        kind: PostingKind,
        at_ms: int,
        day: Day,
        legs: Legs,
        explanation: Mapping[str, Any],
        charge_micro: int = 0,
    ) -> None:
        self.postings.append(
            Posting(key, kind, at_ms, day.date, None, 0, charge_micro, legs, explanation)
        )


def _legs(*legs: tuple[str, int]) -> Legs:
    return tuple(leg for leg in legs if leg[1])
