"""What time alone brings: midnight charges, windows and holds that end, unanswered orders.

The schedule is the index on `account_state.due_ms`; it is durable and catches up after any pause.
Any number of workers may run it at once: each takes rows that no other holds.
"""

from dataclasses import dataclass

from psycopg import Connection

from store import decisions, holds, issuing, supply
from store.settlement import TermsCache, lock_accounts, lock_due_accounts, settle_account
from store.sql import query

# How long a meter may take to say the relay is where it was ordered, before the order is repeated.
RECONCILE_AFTER_MS = 2 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Overdue:
    """What one round found: commands that ended without an answer, by what follows."""

    expired: int = 0
    read_first: int = 0
    delivered_again: int = 0


def settle_due(conn: Connection, terms: TermsCache, now_ms: int, limit: int) -> int:
    """Settle accounts whose schedule is due; returns how many, so that a caller can go on."""
    with conn.transaction():
        states = lock_due_accounts(conn, now_ms, limit)
        settled = [settle_account(conn, terms, state, (), now_ms) for state in states.values()]
        decisions.record(conn, settled, now_ms)
    return len(states)


def end_holds(conn: Connection, terms: TermsCache, now_ms: int, limit: int) -> int:
    """Release holds whose end has come and decide again; returns how many there were."""
    with conn.transaction():
        rows = conn.execute(query("holds_ended"), {"now_ms": now_ms, "limit": limit}).fetchall()
    for hold, account_id in rows:
        holds.end(conn, terms, hold, account_id, now_ms)
    return len(rows)


def close_overdue(conn: Connection, now_ms: int) -> Overdue:
    """End commands at their expiry. An order that the meter may have obeyed is followed by a
    reading, never by a blind repeat; tokens are carried again, for a repeat is harmless.
    """
    with conn.transaction():
        rows = conn.execute(query("expire_commands"), {"now_ms": now_ms}).fetchall()
        relays = sorted(
            {meter for _, meter, kind, state in rows if kind == "relay" and state == "unknown"}
        )
        for meter in relays:
            supply.queue(conn, meter, "read", {}, now_ms, now_ms + supply.READ_EXPIRY_MS)
        tokens = [cmd for cmd, _, kind, _ in rows if kind == "token"]
        again = issuing.deliver_again(conn, tokens, now_ms) if tokens else 0
    return Overdue(expired=len(rows), read_first=len(relays), delivered_again=again)


def reconcile(conn: Connection, terms: TermsCache, now_ms: int, limit: int) -> int:
    """Order again where the meter reports another relay than desired and no order is under way."""
    rows = conn.execute(
        query("unreconciled_meters"),
        {"heard_since_ms": now_ms - RECONCILE_AFTER_MS, "now_ms": now_ms, "limit": limit},
    ).fetchall()
    for (account_id,) in rows:
        with conn.transaction():
            state = lock_accounts(conn, [account_id])[account_id]
            settled = settle_account(conn, terms, state, (), now_ms)
            if decisions.record(conn, [settled], now_ms):
                continue
            meter = supply.meter_of_account(conn, account_id)
            if meter is None or meter.reported_relay == meter.desired_relay:
                continue
            # A window or a hold that began since keeps an old order to cut from being repeated.
            if meter.desired_relay == "closed" or decisions.may_cut(conn, settled, now_ms):
                supply.order_relay(conn, settled, meter, meter.desired_relay, now_ms)
    return len(rows)


def drop_old_readings(conn: Connection, before_ms: int) -> int:
    """Our own retention, on either edition of TimescaleDB: whole chunks before an instant.

    The positions before it go too: a fact that came from before it could not be rated again without
    those readings, and is refused (SettlementError) instead of taking their energy back.
    """
    with conn.transaction():
        conn.execute(query("drop_checkpoints_before"), {"before_ms": before_ms})
        return len(conn.execute(query("drop_reading_chunks"), {"before_ms": before_ms}).fetchall())
