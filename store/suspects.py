"""Payments that wait for a person: unknown meters, unusual amounts, the same payment twice.

The money is ours from the first moment: it stands in ledger account `suspense` against the
channel's clearing account until an operator credits it to somebody or sends it back.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

from psycopg import Connection

from schemas.identity import command_id
from store import audit_log, quotes, unsettled
from store.errors import Conflict, NotFound
from store.sql import query
from store.suspicion import USUAL_OF, Earlier, Kind, Suspicion, suspicion
from store.terms import TermsCache
from store.vending import Payment, find_vending_meter, known_top_up, vend
from tokens.security_module import SecurityModule

# Enough of an account's payments to see the usual one and those of the last minutes.
EARLIER_PAYMENTS = 2 * USUAL_OF


@dataclass(frozen=True, slots=True)
class Received:
    """What became of a payment: a top-up's id, or that of a suspect payment that waits."""

    top_up: str | None
    suspect: str | None


@dataclass(frozen=True, slots=True)
class Suspect:
    """A payment that waits or waited; `meter` is the number as it was given."""

    id: str
    channel: str
    partner_txn_id: str
    request_sha256: bytes
    meter: str
    amount_micro: int
    paid_ms: int
    msisdn: str | None
    suspicion: str
    detail: str
    held_ms: int
    decision: Literal["credited", "returned"] | None
    decided_by: str | None
    decided_ms: int | None
    reason: str | None
    top_up: str | None


def receive(
    conn: Connection,
    terms: TermsCache,
    module: SecurityModule,
    payment: Payment,
    now_ms: int,
    *,
    against: Suspicion | None = None,
    settled: Collection[Kind] = (),
) -> Received:
    """Take a payment that was made: credit it, or hold it where something speaks against that.

    `against`: what the caller knows against it. `settled`: what the payer was asked about already.
    A repeat is the first answer, also after a decision. Errors: as `vending.vend`, but an unknown
    meter is held, not refused.
    """
    number = {"channel": payment.channel, "partner_txn_id": payment.partner_txn_id}
    with conn.transaction():
        conn.execute(query("lock_payment"), number)
        known = conn.execute(query("suspect_of_payment"), number).fetchone()
        if known is not None:
            if bytes(known[1]) != payment.request_sha256:
                raise Conflict(
                    "idempotency_conflict",
                    f"payment {payment.partner_txn_id} was already taken with another content: "
                    "send the same body, or a new number for a new payment",
                )
            return Received(known[3], None if known[3] is not None else known[0])
        top_up = known_top_up(conn, payment)
        if top_up is not None:
            return Received(top_up, None)
        found, account = _look_at(conn, payment, now_ms)
        found = against or (None if found is not None and found.kind in settled else found)
        if found is None:
            return Received(vend(conn, terms, module, payment, now_ms), None)
        if payment.quote_id is not None:
            quotes.note(conn, payment.channel, payment.partner_txn_id, payment.quote_id)
        return Received(None, _hold(conn, payment, found, account, now_ms))


def waiting(conn: Connection, *, limit: int) -> list[Suspect]:
    """Payments that nobody decided yet, oldest first."""
    return [Suspect(*row) for row in conn.execute(query("suspects_waiting"), {"limit": limit})]


def credit(
    conn: Connection,
    terms: TermsCache,
    module: SecurityModule,
    suspect: str,
    *,
    meter: str,
    who: str,
    reason: str,
    now_ms: int,
) -> str:
    """Credit a held payment to the account that `meter` serves; returns the top-up's id.

    Errors: NotFound (payment, meter); Conflict `reason_missing`, `suspect_decided` (it went back).
    A repeat is the first answer.
    """
    _check(who, reason)
    with conn.transaction():
        held = _locked(conn, suspect)
        if held.decision is not None:
            if held.top_up is not None:
                return held.top_up
            raise _decided(held)
        # Out of suspense by the channel's account, which the top-up then takes it from.
        _release(conn, held, now_ms)
        quoted = quotes.named_by(conn, held.channel, held.partner_txn_id)
        payment = Payment(
            channel=held.channel,
            partner_txn_id=held.partner_txn_id,
            meter=meter,
            amount_micro=held.amount_micro,
            paid_ms=held.paid_ms,
            request_sha256=held.request_sha256,
            msisdn=held.msisdn,
            quote_id=None if quoted is None else quoted.quote_id,
        )
        top_up = vend(conn, terms, module, payment, now_ms)
        _decide(conn, held, "credited", who, reason, top_up, now_ms, meter)
        return top_up


