"""What the engine answers: postings, verdicts on readings, positions to keep, and the supply."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from credit_engine.facts import Exchange, Reading
from credit_engine.position import Position, Totals

Judgement = Literal[
    "accepted",
    "duplicate",
    "conflict",
    "before_installation",
    "not_installed",
    "register_decreased",
    "implausible",
]
Supply = Literal["connected", "protected", "disconnected"]
PostingKind = Literal[
    "opening_debt", "energy", "standing", "daily_debt", "top_up", "reversal", "adjustment"
]
Legs = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Posting:
    """One ledger transaction, as all facts give it: `legs` (ledger account, signed µ) sum to zero.

    `customer`: + is the customer's credit, and the sum over all postings is the balance.
    `debt`: the outstanding debt is minus its sum. `revenue:energy`, `revenue:standing`,
    `tax:NAME`, `clearing:CHANNEL`, `cash_rounding`, `opening`, `adjustment`: the other side.
    An included tax moves from revenue to tax and never touches the customer. `charge_micro`: the
    charge before taxes (0 for kinds without). `key` names the place of the posting, never its
    amounts, so that a corrected amount is found again by it.
    """

    key: str
    kind: PostingKind
    at_ms: int
    local_day: date
    band: str | None
    energy_wh: int
    charge_micro: int
    legs: Legs
    explanation: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`fact` is the reading, or the exchange whose closing value was judged as a reading."""

    fact: Reading | Exchange
    meter_id: str
    at_ms: int
    wh: int
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class Status:
    """The account at `at_ms`, after all postings of that instant (section 8).

    `emergency_available`: a request at this instant would be granted. `next_change_ms`: the next
    instant at which time alone may change anything: a local midnight with a charge, the start of
    a tariff version, an edge of a non-disconnection window while the supply is not connected.
    """

    at_ms: int
    balance_micro: int
    debt_outstanding_micro: int
    supply: Supply
    emergency_in_use: bool
    emergency_available: bool
    next_change_ms: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """`position`: the new anchor, after the last accepted reading up to `until`.

    `postings`: every posting after the given position and up to `until`, in the order of section
    7; the same call with more facts may give others (`settlement.settle` finds the difference).
    `verdicts`: one per reading and exchange, in the order given. `checkpoints`: the position after
    the first accepted reading of each local day, and at each instant that was wanted. `totals`:
    after all postings, for quotes.
    """

    position: Position
    postings: tuple[Posting, ...]
    verdicts: tuple[Verdict, ...]
    checkpoints: tuple[Position, ...]
    status: Status
    totals: Totals
