"""Taking a payment back, and moving one to the meter that was meant.

While no token left the building a partner takes its payment back itself. After that an operator
decides, and what was consumed already becomes debt instead of a balance far below zero.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import Connection

from store import adjustments, audit_log, decisions, idempotency, suspects, vending
from store.errors import Conflict, NotFound
from store.facts import recorded_split
from store.idempotency import Claim
from store.settlement import lock_accounts, settle_account
from store.sql import query
from store.terms import TermsCache
from store.vending import Payment, find_vending_meter
from tokens.security_module import SecurityModule


@dataclass(frozen=True, slots=True)
class _Paid:
    """A payment as it was credited."""

    top_up: str
    account_id: int
    meter_id: int
    meter: str
    amount_micro: int
    paid_ms: int
    credited_ms: int
    request_sha256: bytes
    msisdn: str | None
    coin_micro: int | None
    rounding_micro: int
    token_issued: bool
    token_accepted: bool
    reversed_why: str | None
    moved_to: str | None


def take_back(
    conn: Connection, terms: TermsCache, channel: str, partner_txn_id: str, reason: str, now_ms: int
) -> str:
    """A partner takes its own payment back: one that waits in suspense returns, one that was
    credited is reversed. Returns the id of either; a repeat is the first answer.

    Errors: NotFound; Conflict `token_issued` (an operator decides), `suspect_decided`,
    `payment_moved` (its money is another meter's credit now), `idempotency_conflict` (it was taken
    back for another reason).
    """
    number = {"channel": channel, "partner_txn_id": partner_txn_id}
    asked = hashlib.sha256(reason.encode()).digest()
    claim = Claim(None, f"partner:{channel}", f"reversal/{partner_txn_id}", asked)
    with conn.transaction():
        conn.execute(query("lock_payment"), number)
        try:
            # The partner's own: what an operator took back for a reason of his own is another act.
            idempotency.claim(conn, claim, now_ms)
        except Conflict as used:
            raise Conflict(
                used.code,
                f"payment {partner_txn_id} was taken back for another reason: send the same body",
            ) from None
        held = conn.execute(query("suspect_of_payment"), number).fetchone()
        if held is not None and held[3] is None:
            who = f"partner:{channel}"
            suspects.send_back(conn, held[0], who=who, reason=reason, now_ms=now_ms)
            return str(held[0])
        if _paid(conn, channel, partner_txn_id).moved_to is not None:
            raise Conflict(
                "payment_moved",
                "this payment was moved to another meter and cannot be taken back from here: ask "
                "an operator",
            )
        return vending.reverse(conn, terms, channel, partner_txn_id, reason, now_ms)


def reverse_after_issue(
    conn: Connection,
    terms: TermsCache,
    channel: str,
    partner_txn_id: str,
    *,
    who: str,
    reason: str,
    now_ms: int,
    second: str | None = None,
    limit_micro: int = adjustments.SECOND_PERSON_ABOVE_MICRO,
) -> int:
    """An operator takes a payment back although its tokens are out; returns the µ that were
    consumed already and are debt now. A repeat is the first answer.

    Errors: NotFound; Conflict `reason_missing`, `second_person_needed` above the limit.
    """
    _check(who, reason)
    with conn.transaction():
        paid = _paid(conn, channel, partner_txn_id)
        state = lock_accounts(conn, [paid.account_id])[paid.account_id]
        paid = _paid(conn, channel, partner_txn_id)
        note = f"reversal-{paid.top_up}"
        if paid.reversed_why is not None:
            known = conn.execute(query("adjustment_by_id"), {"id": note}).fetchone()
            return 0 if known is None else adjustments.by_id(conn, note).amount_micro
        if paid.amount_micro > limit_micro and (second is None or second == who):
            raise Conflict(
                "second_person_needed", "name a second person for a reversal of this size"
            )
        at_ms = max(now_ms, paid.credited_ms)
        _insert_reversal(conn, paid, reason, at_ms)
        settled = settle_account(conn, terms, state, (), now_ms, touched_from_ms=at_ms)
        split = recorded_split(conn, paid.account_id, paid.top_up, paid.credited_ms, channel)
        lacking = min(split.credited_micro, max(0, -settled.state.balance_micro))
        if lacking:
            conn.execute(
                query("insert_adjustment_to_debt"),
                {
                    "id": note,
                    "account": paid.account_id,
                    "amount_micro": lacking,
                    "reason": f"consumed before the payment was taken back: {reason}",
                    "who": who,
                    "now_ms": now_ms,
                    "adjusted_ms": at_ms,
                },
            )
            settled = settle_account(conn, terms, state, (), now_ms, touched_from_ms=at_ms)
        decisions.record(conn, [settled], now_ms)
        # Who reads the receipt can still type the token in; at least we do not carry it.
        conn.execute(query("withdraw_unsent_credit"), {"top_up": paid.top_up})
        after = {"to_debt_micro": lacking, "second": second, "tokens_out": paid.token_issued}
        _log(conn, who, "payment.reverse", paid, channel, partner_txn_id, reason, after, now_ms)
        return lacking


def move(
    conn: Connection,
    terms: TermsCache,
    module: SecurityModule,
    channel: str,
    partner_txn_id: str,
    *,
    to_meter: str,
    who: str,
    reason: str,
    now_ms: int,
    tokens_out: bool = False,
) -> str:
    """Move a payment to the meter that was meant, while its credit is unspent: reversed here and
    credited there in one transaction. Returns the new top-up's id; a repeat is the first answer.
    `tokens_out`: an operator decided so although tokens were shown (`store.appeals`).

    Errors: NotFound (payment, meter); Conflict `reason_missing`, `same_account`, `token_issued` (a
    token that was shown cannot be recalled: an operator decides), `token_accepted` (the meter has
    the credit), `credit_spent`, `payment_reversed`, `payment_moved` (to another meter, before).
    """
    _check(who, reason)
    with conn.transaction():
        paid = _paid(conn, channel, partner_txn_id)
        target = find_vending_meter(conn, to_meter)
        if target is None:
            raise NotFound(f"A meter {to_meter} that serves an account")
        if target.account_id == paid.account_id:
            raise Conflict("same_account", f"meter {to_meter} serves the account that was credited")
        states = lock_accounts(conn, [paid.account_id, target.account_id])
        paid = _paid(conn, channel, partner_txn_id)
        if paid.moved_to is not None:
            return _moved_before(conn, paid, to_meter)
        _check_movable(paid, tokens_out=tokens_out)
        state = states[paid.account_id]
        balance = settle_account(conn, terms, state, (), now_ms).state.balance_micro
        split = recorded_split(conn, paid.account_id, paid.top_up, paid.credited_ms, channel)
        # Taken back, the account must stand no lower than before, or at zero: all else was used.
        of = {"account": paid.account_id, "key": f"top_up:{paid.top_up}"}
        row = conn.execute(query("balance_before"), of).fetchone()
        before = 0 if row is None else row[0]
        if balance - split.credited_micro < min(before, 0):
            raise Conflict(
                "credit_spent",
                "a part of this payment is consumed already: ask an operator to decide",
            )
        at_ms = max(now_ms, paid.credited_ms)
        _insert_reversal(conn, paid, f"moved to meter {to_meter}: {reason}", at_ms)
        settled = settle_account(conn, terms, state, (), now_ms, touched_from_ms=at_ms)
        decisions.record(conn, [settled], now_ms)
        conn.execute(query("withdraw_unsent_credit"), {"top_up": paid.top_up})
        moved = vending.vend(
            conn, terms, module, _again(paid, channel, partner_txn_id, to_meter), now_ms
        )
        after = {"meter": to_meter, "top_up": moved}
        _log(conn, who, "payment.move", paid, channel, partner_txn_id, reason, after, now_ms)
        return moved


def _again(paid: _Paid, channel: str, partner_txn_id: str, meter: str) -> Payment:
    """The same money for another meter, under a number that no partner gives."""
    in_cash = paid.coin_micro is not None
    return Payment(
        channel=channel,
        partner_txn_id=f"{partner_txn_id}~{paid.top_up}",
        meter=meter,
        amount_micro=paid.amount_micro,
        paid_ms=paid.paid_ms,
        request_sha256=paid.request_sha256,
        msisdn=paid.msisdn,
        counted_micro=paid.amount_micro + paid.rounding_micro if in_cash else None,
        coin_micro=paid.coin_micro,
        moved_from=paid.top_up,
    )


def _moved_before(conn: Connection, paid: _Paid, to_meter: str) -> str:
    assert paid.moved_to is not None, "the caller looked"
    if conn.execute(query("meter_of_top_up"), {"top_up": paid.moved_to}).fetchone() != (to_meter,):
        raise Conflict("payment_moved", "this payment was moved to another meter: move that one")
    return paid.moved_to


def _check_movable(paid: _Paid, *, tokens_out: bool) -> None:
    if paid.reversed_why is not None:
        raise Conflict("payment_reversed", "this payment was taken back: pay the right meter anew")
    if paid.token_accepted:
        raise Conflict(
            "token_accepted",
            "the meter has taken this payment's token: its credit is there, enter an adjustment",
        )
    if paid.token_issued and not tokens_out:
        raise Conflict(
            "token_issued",
            "the tokens of this payment were shown and cannot be recalled: ask an operator to "
            "decide",
        )


def _check(who: str, reason: str) -> None:
    if not who.strip() or not reason.strip():
        raise Conflict("reason_missing", "say who decides and why: both are kept")


def _paid(conn: Connection, channel: str, partner_txn_id: str) -> _Paid:
    of = {"channel": channel, "partner_txn_id": partner_txn_id}
    row = conn.execute(query("top_up_to_move"), of).fetchone()
    if row is None:
        raise NotFound(f"Payment {partner_txn_id}")
    return _Paid(*row)


def _insert_reversal(conn: Connection, paid: _Paid, reason: str, at_ms: int) -> None:
    conn.execute(
        query("insert_reversal"),
        {
            "top_up": paid.top_up,
            "account": paid.account_id,
            "reversed_ms": at_ms,
            "reason": reason,
        },
    )


def _log(
    conn: Connection,
    who: str,
    action: str,
    paid: _Paid,
    channel: str,
    partner_txn_id: str,
    reason: str,
    after: Mapping[str, object],
    now_ms: int,
) -> None:
    audit_log.record(
        conn,
        who,
        action,
        f"payment:{channel}/{partner_txn_id}",
        now_ms,
        reason=reason,
        before={"meter": paid.meter, "amount_micro": paid.amount_micro},
        after=after,
        account=paid.account_id,
    )
