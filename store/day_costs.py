"""What finished days cost, kept by account and brought up to date by what its ledger has more.

An account's ledger is two tables (ADR 0019), and whoever writes to either holds its state row, so
that numbers grow as they are committed. `ledger_posting` takes whatever corrects the past: what has
a number above the newest that was known is all that came since. `energy_debit` takes the energy of
readings after all others, within the day of the last register or a later one: never of a finished
day. So each debit is summed once.
"""

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, NamedTuple

from credit_engine.days import day_of
from credit_engine.terms import Tariff
from store import binary

# Accounts whose days are kept: some 400 bytes each. Beyond it those are forgotten who came first.
KEPT = 250_000
_EPOCH = date(1970, 1, 1)
_DAY = timedelta(days=1)
# The parameters of `costs_of_days`, and what they are arrays of.
_ARRAYS: Mapping[str, Callable[[Sequence[int]], bytes]] = {
    "accounts": binary.int8_array,
    "known": binary.int8_array,
    "new_days": binary.int4_array,
    "from_ms": binary.int8_array,
    "to_ms": binary.int8_array,
    "edge_accounts": binary.int8_array,
    "edge_days": binary.int4_array,
    "edge_ms": binary.int8_array,
}


class Finished(NamedTuple):
    """The days of an account that count for its forecast, as of the newest number of its ledger."""

    account_id: int
    newest: int
    days: Sequence[date]
    tariff: Tariff


class _Kept(NamedTuple):
    """Micro-units of each day from the first on, by all of the ledger up to the newest number."""

    newest: int
    first: date
    costs: "array[int]"

    def end(self) -> date:
        return self.first + timedelta(days=len(self.costs))


@dataclass(slots=True)
class DayCosts:
    """Costs of one process; every call comes from one event loop."""

    limit: int = KEPT
    _kept: dict[int, _Kept] = field(default_factory=dict)

    def of(self, asked: Finished) -> Sequence[int] | None:
        """Micro-units of each day; None where they are to be learnt."""
        if not asked.days:
            return ()
        kept = self._kept.get(asked.account_id)
        if kept is None or kept.newest != asked.newest or kept.first != asked.days[0]:
            return None
        return kept.costs if len(kept.costs) == len(asked.days) else None

    def missing(self, asked: Iterable[Finished]) -> dict[str, bytes]:
        """The parameters of `costs_of_days`: what is not known of these accounts."""
        return {name: _ARRAYS[name](values) for name, values in self._wanted(asked).items()}

    def _wanted(self, asked: Iterable[Finished]) -> dict[str, list[int]]:
        wanted: dict[str, list[int]] = {name: [] for name in _ARRAYS}
        for each in asked:
            known, new = self._known(each)
            tariff, end = each.tariff, each.days[-1] + _DAY
            wanted["accounts"].append(each.account_id)
            wanted["known"].append(known)
            wanted["new_days"].append((new - _EPOCH).days)
            wanted["from_ms"].append(day_of(tariff, each.days[0]).start_ms)
            wanted["to_ms"].append(day_of(tariff, end).start_ms)
            if new < end:
                for place in range((end - new).days + 1):
                    day = new + timedelta(days=place)
                    wanted["edge_accounts"].append(each.account_id)
                    wanted["edge_days"].append((day - _EPOCH).days - 1)
                    wanted["edge_ms"].append(day_of(tariff, day).start_ms)
        return wanted

    def learn(self, asked: Mapping[int, Finished], found: Iterable[Sequence[Any]]) -> None:
        """Add rows of `costs_of_days`: account, its newest number, days and their sums."""
        for account_id, newest, days, micros in found:
            more: dict[int, int] = dict(zip(days or (), micros or (), strict=True))
            _, new = self._known(asked[account_id])
            kept = self._kept.pop(account_id, None)
            costs = array("q")
            for day in asked[account_id].days:
                before = kept.costs[(day - kept.first).days] if kept and day < new else 0
                costs.append(before + more.get((day - _EPOCH).days, 0))
            while len(self._kept) >= self.limit:
                del self._kept[next(iter(self._kept))]
            self._kept[account_id] = _Kept(newest, asked[account_id].days[0], costs)

    def _known(self, asked: Finished) -> tuple[int, date]:
        """The newest number up to which days are known, and the first that is not known at all."""
        first, end = asked.days[0], asked.days[-1] + _DAY
        kept = self._kept.get(asked.account_id)
        if kept is None or kept.first > first:
            return 0, first
        return kept.newest, max(first, min(kept.end(), end))
