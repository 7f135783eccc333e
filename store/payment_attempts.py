"""Attempts of customers to pay by a configured method: started, asked about, looked at.

What is heard of one, and the vend that follows, is `store.payment_words`. Times `_wall_ms` are real
time, by which channels are asked; others are the system's clock.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from schemas.identity import command_id
from store import attempts, idempotency, unsettled
from store.errors import Conflict, NotFound
from store.idempotency import Claim
from store.payment_states import AttemptState, allowed
from store.sql import query
from store.suspects import usual_size

# Of one account in an hour, whoever starts them: enough for a bad day with a bad network.
STARTS_PER_HOUR = 30
HOUR_MS = 3600 * 1000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class NewAttempt:
    """What a customer, or a desk for one, wants to pay. `started_by` names them with their kind.

    `lapses_wall_ms`: until when it may be gone on with. `next_check_wall_ms`: when a sweep looks.
    """

    account_id: int
    method: str
    started_by: str
    key: str
    request_sha256: bytes
    amount_micro: int
    unusual_confirmed: bool
    msisdn: str | None
    lapses_wall_ms: int | None
    next_check_wall_ms: int | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """`going_on`: where the payer goes on. `told_micro`: the amount that the channel named."""

    id: str
    account_id: int
    account: str
    meter: str
    currency: str
    method: str
    amount_micro: int
    unusual_confirmed: bool
    msisdn: str | None
    state: AttemptState
    order_reference: str | None
    going_on: Mapping[str, Any] | None
    lapses_wall_ms: int | None
    asked_wall_ms: int | None
    checks: int
    next_check_wall_ms: int | None
    provider_reference: str | None
    told_micro: int | None
    paid_ms: int | None
    top_up: str | None
    suspect: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an attempt: the state after it, what was said or done, by whom, and when."""

    attempt: str
    state: AttemptState
    word: str
    by: str
    detail: str | None
    at_ms: int


def start(conn: Connection, new: NewAttempt, now_ms: int, wall_ms: int) -> str:
    """Record an attempt, once for its key; returns its id. Nothing is asked of anybody yet.

    Errors: Conflict `idempotency_conflict`, `no_meter`, `unusual_amount` (until confirmed);
    TooManyAttempts.
    """
    known = known_under_key(conn, new)
    if known is not None:
        return known
    bound = attempts.Bound(f"payment:{new.account_id}", STARTS_PER_HOUR, HOUR_MS)
    attempts.count(conn, bound, wall_ms)
    with conn.transaction():
        attempt = insert(conn, new, now_ms)
        known = attempt or known_under_key(conn, new)
        assert known is not None, "the key's row is there, or was just made"
        return known


def insert(conn: Connection, new: NewAttempt, now_ms: int) -> str | None:
    """The row and its first step, in the caller's transaction; None for a key that was used.

    Errors: as `start`.
    """
    meter = meter_of(conn, new.account_id)
    if meter is None:
        raise Conflict("no_meter", "no meter serves this account: ask the utility")
    if not new.unusual_confirmed:
        unusual = usual_size(conn, new.method, meter, new.amount_micro, now_ms)
        if unusual is not None:
            raise Conflict(
                "unusual_amount",
                f"{unusual.detail}; send unusual_confirmed true if the amount is meant",
            )
    row = conn.execute(
        query("insert_payment_attempt"),
        {
            "id": command_id(now_ms, secrets.token_bytes(10)),
            "account": new.account_id,
            "meter": meter,
            "method": new.method,
            "started_by": new.started_by,
            "key": new.key,
            "request_sha256": new.request_sha256,
            "amount_micro": new.amount_micro,
            "unusual_confirmed": new.unusual_confirmed,
            "msisdn": new.msisdn,
            "lapses_wall_ms": new.lapses_wall_ms,
            "next_check_wall_ms": new.next_check_wall_ms,
        },
    ).fetchone()
    if row is None:
        return None
    attempt = str(row[0])
    step(conn, attempt, "started", "started", new.started_by, None, now_ms)
    return attempt


def known_under_key(conn: Connection, new: NewAttempt) -> str | None:
    """The attempt that a key was used for. Errors: Conflict `idempotency_conflict`."""
    of = {"started_by": new.started_by, "key": new.key}
    row = conn.execute(query("attempt_under_key"), of).fetchone()
    if row is None:
        return None
    if bytes(row[1]) != new.request_sha256:
        raise Conflict(
            "idempotency_conflict",
            "this Idempotency-Key was used for another request: send a new one",
        )
    return str(row[0])


def find(conn: Connection, attempt: str) -> Attempt:
    """One attempt. Errors: NotFound."""
    found = by_id(conn, [attempt])
    if not found:
        raise NotFound("The payment")
    return found[0]


def by_id(conn: Connection, ids: Sequence[str]) -> list[Attempt]:
    """Those of these attempts that there are, newest first."""
    return [Attempt(*row) for row in conn.execute(query("payment_attempts"), {"ids": list(ids)})]


def locked(conn: Connection, attempt: str) -> Attempt:
    """One attempt until the caller's transaction ends. Errors: NotFound."""
    conn.execute(query("lock_payment_attempt"), {"id": attempt})
    return find(conn, attempt)


def of_order(conn: Connection, method: str, name: str) -> Attempt | None:
    """The attempt of a method by our id, or by the channel's own name for the order."""
    for found in by_id(conn, [name]):
        if found.method == method:
            return found
    of = {"method": method, "order_reference": name}
    row = conn.execute(query("attempt_of_order"), of).fetchone()
    return None if row is None else find(conn, row[0])


def meter_of(conn: Connection, account_id: int) -> str | None:
    """The number of the meter that serves an account now."""
    row = conn.execute(query("meter_of_account"), {"account": account_id}).fetchone()
    return None if row is None else str(row[0])


