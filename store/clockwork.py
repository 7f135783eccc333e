"""What time alone brings: midnight charges, windows and holds that end, unanswered orders.

The schedule is the index on `account_state.due_ms`; it is durable and catches up after any pause.
Any number of workers may run it at once: each takes rows that no other holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import Connection

from schemas.retries import BACK_OFF_MOST_MS, BACK_OFF_MS, follow_up
from store import brakes, cuts, dead_letters, decisions, holds, outbox, supply
from store.brakes import Brake
from store.dead_letters import Ended
from store.settlement import News, lock_accounts, lock_due_accounts, settle_account, settle_accounts
from store.sql import query
from store.terms import TermsCache

RETRIES_AT_ONCE = 200
# A meter that is heard answers a token within a minute; its answer is not on its way any more.
SILENCE_MS = 10 * 60 * 1000
BRAKES_TOLD = 100


@dataclass(frozen=True, slots=True)
class Overdue:
    """What one round found: commands that ended without an answer, by what follows."""

    expired: int = 0
    read_first: int = 0
    delivered_again: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for a person: pulled brakes, and how many dead letters and credit exceptions."""

    brakes: Sequence[Brake]
    dead_letters: int
    credit_exceptions: int


def waiting_for_people(conn: Connection) -> Waiting:
    """What somebody should look at now."""
    row = conn.execute(query("waiting_for_people")).fetchone()
    assert row is not None, "counts always come"
    return Waiting(brakes.brakes(conn, all_states=False, limit=BRAKES_TOLD), *row)


def settle_due(conn: Connection, terms: TermsCache, now_ms: int, limit: int) -> int:
    """Settle accounts whose schedule is due; returns how many, so that a caller can go on."""
    with conn.transaction():
        states = lock_due_accounts(conn, now_ms, limit)
        news = [News(state) for state in states.values()]
        settled = settle_accounts(conn, terms, news, now_ms)
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
    reading, never by a blind repeat; tokens are carried again, for a repeat is harmless, and do not
    wait for their expiry where the meter is heard and silent on them.
    """
    of: dict[str, object] = {
        "now_ms": now_ms,
        "silent_ms": now_ms - SILENCE_MS,
        "silence_ms": SILENCE_MS,
    }
    with conn.transaction():
        overdue = conn.execute(query("meters_with_overdue_commands"), of)
        of["meters"] = supply.lock_meters(conn, overdue)
        rows = conn.execute(query("expire_commands"), of).fetchall()
        rows += conn.execute(query("give_up_silent_tokens"), of).fetchall()
        ended = [
            (meter, Ended(cmd, kind, state, None, attempt, first_issued_ms, issued_ms))
            for cmd, meter, kind, state, attempt, first_issued_ms, issued_ms in rows
        ]
        dead_letters.follow(conn, (each for _, each in ended), now_ms)
        to_read = sorted(
            {meter for meter, each in ended if follow_up(each.type, each.state, None) == "read"}
        )
        for meter in to_read:
            supply.queue(conn, meter, "read", {}, now_ms, now_ms + supply.READ_EXPIRY_MS)
    again = outbox.retry_due(conn, now_ms, RETRIES_AT_ONCE)
    return Overdue(expired=len(rows), read_first=len(to_read), delivered_again=again)


def reconcile(conn: Connection, terms: TermsCache, now_ms: int, limit: int) -> int:
    """Order again where the meter reports another relay than desired and no order is under way,
    after a back-off; what a meter does not do for days becomes a dead letter.
    """
    of = {"base_ms": BACK_OFF_MS, "most_ms": BACK_OFF_MOST_MS, "now_ms": now_ms, "limit": limit}
    rows = conn.execute(query("unreconciled_meters"), of).fetchall()
    ordered = 0
    for (account_id,) in rows:
        with conn.transaction():
            state = lock_accounts(conn, [account_id])[account_id]
            settled = settle_account(conn, terms, state, (), now_ms)
            if decisions.record(conn, [settled], now_ms):
                ordered += 1
                continue
            meter = supply.meter_of_account(conn, account_id)
            if meter is None or meter.reported_relay == meter.desired_relay:
                continue
            # A window or a guard that stands since keeps an old order to cut from being repeated.
            if meter.desired_relay == "closed" or cuts.may_repeat(conn, settled, meter, now_ms):
                ordered += supply.repeat_order(conn, settled, meter, now_ms)
    return ordered


def drop_old_readings(conn: Connection, before_ms: int) -> int:
    """Our own retention, on either edition of TimescaleDB: whole chunks before an instant.

    The positions before it go too: a fact that came from before it could not be rated again without
    those readings, and is refused (SettlementError) instead of taking their energy back.
    """
    with conn.transaction():
        conn.execute(query("drop_checkpoints_before"), {"before_ms": before_ms})
        return len(conn.execute(query("drop_reading_chunks"), {"before_ms": before_ms}).fetchall())
