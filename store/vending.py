"""A payment becomes credit, tokens and orders in one transaction, once.

The money, its split, the quote that it was given, the tokens (stored before anybody sees them) and
the commands that carry them are one commit. The same payment again is the first answer. Where the
meter's key is not the current one, the tokens begin with a key change set (`store.key_changes`).
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from psycopg import Connection
from psycopg.types.json import Jsonb

from credit_engine.errors import CreditError
from credit_engine.quote import Quote, quote
from schemas.identity import command_id
from schemas.quantities import format_micro, in_coins
from store import audit_log, decisions, quotes, unsettled
from store.errors import Conflict, NotFound
from store.issuing import issue_credit
from store.key_changes import lock_token_meter
from store.quotes import Basis, basis_of, quote_lines
from store.settlement import AccountState, Settled, lock_accounts, look, settle_account
from store.sql import query
from store.terms import TermsCache
from tokens.security_module import SecurityModule


@dataclass(frozen=True, slots=True)
class Payment:
    """Money that a channel received for a meter. `request_sha256` is that of the request's body."""

    channel: str
    partner_txn_id: str
    meter: str
    amount_micro: int
    paid_ms: int
    request_sha256: bytes
    msisdn: str | None = None
    # of cash: what was counted, and the smallest coin (None: every amount can be counted)
    counted_micro: int | None = None
    coin_micro: int | None = None
    # the top-up that this one takes the place of (store.reversals)
    moved_from: str | None = None
    # what the payer was shown before; it binds nobody (store.quotes)
    quote_id: str | None = None

    @property
    def rounding_micro(self) -> int:
        """What was counted above the amount; the account is credited with the amount."""
        return 0 if self.counted_micro is None else self.counted_micro - self.amount_micro


def content_sha256(
    meter: str,
    amount_micro: int,
    paid_ms: int,
    *,
    msisdn: str | None = None,
    currency: str | None = None,
    quote_id: str | None = None,
) -> bytes:
    """Of what a payment means: other blanks, digits or order of keys are the same payment."""
    form: dict[str, object] = {
        "meter": meter,
        "amount_micro": amount_micro,
        "paid_ms": paid_ms,
        "msisdn": msisdn,
        "currency": currency,
    }
    if quote_id is not None:
        form["quote_id"] = quote_id
    return hashlib.sha256(orjson.dumps(form, option=orjson.OPT_SORT_KEYS)).digest()


@dataclass(frozen=True, slots=True)
class VendingMeter:
    """The meter that serves an account now."""

    id: int
    account_id: int
    takes_tokens: bool


def vend(
    conn: Connection, terms: TermsCache, module: SecurityModule, payment: Payment, now_ms: int
) -> str:
    """Credit a payment and issue its tokens; returns the top-up's id, the same for a repeat.

    Errors: NotFound (no such meter, or it serves no account); Conflict `idempotency_conflict` (the
    same number with another body), `cash_miscounted`, `clock_behind`; TokenError (an expired key).
    """
    _check_cash(payment)
    with conn.transaction():
        known = known_top_up(conn, payment)
        if known is not None:
            return known
        meter = _meter(conn, payment.meter)
        state = lock_accounts(conn, [meter.account_id])[meter.account_id]
        # Two repeats at once meet at the lock of the account; the second finds the first.
        known = known_top_up(conn, payment)
        if known is not None:
            return known
        return _credit(conn, terms, module, payment, meter, state, now_ms)


def _check_cash(payment: Payment) -> None:
    """Cash is counted in coins: the nearest to the amount, and more than none."""
    if payment.counted_micro is None:
        return
    coin = payment.coin_micro or 1
    nearest = in_coins(payment.amount_micro, coin)
    if payment.counted_micro != nearest or nearest == 0:
        raise Conflict(
            "cash_miscounted",
            f"{format_micro(payment.amount_micro)} in coins of {format_micro(coin)} is "
            f"{format_micro(nearest)}: count that, or ask for another amount",
        )


def known_top_up(conn: Connection, payment: Payment) -> str | None:
    """The top-up of this very payment. Errors: Conflict `idempotency_conflict`."""
    of = {"channel": payment.channel, "partner_txn_id": payment.partner_txn_id}
    row = conn.execute(query("top_up_of_payment"), of).fetchone()
    if row is None:
        return None
    if bytes(row[1]) != payment.request_sha256:
        raise Conflict(
            "idempotency_conflict",
            f"payment {payment.partner_txn_id} was already taken with another content: "
            "send the same body, or a new number for a new payment",
        )
    return str(row[0])


