"""Whether a payment should wait for a person: pure rules on what is known about its account."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from credit_engine.days import DAY_MS
from credit_engine.forecast import quantile
from schemas.quantities import format_instant, format_micro

Kind = Literal["unknown_meter", "unusual_amount", "paid_twice", "amount_differs", "future"]

# The usual payment is the middle of so many; below the least nobody knows what is usual.
USUAL_OF = 10
USUAL_LEAST = 3
# Old ouguiya are ten of today's, and many still count in them. A usual payment varies by a fifth.
UNUSUAL_TIMES = 8
# A payer who got no answer from one app pays with the next.
TWICE_WITHIN_MS = 10 * 60 * 1000
# A clock that is wrong, ours or the channel's, keeps nobody in the dark; a date that is wrong would
# put the payment into no day's file.
FUTURE_TOLERANCE_MS = DAY_MS


@dataclass(frozen=True, slots=True)
class Earlier:
    """A payment of the same meter that was taken before."""

    channel: str
    amount_micro: int
    paid_ms: int
    credited_ms: int


@dataclass(frozen=True, slots=True)
class Suspicion:
    """`detail` is a sentence for the person who decides."""

    kind: Kind
    detail: str


def of_the_future(paid_ms: int, now_ms: int) -> Suspicion | None:
    """What speaks against a payment that is said to be yet to come; None: it is not."""
    if paid_ms <= now_ms + FUTURE_TOLERANCE_MS:
        return None
    return Suspicion(
        "future",
        f"paid at {format_instant(paid_ms)}, which is yet to come: ask the channel for the time, "
        "and to set its clock",
    )


def suspicion(
    channel: str, amount_micro: int, paid_ms: int, now_ms: int, earlier: Sequence[Earlier]
) -> Suspicion | None:
    """What speaks against crediting a payment at once; None: nothing. `earlier`: newest first."""
    for payment in earlier:
        near = min(abs(paid_ms - payment.paid_ms), abs(now_ms - payment.credited_ms))
        if (
            payment.channel != channel
            and payment.amount_micro == amount_micro
            and near <= TWICE_WITHIN_MS
        ):
            return Suspicion(
                "paid_twice",
                f"the same amount for the same meter came by {payment.channel} "
                f"{near // 60_000} minutes apart: ask the payer which one was meant",
            )
    usual = [payment.amount_micro for payment in earlier[:USUAL_OF]]
    if len(usual) >= USUAL_LEAST:
        middle = quantile(usual, 1, 2)
        if amount_micro >= UNUSUAL_TIMES * middle:
            return Suspicion(
                "unusual_amount",
                f"{format_micro(amount_micro)} where {format_micro(middle)} is usual: "
                "ask the payer whether old ouguiya were meant",
            )
    return None