def send_back(conn: Connection, suspect: str, *, who: str, reason: str, now_ms: int) -> bool:
    """Decide that a held payment goes back by its channel; False when it was decided so before.

    Errors: NotFound; Conflict `reason_missing`, `suspect_decided` (it was credited).
    """
    _check(who, reason)
    with conn.transaction():
        held = _locked(conn, suspect)
        if held.decision is not None:
            if held.decision == "returned":
                return False
            raise _decided(held)
        _release(conn, held, now_ms)
        _decide(conn, held, "returned", who, reason, None, now_ms, held.meter)
        unsettled.settle(conn, TermsCache(), held.channel, held.partner_txn_id, now_ms)
        return True


def usual_size(
    conn: Connection, channel: str, meter: str, amount_micro: int, now_ms: int
) -> Suspicion | None:
    """What speaks against the size of a payment that is about to be made; None: nothing."""
    of = {"meter": meter, "limit": EARLIER_PAYMENTS}
    earlier = [Earlier(*row) for row in conn.execute(query("earlier_payments"), of)]
    # Of the same channel: that one pays twice is a matter of payments that were made.
    same = [replace(payment, channel=channel) for payment in earlier]
    return suspicion(channel, amount_micro, now_ms, now_ms, same)


def _look_at(
    conn: Connection, payment: Payment, now_ms: int
) -> tuple[Suspicion | None, int | None]:
    if payment.counted_micro is not None:
        # Cash: whoever counts it sees the payer. An unknown meter is refused at once.
        return None, None
    meter = find_vending_meter(conn, payment.meter)
    if meter is None:
        detail = f"no account is served by meter {payment.meter}: ask the payer for the number"
        return Suspicion("unknown_meter", detail), None
    of = {"meter": payment.meter, "limit": EARLIER_PAYMENTS}
    earlier = [Earlier(*row) for row in conn.execute(query("earlier_payments"), of)]
    found = suspicion(payment.channel, payment.amount_micro, payment.paid_ms, now_ms, earlier)
    return found, meter.account_id


def _hold(
    conn: Connection, payment: Payment, found: Suspicion, account: int | None, now_ms: int
) -> str:
    suspect = command_id(now_ms, secrets.token_bytes(10))
    conn.execute(
        query("insert_suspect"),
        {
            "id": suspect,
            "channel": payment.channel,
            "partner_txn_id": payment.partner_txn_id,
            "request_sha256": payment.request_sha256,
            "meter": payment.meter,
            "account": account,
            "amount_micro": payment.amount_micro,
            "paid_ms": payment.paid_ms,
            "msisdn": payment.msisdn,
            "suspicion": found.kind,
            "detail": found.detail,
            "now_ms": now_ms,
        },
    )
    _post(conn, suspect, payment.channel, "held", payment.amount_micro, now_ms)
    if account is not None:
        # Who has paid is not cut for it, while a person looks.
        unsettled.note(
            conn,
            account,
            payment.channel,
            payment.partner_txn_id,
            "received",
            amount_micro=payment.amount_micro,
            received_ms=now_ms,
        )
    return suspect


def _post(
    conn: Connection, suspect: str, channel: str, kind: str, amount_micro: int, now_ms: int
) -> None:
    clearing = f"clearing:{channel}"
    conn.execute(query("add_ledger_accounts"), {"codes": [clearing]})
    conn.execute(
        query("insert_suspense"),
        {
            "id": suspect,
            "kind": kind,
            "clearing": clearing,
            "amount_micro": amount_micro,
            "now_ms": now_ms,
        },
    )


def _release(conn: Connection, held: Suspect, now_ms: int) -> None:
    _post(conn, held.id, held.channel, "released", -held.amount_micro, now_ms)


def _locked(conn: Connection, suspect: str) -> Suspect:
    row = conn.execute(query("lock_suspect"), {"id": suspect}).fetchone()
    if row is None:
        raise NotFound("The suspect payment")
    return Suspect(*row)


def _check(who: str, reason: str) -> None:
    if not who.strip() or not reason.strip():
        raise Conflict("reason_missing", "say who decides and why: both are kept")


def _decided(held: Suspect) -> Conflict:
    return Conflict(
        "suspect_decided",
        f"payment {held.partner_txn_id} was {held.decision} already: enter an adjustment instead",
    )


def _decide(
    conn: Connection,
    held: Suspect,
    decision: Literal["credited", "returned"],
    who: str,
    reason: str,
    top_up: str | None,
    now_ms: int,
    meter: str,
) -> None:
    conn.execute(
        query("decide_suspect"),
        {
            "id": held.id,
            "decision": decision,
            "who": who,
            "reason": reason,
            "top_up": top_up,
            "now_ms": now_ms,
        },
    )
    audit_log.record(
        conn,
        who,
        f"payment.{decision}",
        f"payment:{held.channel}/{held.partner_txn_id}",
        now_ms,
        reason=reason,
        before={"suspicion": held.suspicion, "meter": held.meter},
        after={"decision": decision, "top_up": top_up},
        meter=meter if decision == "credited" else None,
    )
