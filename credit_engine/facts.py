"""What is known about an account, in any order. Times are UTC milliseconds, money is µ."""

from dataclasses import dataclass

from credit_engine.terms import Installation


@dataclass(frozen=True, slots=True)
class Reading:
    """Active-import total (1.8.0). `meter_id` None: the meter installed at that time."""

    at_ms: int
    wh: int
    meter_id: str | None = None


@dataclass(frozen=True, slots=True)
class TopUp:
    """`rounding_micro`: of cash, what was counted above the amount (below it: negative), at most
    half a coin. The account is credited with the amount all the same.
    """

    id: str
    at_ms: int
    amount_micro: int
    channel: str = "payment"
    rounding_micro: int = 0


@dataclass(frozen=True, slots=True)
class RecordedTopUp:
    """A top-up from before the position, with the split that the ledger holds for it (the net
    legs of its key: `customer`, `debt` and `cash_rounding`).
    """

    at_ms: int
    channel: str
    credited_micro: int
    debt_micro: int
    rounding_micro: int = 0


@dataclass(frozen=True, slots=True)
class Reversal:
    """`recorded` is used only when the top-up itself is not among the facts of the same call.

    The split of a top-up from before the position cannot change by facts after it, so the ledger
    and a full replay agree on it: the answer stays a function of the facts, and a position need
    not remember every top-up.
    """

    top_up_id: str
    at_ms: int
    recorded: RecordedTopUp | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """The old meter closes with `closing_wh`, judged as its reading at `meter.opened_at_ms`."""

    closing_wh: int
    meter: Installation

    @property
    def at_ms(self) -> int:
        return self.meter.opened_at_ms


@dataclass(frozen=True, slots=True)
class EmergencyRequest:
    at_ms: int


@dataclass(frozen=True, slots=True)
class Adjustment:
    """An operator's correction of the balance: + credits it, - debits it, never zero.

    It takes no share for debt and buys no token. `to_debt`: the balance is credited with what the
    debt grows by (never negative), so that the account owes it by its debt's rules. At one instant
    it comes after the reversals, in order of id. The scenario file of section 10 has no
    adjustments: they are facts of the books.
    """

    id: str
    at_ms: int
    amount_micro: int
    reason: str
    to_debt: bool = False


Fact = Reading | TopUp | Reversal | Exchange | EmergencyRequest | Adjustment
