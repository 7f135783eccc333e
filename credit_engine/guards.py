"""Guards before a cut: what must be so, beside the balance, before a supply is cut off.

Each guard is one predicate over rules (a centre's settings) and facts of the account at an
instant. Every guard is asked, whatever the others say, so that "why was I cut" and "why was I not"
are both answered in full. A supply is cut when no guard stands. The fleet brake, which looks at a
whole centre, is not here: it asks after these.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from credit_engine.protection import Protection
from schemas.quantities import format_instant

Guard = Literal["reading", "hold", "payment", "notice", "outage", "window"]

# An order to cut that lives shorter than this reaches no meter: it waits for the window's end.
LEAST_LIFE_MS = 60 * 1000


@dataclass(frozen=True, slots=True)
class CutRules:
    """`reading_age_ms`, `notice_ms`: None where the centre asks for neither.

    `payment_ms`: how long money that is not credited yet keeps a supply on. `clock_margin_ms`: how
    far a meter's clock may be off; a cut is over so long before a non-disconnection window.
    """

    reading_age_ms: int | None
    notice_ms: int | None
    payment_ms: int
    clock_margin_ms: int


@dataclass(frozen=True, slots=True)
class CutFacts:
    """`read_ms`: the newest accepted reading, or the opening. `hold`: in force now, until
    `hold_until_ms` or a release. `payment_ms`: receipt of the oldest payment that is not credited.
    `notice_ms`: when notice was first given since the credit ran low. `outage`: the meter, its
    gateway or its transformer is without supply or silent. `window_ms`: the next
    non-disconnection window begins. None: there is none.
    """

    read_ms: int
    hold: int | None = None
    hold_until_ms: int | None = None
    payment_ms: int | None = None
    notice_ms: int | None = None
    outage: bool = False
    window_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What one guard found. `until_ms`: when time alone lets it go; None: not by time alone."""

    guard: Guard
    stands: bool
    words: str
    until_ms: int | None = None


def reading(rules: CutRules, facts: CutFacts, now_ms: int) -> Finding:
    """The newest accepted reading is not too old: nobody is cut on what is only assumed."""
    words = f"read {format_instant(facts.read_ms)}"
    if rules.reading_age_ms is None:
        return Finding("reading", False, f"{words}, age not asked for")
    stands = now_ms - facts.read_ms > rules.reading_age_ms
    return Finding("reading", stands, f"{words}, at most {_span(rules.reading_age_ms)} ago")


def hold(rules: CutRules, facts: CutFacts, now_ms: int) -> Finding:
    """No operator holds the supply."""
    if facts.hold is None:
        return Finding("hold", False, "none")
    return Finding("hold", True, f"hold {facts.hold}", facts.hold_until_ms)


def payment(rules: CutRules, facts: CutFacts, now_ms: int) -> Finding:
    """No payment is on its way; one that nobody settles does not protect for ever."""
    if facts.payment_ms is None:
        return Finding("payment", False, "none waits")
    until_ms = facts.payment_ms + rules.payment_ms
    words = f"not credited since {format_instant(facts.payment_ms)}"
    if now_ms >= until_ms:
        return Finding("payment", False, f"{words}, longer than {_span(rules.payment_ms)}")
    return Finding("payment", True, words, until_ms)


def notice(rules: CutRules, facts: CutFacts, now_ms: int) -> Finding:
    """The customer was told long enough before."""
    if rules.notice_ms is None:
        return Finding("notice", False, "not required")
    if facts.notice_ms is None:
        return Finding("notice", True, "not given")
    until_ms = facts.notice_ms + rules.notice_ms
    words = f"given {format_instant(facts.notice_ms)}, {_span(rules.notice_ms)} before a cut"
    return Finding("notice", now_ms < until_ms, words, until_ms if now_ms < until_ms else None)


def outage(rules: CutRules, facts: CutFacts, now_ms: int) -> Finding:
    """The meter is not part of an outage: a silent group says nothing about its customers."""
    return Finding("outage", facts.outage, "in an outage" if facts.outage else "none")


def window(rules: CutRules, facts: CutFacts, now_ms: int) -> Finding:
    """A cut that is ordered now can be over before the next non-disconnection window."""
    begins_ms = facts.window_ms
    if begins_ms is None:
        return Finding("window", False, "none ahead")
    stands = begins_ms - rules.clock_margin_ms - now_ms < LEAST_LIFE_MS
    return Finding("window", stands, f"begins {format_instant(begins_ms)}")


GUARDS: tuple[Callable[[CutRules, CutFacts, int], Finding], ...] = (
    reading,
    hold,
    payment,
    notice,
    outage,
    window,
)


def findings(rules: CutRules, facts: CutFacts, now_ms: int) -> tuple[Finding, ...]:
    """What every guard finds at an instant outside the windows."""
    return tuple(guard(rules, facts, now_ms) for guard in GUARDS)


def cut_expiry_ms(protection: Protection, now_ms: int, life_ms: int, margin_ms: int) -> int | None:
    """When an order to cut that is given now must be over; None where none may be given.

    The meter judges the expiry by its own clock, which may be `margin_ms` behind: it still must
    not cut once a window has begun. A clock that is ahead only ends the order sooner.
    """
    if protection.holds(now_ms):
        return None
    edge_ms = protection.next_edge(now_ms)
    if edge_ms is None:
        return now_ms + life_ms
    expires_ms = min(now_ms + life_ms, edge_ms - margin_ms)
    return expires_ms if expires_ms - now_ms >= LEAST_LIFE_MS else None


def _span(ms: int) -> str:
    hours, minutes = divmod(ms // 60_000, 60)
    return (
        f"{hours} h" if not minutes else f"{hours} h {minutes} min" if hours else f"{minutes} min"
    )
