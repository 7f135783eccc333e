"""What an account agreed to: its tariff, debt, emergency credit and protected hours.

Plain values, validated by `credit_engine.tariff`. Prices are µ per Wh, taxes and shares are parts
per million, wall-clock times are minutes of the day.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from credit_engine.days import Cell, Day
    from credit_engine.steady import Pricing

HOLIDAY = 7  # the eighth "day of the week"; Monday is 0
MINUTES_PER_DAY = 1440


@dataclass(frozen=True, slots=True)
class Window:
    """A weekly stretch of wall-clock time; `to_minute` is excluded, and before `from_minute` it
    lies on the day after.
    """

    days: frozenset[int]
    from_minute: int
    to_minute: int


@dataclass(frozen=True, slots=True)
class Band:
    """A time-of-use band with its blocks: `upper_wh[i]` is the upper edge of block `i`; the last
    block has none, so `prices` is one longer.
    """

    name: str
    method: Literal["graduated", "volume"]
    upper_wh: tuple[int, ...]
    prices: tuple[int, ...]
    windows: tuple[Window, ...] = ()
    # Charge of all whole blocks below block i: graduated charges need one product, not a sum.
    below_micro: tuple[int, ...] = field(init=False, repr=False, compare=False)
    graduated: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        below, lower = [0], 0
        for upper, price in zip(self.upper_wh, self.prices, strict=False):
            below.append(below[-1] + (upper - lower) * price)
            lower = upper
        object.__setattr__(self, "below_micro", tuple(below))
        object.__setattr__(self, "graduated", self.method == "graduated")

    def total_micro(self, consumed_wh: int) -> int:
        """Section 4, F: the price of the first `consumed_wh` of a period."""
        block = bisect_left(self.upper_wh, consumed_wh)
        if not self.graduated:
            return consumed_wh * self.prices[block]
        lower = self.upper_wh[block - 1] if block else 0
        return self.below_micro[block] + (consumed_wh - lower) * self.prices[block]


@dataclass(frozen=True, slots=True)
class Tax:
    name: str
    ppm: int
    included: bool
    on_energy: bool
    on_standing: bool


@dataclass(frozen=True, slots=True)
class TariffVersion:
    """Immutable from `valid_from` (its local midnight) to the next version.

    `place`: the index in the list as it was given, for messages.
    """

    place: int
    valid_from: date
    period: Literal["month", "year"]
    bands: tuple[Band, ...]
    standing_micro: int = 0
    taxes: tuple[Tax, ...] = ()
    energy_taxes: tuple[Tax, ...] = field(init=False, repr=False, compare=False)
    standing_taxes: tuple[Tax, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        on_energy = tuple(tax for tax in self.taxes if tax.on_energy)
        on_standing = tuple(tax for tax in self.taxes if tax.on_standing)
        object.__setattr__(self, "energy_taxes", on_energy)
        object.__setattr__(self, "standing_taxes", on_standing)


@dataclass(frozen=True, slots=True, eq=False)
class Tariff:
    """Versions in order of `valid_from`, in one zone. Share one object among accounts: it keeps
    the days that were already worked out (a memo: cost, never meaning).
    """

    zone: ZoneInfo
    currency: str
    holidays: frozenset[date]
    versions: tuple[TariffVersion, ...]
    days: dict[date, Day] = field(default_factory=dict, init=False, repr=False)
    cells: dict[int, tuple[Cell, ...]] = field(default_factory=dict, init=False, repr=False)
    # By a cell's start and the block in it.
    pricings: dict[tuple[int, int], Pricing] = field(default_factory=dict, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class Debt:
    """Section 7. `share_ppm` of a top-up, at most `share_cap_micro` a local month; `daily_micro`
    at each local midnight. None: no such rule.
    """

    outstanding_micro: int = 0
    share_ppm: int | None = None
    share_cap_micro: int | None = None
    daily_micro: int | None = None


@dataclass(frozen=True, slots=True)
class Emergency:
    limit_micro: int
    on_request: bool


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """One account: a shared tariff and what is its own."""

    tariff: Tariff
    activated_at_ms: int
    debt: Debt = Debt()
    emergency: Emergency | None = None
    reconnect_at_micro: int | None = None
    non_disconnection: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True)
class Installation:
    """A meter at the supply point: its opening reading is `(opened_at_ms, opening_wh)`."""

    meter_id: str
    modulus_wh: int
    opened_at_ms: int
    opening_wh: int
    max_power_w: int | None = None