def find_vending_meter(conn: Connection, number: str) -> VendingMeter | None:
    """The meter of a number, where it serves an account."""
    row = conn.execute(query("meter_for_vending"), {"number": number}).fetchone()
    return None if row is None else VendingMeter(*row)


def _meter(conn: Connection, number: str) -> VendingMeter:
    meter = find_vending_meter(conn, number)
    if meter is None:
        raise NotFound(f"A meter {number} that serves an account")
    return meter


def _quote(
    conn: Connection, terms: TermsCache, state: AccountState, amount_micro: int, now_ms: int
) -> tuple[Quote | None, Basis]:
    """What an amount buys, None where no amount bounds the energy, and what that follows from."""
    outcome = look(conn, terms, state, now_ms)
    agreed = terms.get(conn, state.account_id, state.terms_revision)
    try:
        offered = quote(agreed, outcome.totals, outcome.status.at_ms, amount_micro)
    except CreditError as error:
        if error.code != "free_energy":
            raise
        offered = None
    return offered, basis_of(state, agreed, outcome)


def _credit(
    conn: Connection,
    terms: TermsCache,
    module: SecurityModule,
    payment: Payment,
    meter: VendingMeter,
    state: AccountState,
    now_ms: int,
) -> str:
    # Free energy needs no token: the money is credited all the same.
    offered, basis = _quote(conn, terms, state, payment.amount_micro, now_ms)
    top_up = command_id(now_ms, secrets.token_bytes(10))
    _insert(conn, payment, meter, top_up, now_ms, offered)
    if payment.quote_id is not None:
        quotes.compare(
            conn,
            payment.channel,
            payment.partner_txn_id,
            payment.quote_id,
            payment.meter,
            payment.amount_micro,
            offered,
            basis,
        )
    settled = settle_account(conn, terms, state, (), now_ms, touched_from_ms=now_ms)
    # Before the order for the relay: a meter enters the token, then closes.
    if offered is not None and offered.energy_wh and meter.takes_tokens:
        token_meter = lock_token_meter(conn, meter.id, now_ms)
        issue_credit(conn, module, token_meter, top_up, offered.energy_wh, now_ms)
    decisions.record(conn, [settled], now_ms)
    return top_up


def _cash_lines(payment: Payment) -> list[Mapping[str, object]]:
    """On the receipt, the difference between the amount and the coins."""
    rounding = payment.rounding_micro
    return [{"name": "cash_rounding", "amount": format_micro(rounding)}] if rounding else []


def record_top_up(
    conn: Connection,
    terms: TermsCache,
    payment: Payment,
    top_up: str,
    credited_ms: int,
    now_ms: int,
) -> bool:
    """Record credit that was given at an earlier instant, without tokens: an import.

    False when this very top-up is recorded already. Errors: NotFound; Conflict
    `idempotency_conflict` (the same number with another body).
    """
    with conn.transaction():
        meter = _meter(conn, payment.meter)
        state = lock_accounts(conn, [meter.account_id])[meter.account_id]
        if known_top_up(conn, payment) is not None:
            return False
        _insert(conn, payment, meter, top_up, credited_ms, None)
        _settle_fact(conn, terms, state, credited_ms, now_ms)
        return True


def record_reversal(
    conn: Connection, terms: TermsCache, top_up: str, account_id: int, at_ms: int, now_ms: int
) -> None:
    """Record that a top-up was taken back at an earlier instant: an import. A repeat is one."""
    with conn.transaction():
        state = lock_accounts(conn, [account_id])[account_id]
        conn.execute(
            query("insert_reversal"),
            {"top_up": top_up, "account": account_id, "reversed_ms": at_ms, "reason": "import"},
        )
        _settle_fact(conn, terms, state, at_ms, now_ms)


def record_emergency_request(
    conn: Connection, terms: TermsCache, account_id: int, at_ms: int, now_ms: int
) -> None:
    """Record a request for emergency credit that was made at an earlier instant: an import."""
    with conn.transaction():
        state = lock_accounts(conn, [account_id])[account_id]
        conn.execute(
            query("insert_emergency_request"), {"account": account_id, "requested_ms": at_ms}
        )
        _settle_fact(conn, terms, state, at_ms, now_ms)