def steps(conn: Connection, ids: Sequence[str]) -> list[Step]:
    """Every step of these attempts, attempt by attempt, in their order."""
    return [Step(*row) for row in conn.execute(query("payment_steps"), {"ids": list(ids)})]


def opened(
    conn: Connection,
    attempt: str,
    *,
    order_reference: str | None,
    going_on: Mapping[str, object],
    lapses_wall_ms: int,
    asked_wall_ms: int | None,
    next_check_wall_ms: int,
    now_ms: int,
) -> Attempt:
    """The channel knows the order, and the payer where to go on. The first to say so is believed.

    `asked_wall_ms`: from now on money may move, without us.
    """
    with conn.transaction():
        found = locked(conn, attempt)
        if found.state != "started" or found.going_on is not None:
            return found
        state: AttemptState = "started" if asked_wall_ms is None else "pending"
        conn.execute(
            query("open_payment_attempt"),
            {
                "id": attempt,
                "state": state,
                "order_reference": order_reference,
                "going_on": Jsonb(dict(going_on)),
                "lapses_wall_ms": lapses_wall_ms,
                "asked_wall_ms": asked_wall_ms,
                "next_check_wall_ms": next_check_wall_ms,
            },
        )
        step(conn, attempt, state, "opened", "channel", order_reference, now_ms)
        return find(conn, attempt)


def ask(
    conn: Connection,
    attempt: str,
    *,
    msisdn: str | None,
    by: str,
    claim: Claim,
    next_check_wall_ms: int,
    now_ms: int,
    wall_ms: int,
) -> bool:
    """Note, before the channel is asked to take the money, that it is: whoever dies from here on
    leaves an attempt that is asked about. False when it was asked before. `claim`: the key that it
    is asked under, which is used with it or not at all.

    Errors: Conflict `payment_over`, `idempotency_conflict`.
    """
    with conn.transaction():
        found = locked(conn, attempt)
        if not idempotency.claim(conn, claim, now_ms):
            return False
        if found.state in {"failed", "expired"} or (
            found.state == "started"
            and found.lapses_wall_ms is not None
            and wall_ms >= found.lapses_wall_ms
        ):
            raise Conflict("payment_over", "this payment is over: start another one")
        if found.state != "started":
            return False
        assert allowed(found.state, "pending"), "the table of states"
        conn.execute(
            query("ask_payment_attempt"),
            {
                "id": attempt,
                "msisdn": msisdn,
                "wall_ms": wall_ms,
                "next_check_wall_ms": next_check_wall_ms,
            },
        )
        step(conn, attempt, "pending", "asked", by, None, now_ms)
        # While it is not known, the supply is not cut for want of it (store.unsettled).
        unsettled.note(
            conn,
            found.account_id,
            found.method,
            attempt,
            "pending",
            amount_micro=found.amount_micro,
            received_ms=now_ms,
        )
        return True


def claim_due(
    conn: Connection, methods: Sequence[str], wall_ms: int, until_wall_ms: int, limit: int
) -> list[Attempt]:
    """Attempts of these methods to ask about now, for the caller alone until `until_wall_ms`; one
    that dies with them leaves them to the next.
    """
    of = {
        "methods": list(methods),
        "wall_ms": wall_ms,
        "until_wall_ms": until_wall_ms,
        "limit": limit,
    }
    with conn.transaction():
        ids = [row[0] for row in conn.execute(query("claim_due_attempts"), of)]
        return by_id(conn, ids)


def hasten(conn: Connection, attempt: str, at_wall_ms: int) -> None:
    """Ask about an attempt at `at_wall_ms`, where that is sooner than was meant."""
    of = {"id": attempt, "next_check_wall_ms": at_wall_ms}
    conn.execute(query("hasten_payment_attempt"), of)


def look_again(conn: Connection, attempt: str, at_wall_ms: int | None) -> None:
    """Look at an attempt again then; nothing new was said of it."""
    of = {"id": attempt, "next_check_wall_ms": at_wall_ms}
    conn.execute(query("look_again_at_attempt"), of)


def waiting(conn: Connection, before_wall_ms: int, limit: int) -> list[Attempt]:
    """Attempts without an end that a person should look at, oldest first: nothing more is asked of
    them, or money may have moved before `before_wall_ms`.
    """
    of = {"before_wall_ms": before_wall_ms, "limit": limit}
    ids = [row[0] for row in conn.execute(query("attempts_waiting"), of)]
    return sorted(by_id(conn, ids), key=lambda each: each.id)


def step(
    conn: Connection,
    attempt: str,
    state: AttemptState,
    word: str,
    by: str,
    detail: str | None,
    now_ms: int,
) -> None:
    """Add one step in the caller's transaction."""
    conn.execute(
        query("insert_payment_step"),
        {
            "id": attempt,
            "state": state,
            "word": word,
            "by": by,
            "detail": detail,
            "now_ms": now_ms,
        },
    )


def count_refusal(conn: Connection, method: str, reason: str, wall_ms: int) -> None:
    """Count a notification that was not believed."""
    of = {"method": method, "reason": reason, "day_ms": wall_ms - wall_ms % DAY_MS}
    conn.execute(query("count_notification_refusal"), of)


@dataclass(frozen=True, slots=True)
class RefusedNotifications:
    """So many notifications of a method were refused for a reason on a UTC day."""

    method: str
    reason: str
    day_ms: int
    count: int


def refusals(conn: Connection, limit: int) -> list[RefusedNotifications]:
    """Counts of notifications that were not believed, newest days first."""
    rows = conn.execute(query("notification_refusals"), {"limit": limit})
    return [RefusedNotifications(*row) for row in rows]
