"""The one place where a settlement becomes rows: what it posts, what it crosses, what it orders.

Whoever settles accounts hands the result to `record`, in the transaction that holds their locks.
A decision is the difference between the levels of the state row and those that the facts give
now, so that a reading that comes again, a re-rating or another worker finds nothing to decide.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from psycopg import Connection

from credit_engine.thresholds import Crossing, Kind, Levels, Threshold, crossings, levels, steps
from store import supply
from store.settlement import AccountState, PositionCache, Settled, write
from store.sql import query

NOTHING_ASKED: Mapping[int, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Decision:
    """A crossing as it was recorded; `ordinal` counts those of its account."""

    ordinal: int
    threshold: Threshold
    kind: Kind
    at_ms: int
    recorded_ms: int
    balance_micro: int
    cause: str


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

    `live`: the accounts that something new was said about; nothing cuts the others (a replayed
    reading is never by itself the cause of a cut; what it takes off a bill may put a supply back
    at once). None: all. `released`: the hold whose end made the caller settle.
    `asked`: as for `supply.decide`. `positions`: what the worker keeps of them.
    """
    held = _held(conn, settled, now_ms)
    decided: list[Settled] = []
    made: list[tuple[int, int, Crossing]] = []
    for each in settled:
        may_cut = live is None or each.state.account_id in live
        state, crossed = _decide(each, held.get(each.state.account_id), released, may_cut)
        decided.append(replace(each, state=state) if state is not each.state else each)
        first = each.state.decisions + 1
        made.extend((state.account_id, first + place, one) for place, one in enumerate(crossed))
    write(conn, decided, now_ms, positions or PositionCache())
    if made:
        _insert(conn, made, now_ms)
    if live is not None:
        decided = [
            each
            for each in decided
            if each.state.account_id in live or each.state.supply == "connected"
        ]
    return supply.decide(conn, decided, held, now_ms, asked)


def _held(conn: Connection, settled: Sequence[Settled], now_ms: int) -> dict[int, str]:
    """Of these accounts those whose cut a hold forbids now, with the hold's name."""
    due = [each.state.account_id for each in settled if each.state.supply == "disconnected"]
    if not due:
        return {}
    found = conn.execute(query("holds_in_force"), {"accounts": due, "now_ms": now_ms})
    return {account: f"hold:{hold}" for account, hold in found}


def may_cut(conn: Connection, settled: Settled, now_ms: int) -> bool:
    """Whether the account is to be off now: out of credit, in no window and under no hold."""
    return settled.state.supply == "disconnected" and not _held(conn, [settled], now_ms)


def _decide(
    each: Settled, hold: str | None, released: str | None, may_cut: bool
) -> tuple[AccountState, tuple[Crossing, ...]]:
    """The state with its levels as of now, and what was crossed on the way."""
    old, status = each.before, each.outcome.status
    before = Levels(
        old.low_credit, old.balance_micro <= 0, old.emergency_in_use, old.decided_supply
    )
    after = levels(before, status, old.low_credit_micro, held=hold is not None, may_cut=may_cut)
    if after == before:
        return each.state, ()
    crossed = crossings(
        each.terms,
        before,
        after,
        old.low_credit_micro,
        steps(
            each.rated_from.totals.balance_micro,
            each.outcome.postings,
            {row.key for row in each.rows},
        ),
        status,
        old.settled_until_ms,
        hold or released,
    )
    state = replace(
        each.state,
        low_credit=after.low_credit,
        decided_supply=after.supply,
        decisions=old.decisions + len(crossed),
    )
    return state, crossed


def _insert(conn: Connection, made: Sequence[tuple[int, int, Crossing]], now_ms: int) -> None:
    names = ("threshold", "kind", "at_ms", "balance_micro", "cause")
    conn.execute(
        query("insert_decisions"),
        {
            "now_ms": now_ms,
            "account_id": [account for account, _, _ in made],
            "ordinal": [ordinal for _, ordinal, _ in made],
        }
        | {name: [getattr(one, name) for _, _, one in made] for name in names},
    )


def of_account(conn: Connection, account_id: int, *, limit: int) -> list[Decision]:
    """The newest decisions of an account, newest first."""
    of = {"account": account_id, "limit": limit}
    return [Decision(*row) for row in conn.execute(query("decisions_of_account"), of)]