def _insert(
    conn: Connection,
    payment: Payment,
    meter: VendingMeter,
    top_up: str,
    credited_ms: int,
    offered: Quote | None,
) -> None:
    inserted = conn.execute(
        query("insert_top_up"),
        {
            "id": top_up,
            "account": meter.account_id,
            "meter": meter.id,
            "channel": payment.channel,
            "partner_txn_id": payment.partner_txn_id,
            "request_sha256": payment.request_sha256,
            "amount_micro": payment.amount_micro,
            "paid_ms": payment.paid_ms,
            "credited_ms": credited_ms,
            "energy_wh": 0 if offered is None else offered.energy_wh,
            "lines": Jsonb(
                [*([] if offered is None else quote_lines(offered)), *_cash_lines(payment)]
            ),
            "coin_micro": None if payment.counted_micro is None else payment.coin_micro,
            "rounding_micro": payment.rounding_micro,
            "moved_from": payment.moved_from,
            "msisdn": payment.msisdn,
        },
    ).fetchone()
    unsettled.credited(conn, payment.channel, payment.partner_txn_id, credited_ms)
    if inserted is None:
        # The same number for another meter, at the same moment: that account's lock was not ours.
        raise Conflict(
            "idempotency_conflict",
            f"payment {payment.partner_txn_id} was just taken for another meter: use a new number",
        )


def reverse(
    conn: Connection,
    terms: TermsCache,
    channel: str,
    partner_txn_id: str,
    reason: str,
    now_ms: int,
) -> str:
    """Take a payment back while no token left the building; returns the top-up's id.

    Errors: NotFound; Conflict `token_issued` (an operator decides). A repeat is the first answer.
    """
    of = {"channel": channel, "partner_txn_id": partner_txn_id}
    with conn.transaction():
        row = conn.execute(query("top_up_to_reverse"), of).fetchone()
        if row is None:
            raise NotFound(f"Payment {partner_txn_id}")
        account_id = row[1]
        state = lock_accounts(conn, [account_id])[account_id]
        row = conn.execute(query("top_up_to_reverse"), of).fetchone()
        assert row is not None, "top-ups are never deleted"
        top_up, _, credited_ms, token_issued, reversed_already = row
        if reversed_already:
            return str(top_up)
        if token_issued:
            raise Conflict(
                "token_issued",
                f"the tokens of payment {partner_txn_id} are issued and cannot be recalled: "
                "ask an operator to decide",
            )
        at_ms = max(now_ms, credited_ms)
        conn.execute(
            query("insert_reversal"),
            {"top_up": top_up, "account": account_id, "reversed_ms": at_ms, "reason": reason},
        )
        _settle_fact(conn, terms, state, at_ms, now_ms)
        return str(top_up)


def request_emergency_credit(
    conn: Connection,
    terms: TermsCache,
    account_id: int,
    now_ms: int,
    *,
    operator: str | None = None,
    reason: str | None = None,
) -> bool:
    """Ask for emergency credit; returns whether it is in use now. `operator`: who asks in the
    holder's place, and why.

    Errors: Conflict `not_on_request` where the account's terms offer none on request.
    """
    with conn.transaction():
        states = lock_accounts(conn, [account_id])
        if not states:
            raise NotFound("The account")
        state = states[account_id]
        offer = terms.get(conn, account_id, state.terms_revision).emergency
        if offer is None or not offer.on_request:
            raise Conflict(
                "not_on_request", "this account has no emergency credit that is asked for"
            )
        conn.execute(
            query("insert_emergency_request"), {"account": account_id, "requested_ms": now_ms}
        )
        before = state.emergency_in_use
        in_use = _settle_fact(conn, terms, state, now_ms, now_ms).state.emergency_in_use
        if operator is not None:
            audit_log.record(
                conn,
                operator,
                "account.emergency_credit",
                audit_log.account_subject(conn, account_id),
                now_ms,
                reason=reason,
                before={"in_use": before},
                after={"in_use": in_use},
                account=account_id,
            )
        return in_use


def _settle_fact(
    conn: Connection, terms: TermsCache, state: AccountState, at_ms: int, now_ms: int
) -> Settled:
    settled = settle_account(conn, terms, state, (), now_ms, touched_from_ms=at_ms)
    decisions.record(conn, [settled], now_ms)
    return settled
