"""Where the money of a top-up is: from the payment that a customer starts to the supply that is on.

An attempt to pay and the top-up that it became are one thing here; a top-up that came by another
way (a partner, a desk) is one, too, also while a person looks at its payment and once it went back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from psycopg import Connection

from store import payment_attempts
from store.errors import NotFound
from store.payment_attempts import Attempt, Step
from store.sql import query
from store.top_ups import TopUp, TopUpState, top_ups_by_id

TrackedState = TopUpState | Literal["started", "pending", "unknown", "failed", "expired", "suspect"]
# Who has it in hand while it stands at a state; None where it has come to an end.
Owner = Literal["customer", "channel", "utility", "meter"]
OWNERS: dict[TrackedState, Owner | None] = {
    "started": "customer",
    "pending": "channel",
    "unknown": "channel",
    "received": "utility",
    "suspect": "utility",
    "credited": "utility",
    "token_issued": "utility",
    "delivered": "meter",
    "accepted": "meter",
    "on_supply": None,
    "rejected": "utility",
    "reversed": None,
    "failed": None,
    "expired": None,
}


@dataclass(frozen=True, slots=True)
class Held:
    """A payment in suspense, and what a person decided. `meter` is the number as it was given;
    `account` and `currency` are those of the account that it serves, None where there is none.
    """

    id: str
    account: str | None
    meter: str
    currency: str | None
    channel: str
    amount_micro: int
    paid_ms: int
    held_ms: int
    detail: str
    decision: Literal["credited", "returned"] | None
    decided_ms: int | None
    top_up: str | None


@dataclass(frozen=True, slots=True)
class Tracked:
    """One top-up of an account, or what may become one; `attempt` is None where it was not started
    with us, and without a top-up, too, it is a payment that waits for a person or went back.
    """

    attempt: Attempt | None
    steps: Sequence[Step]
    held: Held | None
    top_up: TopUp | None

    @property
    def id(self) -> str:
        found = self.attempt or self.top_up or self.held
        assert found is not None, "one of the three is there"
        return found.id

    def states(self) -> Sequence[tuple[TrackedState, int]]:
        """Every state reached, each with its time, in the order in which they were reached."""
        found: list[tuple[TrackedState, int]] = []
        for step in self.steps:
            # Paid is what the states of the money say themselves.
            if step.state != "paid" and (not found or found[-1][0] != step.state):
                found.append((step.state, step.at_ms))
        received_ms = None if self.held is None else self.held.held_ms
        if self.attempt is not None:
            received_ms = self.attempt.paid_ms
        if received_ms is not None:
            if all(state != "received" for state, _ in found):
                found.append(("received", received_ms))
            if self.held is not None:
                found.append(("suspect", self.held.held_ms))
                if self.held.decision == "returned" and self.held.decided_ms is not None:
                    found.append(("reversed", self.held.decided_ms))
        if self.top_up is not None:
            begun = self.attempt is not None or self.held is not None
            for state, at_ms in self.top_up.states():
                if not (begun and state == "received"):
                    found.append((state, at_ms))
        return found

    @property
    def state(self) -> TrackedState:
        """The state of now."""
        return self.states()[-1][0] if self.top_up is None else self.top_up.state


def tracked(
    conn: Connection,
    account_id: int,
    *,
    before_id: str | None,
    limit: int,
    of_caller: str | None = None,
) -> list[Tracked]:
    """Newest first; one more than `limit` when there is a next page. `of_caller`: only what was
    started by him.
    """
    return _read(conn, account_id, before_id, None, limit + 1, of_caller)


def tracked_one(
    conn: Connection, account_id: int, number: str, *, of_caller: str | None = None
) -> Tracked:
    """One, by the id of its attempt, its top-up, or its payment while that was held; `of_caller` as
    above. Errors: NotFound.
    """
    found = _read(conn, account_id, None, number, 1, of_caller)
    if not found:
        raise NotFound("The top-up")
    return found[0]


def _read(
    conn: Connection,
    account_id: int,
    before: str | None,
    number: str | None,
    limit: int,
    of_caller: str | None,
) -> list[Tracked]:
    of = {
        "account": account_id,
        "before": before,
        "id": number,
        "limit": limit,
        "of_caller": of_caller,
    }
    rows: list[tuple[str, Literal["attempt", "top_up", "suspect"], str | None]]
    rows = conn.execute(query("tracked_of_account"), of).fetchall()
    ids = [each for each, kind, _ in rows if kind == "attempt"]
    attempts = {each.id: each for each in payment_attempts.by_id(conn, ids)}
    steps: dict[str, list[Step]] = {each: [] for each in ids}
    for step in payment_attempts.steps(conn, ids):
        steps[step.attempt].append(step)
    suspects = [each.suspect for each in attempts.values() if each.suspect is not None]
    suspects += [each for each, kind, _ in rows if kind == "suspect"]
    suspects += [other for _, kind, other in rows if kind == "top_up" and other is not None]
    held = {row[0]: Held(*row) for row in conn.execute(query("suspects_by_id"), {"ids": suspects})}
    wanted = [each for each, kind, _ in rows if kind == "top_up"]
    wanted += [each.top_up for each in attempts.values() if each.top_up is not None]
    wanted += [each.top_up for each in held.values() if each.top_up is not None]
    # Those of this account alone: a held payment may have been credited to somebody else.
    top_ups = {each.id: each for each in top_ups_by_id(conn, account_id, wanted)}
    found = []
    for each, kind, other in rows:
        if kind == "attempt":
            attempt = attempts[each]
            waits = held.get(attempt.suspect or "")
            became = attempt.top_up or (None if waits is None else waits.top_up)
            found.append(Tracked(attempt, steps[each], waits, top_ups.get(became or "")))
        elif kind == "top_up":
            found.append(Tracked(None, (), held.get(other or ""), top_ups[each]))
        else:
            found.append(Tracked(None, (), held[each], None))
    return found
