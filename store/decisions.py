"""The one place where a settlement becomes rows: what it posts, what it crosses, what it orders.

Whoever settles accounts hands the result to `record`, in the transaction that holds their locks.
A decision is the difference between the levels of the state row and those that the facts give
now, so that a reading that comes again, a re-rating or another worker finds nothing to decide.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

import orjson
from psycopg import Connection

from credit_engine.thresholds import (
    Crossing,
    Kind,
    Levels,
    Threshold,
    crossings,
    levels,
    low_credit_edge,
    steps,
)
from store import cuts, forecasts, notices, supply
from store.cuts import Review
from store.positions import PositionCache
from store.settlement import AccountState, Settled, write
from store.sql import query
from store.supply import RELAY_OF

NOTHING_ASKED: Mapping[int, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Decision:
    """A crossing as it was recorded; `ordinal` counts those of its account. `guards`: what each
    guard found, where the supply was to be cut.
    """

    ordinal: int
    threshold: Threshold
    kind: Kind
    at_ms: int
    recorded_ms: int
    balance_micro: int
    cause: str
    guards: Mapping[str, str]


class _Made(NamedTuple):
    """A crossing on its way into the table."""

    account: int
    ordinal: int
    crossing: Crossing
    guards: Mapping[str, str]


def record(
    conn: Connection,
    settled: Sequence[Settled],
    now_ms: int,
    *,
    live: Collection[int] | None = None,
    released: str | None = None,
    asked: Mapping[int, str] = NOTHING_ASKED,
    positions: PositionCache | None = None,
) -> int:
    """Write settlements with their decisions and queue the orders; returns how many were queued.

    `live`: the accounts that something new was said about; of the others nothing gets worse (a
    replayed reading is never by itself the cause of an alert or a cut; what it takes off a bill may
    put a supply back at once). None: all. `released`: the hold whose end made the caller settle.
    `asked`: what the meter of an account was last asked for, where the caller has read that under
    the locks; the other meters are looked up. `positions`: what the worker keeps of them.
    """
    settled = forecasts.renewed(conn, settled)
    moved = [
        each
        for each in settled
        if RELAY_OF.get(each.state.supply, "") not in {"", asked.get(each.state.account_id)}
        and (live is None or each.state.account_id in live or each.state.supply == "connected")
    ]
    meters = supply.meters_of_accounts(conn, [each.state.account_id for each in moved])
    cutting = [each for each in moved if each.state.supply == "disconnected"]
    reviews = cuts.review(conn, cutting, meters, now_ms) if cutting else {}
    decided: dict[int, Settled] = {}
    made: list[_Made] = []
    for each in settled:
        account = each.state.account_id
        review = reviews.get(account)
        may_worsen = live is None or account in live
        state, crossed = _decide(each, review, released, may_worsen)
        decided[account] = replace(each, state=state) if state is not each.state else each
        first = each.state.decisions + 1
        guards = {} if review is None else review.guards
        made.extend(
            _Made(account, first + place, one, guards if one.threshold == "supply" else {})
            for place, one in enumerate(crossed)
        )
    write(conn, list(decided.values()), now_ms, positions or PositionCache())
    if made:
        _insert(conn, made, now_ms)
        _follow(conn, made, now_ms)
    withheld = {account for account, review in reviews.items() if review.standing}
    moved = [decided[each.state.account_id] for each in moved]
    return supply.decide(conn, moved, meters, withheld, now_ms)


def _follow(conn: Connection, made: Sequence[_Made], now_ms: int) -> None:
    """What hangs on a crossing: notice as the credit runs low, and its end as it is back."""
    low = [each.account for each in made if each.crossing.kind == "low_credit"]
    if low:
        notices.announce(conn, low, supply.meters_of_accounts(conn, low), now_ms)
    back = [each.account for each in made if each.crossing.kind == "low_credit_cleared"]
    if back:
        notices.lapse(conn, back, now_ms)
    on = [each.account for each in made if each.crossing.kind == "connected"]
    if on:
        cuts.credit_is_back(conn, on, now_ms)


def _decide(
    each: Settled, review: Review | None, released: str | None, may_worsen: bool
) -> tuple[AccountState, tuple[Crossing, ...]]:
    """The state with its levels as of now, and what was crossed on the way."""
    old, status = each.before, each.outcome.status
    guard = review.standing[0] if review is not None and review.standing else None
    kept = each.state
    if review is not None and review.due_ms is not None:
        # Time lets a guard go: the clockwork asks again then.
        kept = replace(kept, due_ms=min(kept.due_ms, review.due_ms))
    before = Levels(
        old.low_credit,
        old.balance_micro <= 0 and not old.zero_waits,
        old.emergency_in_use and not old.emergency_waits,
        old.decided_supply,
    )
    low_micro = low_credit_edge(old.low_credit_micro, each.state.expected_micro)
    after = levels(before, status, low_micro, held=guard is not None, may_worsen=may_worsen)
    zero_waits = status.balance_micro <= 0 and not after.zero
    emergency_waits = status.emergency_in_use and not after.emergency
    if (zero_waits, emergency_waits) != (old.zero_waits, old.emergency_waits):
        kept = replace(kept, zero_waits=zero_waits, emergency_waits=emergency_waits)
    if after == before:
        return kept, ()
    crossed = crossings(
        each.terms,
        before,
        after,
        low_micro,
        steps(
            each.rated_from.totals.balance_micro,
            each.outcome.postings,
            {row.key for row in each.rows},
        ),
        status,
        old.settled_until_ms,
        guard or released or (None if review is None else review.freed),
        forecast=old.low_credit_days is not None,
    )
    state = replace(
        kept,
        low_credit=after.low_credit,
        decided_supply=after.supply,
        decisions=old.decisions + len(crossed),
    )
    return state, crossed


def _insert(conn: Connection, made: Sequence[_Made], now_ms: int) -> None:
    names = ("threshold", "kind", "at_ms", "balance_micro", "cause")
    conn.execute(
        query("insert_decisions"),
        {
            "now_ms": now_ms,
            "account_id": [each.account for each in made],
            "ordinal": [each.ordinal for each in made],
            "guards": [orjson.dumps(dict(each.guards)).decode() for each in made],
        }
        | {name: [getattr(each.crossing, name) for each in made] for name in names},
    )


def of_account(conn: Connection, account_id: int, *, limit: int) -> list[Decision]:
    """The newest decisions of an account, newest first."""
    of = {"account": account_id, "limit": limit}
    return [Decision(*row) for row in conn.execute(query("decisions_of_account"), of)]
