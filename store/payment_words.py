"""What a channel, a check or a person says of a payment attempt, and what follows from it.

That money was paid, its vend and its end are one transaction, once: keyed by the channel's own
number of the payment. What speaks against it puts it into suspense instead; where it cannot be
credited now (no security module, an expired key) it stands as `received` and is tried again.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from psycopg import Connection

from schemas.errors import DomainError
from schemas.quantities import format_micro
from store import audit_log, payment_attempts, suspects, unsettled, vending
from store.errors import Conflict, Unavailable
from store.payment_attempts import Attempt, NewAttempt, locked, step
from store.payment_states import allowed
from store.sql import query
from store.suspicion import Kind, Suspicion
from store.terms import TermsCache
from tokens.security_module import SecurityModule

# Money that could not be credited is tried again so often; each costs a transaction.
CREDIT_AGAIN_MS = 30_000


@dataclass(frozen=True, slots=True)
class Word:
    """What was said. `paid` comes with the channel's number of the payment, and with the amount
    where the channel named one; `doubt`: why a person must look although it says paid. `word` is a
    short code, `detail` a sentence; neither holds a secret.
    """

    state: Literal["pending", "unknown", "paid", "failed", "expired"]
    word: str
    reference: str | None = None
    amount_micro: int | None = None
    doubt: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Ears:
    """What hearing needs beside the word: prices, keys, both clocks."""

    terms: TermsCache
    module: SecurityModule
    now_ms: Callable[[], int]
    wall_ms: Callable[[], int]


def hear(
    conn: Connection,
    ears: Ears,
    attempt: str,
    said: Word,
    *,
    by: str,
    next_check_wall_ms: int | None = None,
) -> Attempt:
    """Take a word to heart; returns the attempt as it is now. What the table of states does not
    allow, a late `failed` say, changes nothing. The same word again changes nothing.

    `next_check_wall_ms`: when to ask again where this is no end. Errors: NotFound; Conflict
    `reference_reused`, a payment that belongs to another attempt.
    """
    now_ms = ears.now_ms()
    with conn.transaction():
        found = locked(conn, attempt)
        if said.state == "paid":
            _take(conn, ears, found, said, by, now_ms)
        else:
            _move(conn, ears, found, said, by, now_ms, next_check_wall_ms)
        return payment_attempts.find(conn, attempt)


def credit_again(conn: Connection, ears: Ears, attempt: str) -> Attempt:
    """Try once more to credit what was received."""
    with conn.transaction():
        found = locked(conn, attempt)
        if found.state == "received":
            said = Word("paid", "credited", found.provider_reference, found.told_micro)
            _settle(conn, ears, found, said, "clock", ears.now_ms(), None)
        return payment_attempts.find(conn, attempt)


def decide(
    conn: Connection,
    ears: Ears,
    attempt: str,
    *,
    reference: str | None,
    who: str,
    reason: str,
) -> Attempt:
    """A person ends an attempt of which nobody knows: paid under the channel's number, as its daily
    file says, or (`reference` None) not paid.

    Errors: NotFound; Conflict `reason_missing`, `payment_decided`.
    """
    if not who.strip() or not reason.strip():
        raise Conflict("reason_missing", "say who decides and why: both are kept")
    said = Word("failed" if reference is None else "paid", "decided", reference, detail=reason)
    with conn.transaction():
        found = locked(conn, attempt)
        if not allowed(found.state, said.state):
            raise Conflict("payment_decided", f"this payment is {found.state}: nothing is left")
        after = hear(conn, ears, attempt, said, by=f"operator:{who}")
        audit_log.record(
            conn,
            who,
            "payment.decide",
            f"payment:{found.method}/{attempt}",
            ears.now_ms(),
            reason=reason,
            before={"state": found.state},
            after={"state": after.state, "reference": reference},
            account=found.account_id,
        )
        return after


def take_cash(
    conn: Connection,
    ears: Ears,
    new: NewAttempt,
    *,
    counted_micro: int,
    coin_micro: int | None,
) -> str:
    """Money that was counted at a desk: an attempt that is paid in the transaction that starts it;
    returns its id, the same for a repeat. What cannot be credited is refused, whole.

    Errors: as `payment_attempts.start` and `vending.vend`.
    """
    now_ms = ears.now_ms()
    with conn.transaction():
        attempt = payment_attempts.insert(conn, replace(new, unusual_confirmed=True), now_ms)
        if attempt is None:
            known = payment_attempts.known_under_key(conn, new)
            assert known is not None, "the key's row stands"
            return known
        found = locked(conn, attempt)
        payment = replace(
            _payment(found, attempt, new.amount_micro, now_ms),
            counted_micro=counted_micro,
            coin_micro=coin_micro,
        )
        received = suspects.receive(conn, ears.terms, ears.module, payment, now_ms)
        _write_taken(conn, found, Word("paid", "counted", attempt), now_ms, received)
        step(conn, attempt, "paid", "counted", new.started_by, None, now_ms)
        return attempt


def _move(
    conn: Connection,
    ears: Ears,
    found: Attempt,
    said: Word,
    by: str,
    now_ms: int,
    next_check_wall_ms: int | None,
) -> None:
    assert said.state != "paid", "the caller parts them"
    over = said.state in {"failed", "expired"}
    if found.state != said.state and not allowed(found.state, said.state):
        if found.state in {"failed", "expired"}:
            payment_attempts.look_again(conn, found.id, None)
        return
    conn.execute(
        query("move_payment_attempt"),
        {
            "id": found.id,
            "state": said.state,
            "checks": 1 if by == "check" else 0,
            "over": over,
            "next_check_wall_ms": None if over else next_check_wall_ms,
        },
    )
    newest = conn.execute(query("newest_payment_step"), {"id": found.id}).fetchone()
    if newest != (said.state, said.word):
        step(conn, found.id, said.state, said.word, by, said.detail, now_ms)
    if over:
        unsettled.settle(conn, ears.terms, found.method, found.id, now_ms)
        return
    noted = {"channel": found.method, "partner_txn_id": found.id}
    if conn.execute(query("account_of_unsettled"), noted).fetchone() is not None:
        _note(conn, found, found.id, "suspect" if said.state == "unknown" else "pending", now_ms)


def _take(conn: Connection, ears: Ears, found: Attempt, said: Word, by: str, now_ms: int) -> None:
    reference = said.reference
    assert reference, "a payment without a number is no word of a payment"
    of = {"method": found.method, "reference": reference}
    conn.execute(query("lock_payment"), {"channel": found.method, "partner_txn_id": reference})
    owner = conn.execute(query("attempt_of_reference"), of).fetchone()
    if owner is not None and owner[0] != found.id:
        raise _reused(found, reference)
    if found.provider_reference == reference:
        return
    if found.provider_reference is not None:
        _take_another(conn, ears, found, said, by, now_ms)
        return
    assert allowed(found.state, "paid"), "only what is paid has no way to be paid"
    _settle(conn, ears, found, said, by, now_ms, _against(found, said))


def _reused(found: Attempt, reference: str) -> Conflict:
    return Conflict(
        "reference_reused", f"payment {reference} of {found.method} belongs to another order"
    )


def _against(found: Attempt, said: Word) -> Suspicion | None:
    if said.doubt is not None:
        return Suspicion("amount_differs", said.doubt)
    if said.amount_micro is not None and said.amount_micro != found.amount_micro:
        return Suspicion(
            "amount_differs",
            f"{found.method} took {format_micro(said.amount_micro)} where "
            f"{format_micro(found.amount_micro)} was ordered: ask the payer and the channel",
        )
    return None


def _settle(
    conn: Connection,
    ears: Ears,
    found: Attempt,
    said: Word,
    by: str,
    now_ms: int,
    against: Suspicion | None,
) -> None:
    """Credit it, or put it into suspense; or keep that it was received, and try again later."""
    assert said.reference, "the caller looked"
    if against is None:
        against = _against(found, said)
    amount = found.amount_micro if said.amount_micro is None else said.amount_micro
    asked: tuple[Kind, ...] = ("unusual_amount",) if found.unusual_confirmed else ()
    meter = payment_attempts.meter_of(conn, found.account_id) or found.meter
    payment = replace(_payment(found, said.reference, amount, now_ms), meter=meter)
    try:
        with conn.transaction():
            # The vend decides about the supply: what was noted is over by then.
            unsettled.credited(conn, found.method, found.id, now_ms)
            received = suspects.receive(
                conn,
                ears.terms,
                ears.module,
                payment,
                now_ms,
                against=against,
                settled=asked,
            )
    except DomainError as error:
        if against is not None or isinstance(error, Unavailable):
            raise
        if error.code == "idempotency_conflict":
            # Its number is that of other money, which waits in suspense: it is not for this order.
            raise _reused(found, said.reference) from None
        # The savepoint is rolled back; that the channel has the money must not be lost with it.
        _write_received(conn, ears, found, said, now_ms)
        if found.state != "received":
            step(conn, found.id, "received", said.word, by, error.code, now_ms)
        return
    _write_taken(conn, found, said, now_ms, received)
    word = said.word if received.suspect is None else "held"
    step(conn, found.id, "paid", word, by, said.reference, now_ms)
    if received.suspect is not None:
        _note(conn, found, said.reference, "received", now_ms)


def _take_another(
    conn: Connection, ears: Ears, found: Attempt, said: Word, by: str, now_ms: int
) -> None:
    """More money for an order that is paid: it is somebody's, and waits for a person."""
    assert said.reference, "the caller looked"
    amount = found.amount_micro if said.amount_micro is None else said.amount_micro
    payment = _payment(found, said.reference, amount, now_ms)
    against = Suspicion(
        "paid_twice",
        f"the order of payment {found.provider_reference} was paid once more: ask the payer",
    )
    suspects.receive(conn, ears.terms, ears.module, payment, now_ms, against=against)
    of = {"id": found.id, "word": "paid_again", "detail": said.reference}
    if conn.execute(query("payment_step_with"), of).fetchone() is None:
        step(conn, found.id, found.state, "paid_again", by, said.reference, now_ms)


