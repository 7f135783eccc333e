"""What finished days cost, kept by account for as long as its ledger proves that nothing changed.

An account's ledger is two tables (ADR 0019), and whoever writes to either holds its state row, so
that numbers grow as they are committed. `ledger_posting` takes whatever corrects the past: its
newest number for an account is the proof. `energy_debit` takes the energy of readings after all
others, within the day of the last register or a later one: never of a finished day.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, NamedTuple

from credit_engine.days import midnight_ms
from credit_engine.terms import Tariff

# Accounts whose days are kept: some 400 bytes each. Beyond it those are forgotten who came first.
KEPT = 250_000
_EPOCH = date(1970, 1, 1)


class Finished(NamedTuple):
    """The days of an account that count for its forecast, as of the newest number of its ledger."""

    account_id: int
    newest: int | None
    days: Sequence[date]
    tariff: Tariff

    def between_ms(self) -> tuple[int, int]:
        """From the first midnight of the days to the last."""
        zone = self.tariff.zone
        end = self.days[-1] + timedelta(days=1)
        return midnight_ms(zone, self.days[0]), midnight_ms(zone, end)


@dataclass(slots=True)
class DayCosts:
    """Costs of one process; every call comes from one event loop."""

    limit: int = KEPT
    # By account: the newest number, the first day, and the micro-units of each day.
    _kept: "dict[int, tuple[int | None, date, array[int]]]" = field(default_factory=dict)

    def of(self, asked: Finished) -> Sequence[int] | None:
        """Micro-units of each day; None where they are to be learnt."""
        if not asked.days:
            return ()
        kept = self._kept.get(asked.account_id)
        if kept is None or kept[0] != asked.newest or kept[1] != asked.days[0]:
            return None
        return kept[2] if len(kept[2]) == len(asked.days) else None

    def learn(self, asked: Mapping[int, Finished], found: Iterable[Sequence[Any]]) -> None:
        """Keep rows of `costs_of_days`: account, its newest number, days and their sums."""
        for account_id, newest, days, micros in found:
            sums = dict(zip(days or (), micros or (), strict=True))
            first = asked[account_id].days[0]
            places = range((first - _EPOCH).days, (asked[account_id].days[-1] - _EPOCH).days + 1)
            self._kept.pop(account_id, None)
            while len(self._kept) >= self.limit:
                del self._kept[next(iter(self._kept))]
            costs = array("q", [sums.get(place, 0) for place in places])
            self._kept[account_id] = newest, first, costs
