"""The states of a payment attempt, and which may follow which: pure, one table.

- started: recorded; nothing was asked that could take money.
- pending: the payer or the channel is at it; money may move.
- unknown: asked, and no word that can be believed: perhaps paid, never taken for failed.
- received: the channel has the money for us; it is not credited yet, and will be tried again.
- paid: credited, or in suspense for a person, in the transaction that says so.
- failed: the channel said no.
- expired: over before money moved.
"""

from collections.abc import Mapping
from typing import Literal, get_args

AttemptState = Literal["started", "pending", "unknown", "received", "paid", "failed", "expired"]

STATES: tuple[AttemptState, ...] = get_args(AttemptState)
# Money that comes late is money all the same: `failed` and `expired` yield to a channel's word that
# it was paid, and to nothing else. What was received is credited or waits; it is never given up.
TRANSITIONS: Mapping[AttemptState, frozenset[AttemptState]] = {
    "started": frozenset({"pending", "failed", "expired", "received", "paid"}),
    "pending": frozenset({"unknown", "failed", "expired", "received", "paid"}),
    "unknown": frozenset({"pending", "failed", "expired", "received", "paid"}),
    "received": frozenset({"paid"}),
    "paid": frozenset(),
    "failed": frozenset({"received", "paid"}),
    "expired": frozenset({"received", "paid"}),
}


def allowed(before: AttemptState, after: AttemptState) -> bool:
    """Whether an attempt may move so."""
    return after in TRANSITIONS[before]