def _payment(found: Attempt, reference: str, amount_micro: int, now_ms: int) -> vending.Payment:
    meant = f"{found.method} {reference} {found.id} {amount_micro}"
    return vending.Payment(
        channel=found.method,
        partner_txn_id=reference,
        meter=found.meter,
        amount_micro=amount_micro,
        paid_ms=now_ms if found.paid_ms is None else found.paid_ms,
        request_sha256=hashlib.sha256(meant.encode()).digest(),
        msisdn=found.msisdn,
    )


def _write_taken(
    conn: Connection, found: Attempt, said: Word, now_ms: int, received: suspects.Received
) -> None:
    conn.execute(
        query("take_payment_attempt"),
        {
            "id": found.id,
            "state": "paid",
            "reference": said.reference,
            "told_micro": said.amount_micro,
            "paid_ms": now_ms if found.paid_ms is None else found.paid_ms,
            "top_up": received.top_up,
            "suspect": received.suspect,
            "next_check_wall_ms": None,
        },
    )


def _write_received(conn: Connection, ears: Ears, found: Attempt, said: Word, now_ms: int) -> None:
    conn.execute(
        query("take_payment_attempt"),
        {
            "id": found.id,
            "state": "received",
            "reference": said.reference,
            "told_micro": said.amount_micro,
            "paid_ms": now_ms if found.paid_ms is None else found.paid_ms,
            "top_up": None,
            "suspect": None,
            "next_check_wall_ms": ears.wall_ms() + CREDIT_AGAIN_MS,
        },
    )
    _note(conn, found, found.id, "received", now_ms)


def _note(
    conn: Connection, found: Attempt, number: str, state: unsettled.State, now_ms: int
) -> None:
    """While it is not known or not credited, the supply is not cut for want of it."""
    unsettled.note(
        conn,
        found.account_id,
        found.method,
        number,
        state,
        amount_micro=found.amount_micro,
        received_ms=now_ms,
    )
