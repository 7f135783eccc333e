"""The thresholds that somebody must hear of, and when an account crossed them.

Law: the levels after a settlement follow from those before it and the account as all facts give
it; a threshold whose level stays brings nothing, so a repeat or a re-rating never crosses twice.

| threshold  | begins                                | ends                                     |
|------------|---------------------------------------|------------------------------------------|
| low_credit | balance at or below the threshold (1) | balance above five quarters of it        |
| zero       | balance at or below zero              | balance above zero                       |
| emergency  | emergency credit in use (section 8)   | no longer in use                         |
| supply     | disconnected, or protected from it    | connected                                |

(1) An amount, or what the next days are expected to cost (`forecast`), whichever is more.

A supply that is cut stays `disconnected` in a protected window: the window restores nothing.
Where only replayed readings were settled nothing begins; what they brought is told by the next.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from credit_engine.outcome import Posting, Status, Supply
from credit_engine.protection import Protection, protection_of
from credit_engine.terms import Terms

Threshold = Literal["low_credit", "zero", "emergency", "supply"]
Kind = Literal[
    "low_credit",
    "low_credit_cleared",
    "zero",
    "credit_restored",
    "emergency_begun",
    "emergency_ended",
    "connected",
    "protected",
    "disconnected",
]
# What crossed a threshold when no posting did.
WINDOW = "window"  # an edge of a non-disconnection window
REQUEST = "emergency_request"
FORECAST = "forecast"  # the days ahead are expected to cost more or less than before
HISTORY = "history"  # facts of the past or terms that are other now: no posting crosses
_FROM_BEST: Sequence[Supply] = ("connected", "protected", "disconnected")


@dataclass(frozen=True, slots=True)
class Levels:
    """On which side of each threshold an account stands. `supply`: as decided, holds included."""

    low_credit: bool
    zero: bool
    emergency: bool
    supply: Supply


@dataclass(frozen=True, slots=True)
class Crossing:
    """`at_ms`: the instant of the posting, edge or request that crossed. `balance_micro`: just
    after it. `cause`: the key of that posting, `window`, `emergency_request`, `forecast`,
    `history`, or what holds the supply.
    """

    threshold: Threshold
    kind: Kind
    at_ms: int
    balance_micro: int
    cause: str


class Step(NamedTuple):
    """A posting that moved the balance, and the balance on both of its sides. `new`: this
    settlement brought or corrected it.
    """

    at_ms: int
    before_micro: int
    after_micro: int
    key: str
    new: bool


def low_credit_edge(amount_micro: int, expected_micro: int) -> int:
    """The balance to warn at: an amount, or what the days to be warned of are expected to cost."""
    return max(amount_micro, expected_micro)


def rearm_micro(low_credit_micro: int) -> int:
    """Up to here an account that was low stays low: a balance that wavers is one crossing."""
    return low_credit_micro + low_credit_micro // 4


def levels(
    before: Levels, status: Status, low_credit_micro: int, *, held: bool, may_worsen: bool
) -> Levels:
    """The levels of an account with this status.

    `held`: a hold protects the supply as a window does. `may_worsen` False: nothing in this
    settlement may be the cause of an alert or a cut; the next one decides.
    """
    balance = status.balance_micro
    low_edge = rearm_micro(low_credit_micro) if before.low_credit else low_credit_micro
    supply: Supply = status.supply
    if supply == "disconnected" and held:
        supply = "protected"
    if not may_worsen:
        supply = _FROM_BEST[min(_FROM_BEST.index(supply), _FROM_BEST.index(before.supply))]
    if supply == "protected" and before.supply == "disconnected":
        supply = "disconnected"
    return Levels(
        balance <= low_edge and (may_worsen or before.low_credit),
        balance <= 0 and (may_worsen or before.zero),
        status.emergency_in_use and (may_worsen or before.emergency),
        supply,
    )


def steps(balance_micro: int, postings: Iterable[Posting], new: Container[str]) -> list[Step]:
    """How postings moved the balance, from what it was before them; `new`: keys written now."""
    path: list[Step] = []
    for posting in postings:
        moved = sum(amount for account, amount in posting.legs if account == "customer")
        if moved:
            path.append(
                Step(
                    posting.at_ms,
                    balance_micro,
                    balance_micro + moved,
                    posting.key,
                    posting.key in new,
                )
            )
            balance_micro += moved
    return path


def crossings(
    terms: Terms,
    before: Levels,
    after: Levels,
    low_credit_micro: int,
    path: Sequence[Step],
    status: Status,
    since_ms: int,
    hold: str | None,
    *,
    forecast: bool = False,
) -> tuple[Crossing, ...]:
    """What was crossed between two settlements, in order of time.

    `path`: the steps that gave `status`. `since_ms`: where `before` stood. `hold`: the hold that
    protects the supply, or whose end lets it be cut. `forecast`: the threshold of low credit is of
    a new forecast.
    """
    found: list[Crossing] = []
    if after.low_credit != before.low_credit:
        edge = low_credit_micro if after.low_credit else rearm_micro(low_credit_micro)
        crossed = _last(path, after.low_credit, edge, status)
        if forecast and crossed[2] == HISTORY:
            crossed = (*crossed[:2], FORECAST)
        kind: Kind = "low_credit" if after.low_credit else "low_credit_cleared"
        found.append(Crossing("low_credit", kind, *crossed))
    if after.zero != before.zero:
        crossed = _last(path, after.zero, 0, status)
        kind = "zero" if after.zero else "credit_restored"
        found.append(Crossing("zero", kind, *crossed))
    if after.emergency != before.emergency:
        asked = after.emergency and terms.emergency is not None and terms.emergency.on_request
        crossed = (
            (status.at_ms, status.balance_micro, REQUEST)
            if asked
            else _last(path, after.emergency, 0, status)
        )
        kind = "emergency_begun" if after.emergency else "emergency_ended"
        found.append(Crossing("emergency", kind, *crossed))
    if after.supply != before.supply:
        crossed = _supply(terms, before, after, path, status, since_ms, hold)
        found.append(Crossing("supply", after.supply, *crossed))
    # Stable: at one instant in the order of the thresholds.
    return tuple(sorted(found, key=lambda crossing: crossing.at_ms))


def _last(
    path: Sequence[Step], below: bool, edge_micro: int, status: Status
) -> tuple[int, int, str]:
    """The last step across an edge of the balance: to at or below it, or to above it.

    A balance rises over an edge by an entry that is new; where an old one stands for it again,
    facts before it have changed, and that is news of now.
    """
    for step in reversed(path):
        if (below or step.new) and (step.before_micro <= edge_micro) != below == (
            step.after_micro <= edge_micro
        ):
            return step.at_ms, step.after_micro, step.key
    return status.at_ms, status.balance_micro, HISTORY


def _supply(
    terms: Terms,
    before: Levels,
    after: Levels,
    path: Sequence[Step],
    status: Status,
    since_ms: int,
    hold: str | None,
) -> tuple[int, int, str]:
    emergency = terms.emergency
    limit = 0 if emergency is None else emergency.limit_micro
    edge = -limit if status.emergency_in_use else 0
    if after.supply == "connected":
        crossed = _last(path, False, edge, status)
        if crossed[2] == HISTORY and after.emergency and not before.emergency:
            return status.at_ms, status.balance_micro, REQUEST
        return crossed
    fell = _last(path, True, edge, status)
    if hold is not None:
        return fell if fell[2] != HISTORY else (status.at_ms, status.balance_micro, hold)
    # The balance alone does not cut inside a window: what was due waits for the edge.
    begin_ms = since_ms if fell[2] == HISTORY else fell[0]
    if before.supply == "protected":
        begin_ms = max(begin_ms, since_ms)
    protection = protection_of(terms.tariff, terms.non_disconnection)
    wanted = after.supply == "protected"
    at_ms = _first(protection, begin_ms, status.at_ms, lambda ms: protection.holds(ms) == wanted)
    if at_ms is None or (at_ms == begin_ms and fell[2] == HISTORY):
        return status.at_ms, status.balance_micro, HISTORY
    if at_ms == fell[0]:
        return fell
    balance = next((step.after_micro for step in reversed(path) if step.at_ms <= at_ms), None)
    return at_ms, status.balance_micro if balance is None else balance, WINDOW


def _first(
    protection: Protection, begin_ms: int, until_ms: int, holds: Callable[[int], bool]
) -> int | None:
    """The first instant from `begin_ms` on that satisfies, stepping from edge to edge."""
    at_ms: int | None = begin_ms
    while at_ms is not None and at_ms <= until_ms:
        if holds(at_ms):
            return at_ms
        at_ms = protection.next_edge(at_ms)
    return None
