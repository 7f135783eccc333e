"""Partners: banks, wallets and aggregators that take money for meters. Every request is signed."""

import hashlib
from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Path

from api import answers
from api.answers import Answer, Money, PaymentAnswer, QuoteAnswer
from api.dependencies import Around, Database, Signed
from api.numbers import check_currency, instant_ms, masked, meter_number, payment_micro
from api.requests import LookupRequest, PartnerQuoteRequest, PaymentRequest, ReversalRequest
from store import reads, top_ups, vending
from store.vending import Payment

router = APIRouter(prefix="/v1/partners", tags=["partners"])

TxnId = Annotated[str, Path(max_length=64, pattern=r"^[!-~]+$")]


class LookupAnswer(Answer):
    """Enough to ask the payer "is this you?" and no more. `debt_share_percent`: of each payment,
    None where no debt takes a share now.
    """

    account: str
    meter: str | None
    holder: str
    min: Money
    max: Money
    debt_share_percent: str | None
    status: Literal["active"]


@router.post("/lookup")
def look_up(conn: Database, around: Around, partner: Signed, body: LookupRequest) -> LookupAnswer:
    """Whom a payment for this meter or account would credit."""
    if body.meter is not None:
        account = reads.account_served_by(conn, meter_number(body.meter))
    else:
        account = reads.account(conn, body.account or "", None)
    share = top_ups.debt_share(conn, around.terms, account.id)
    return LookupAnswer(
        account=account.number,
        meter=account.meter,
        holder=masked(account.holder),
        min=answers.money(around.settings.min_payment_micro, account.currency),
        max=answers.money(around.settings.max_payment_micro, account.currency),
        debt_share_percent=None if share is None else answers.percent(share),
        status="active",
    )


@router.post("/quotes")
def quote_payment(
    conn: Database, around: Around, partner: Signed, body: PartnerQuoteRequest
) -> QuoteAnswer:
    """What a payment would buy now, line by line; it binds nobody."""
    amount_micro = payment_micro(body.amount, around.settings)
    account = reads.account_served_by(conn, meter_number(body.meter))
    check_currency(body.currency, account.currency)
    found = top_ups.offer(
        conn, around.terms, account.id, around.now_ms(), amount_micro=amount_micro
    )
    return answers.quote_answer(account, found)


@router.post("/payments", status_code=201)
def take_payment(
    conn: Database, around: Around, partner: Signed, body: PaymentRequest
) -> PaymentAnswer:
    """Credits a payment and issues its tokens, once: a repeat is given the first answer with the
    state of now, and the same number with another content is a conflict.
    """
    payment = Payment(
        channel=partner.code,
        partner_txn_id=body.partner_txn_id,
        meter=meter_number(body.meter),
        amount_micro=payment_micro(body.amount, around.settings),
        paid_ms=instant_ms(body.paid_at, "/paid_at"),
        request_sha256=_content_sha256(body, around),
        msisdn=body.msisdn,
    )
    # A repeat is answered whatever has changed since, the meter's exchange included.
    if not top_ups.is_taken(conn, partner.code, payment.partner_txn_id):
        account = reads.account_served_by(conn, payment.meter)
        check_currency(body.currency, account.currency)
    now_ms = around.now_ms()
    vending.vend(conn, around.terms, around.security_module, payment, now_ms)
    found = top_ups.top_up_by_payment(conn, partner.code, payment.partner_txn_id)
    return answers.payment_answer(found, now_ms)


def _content_sha256(body: PaymentRequest, around: Around) -> bytes:
    """Of what the request means: other blanks, digits or order of keys are the same request."""
    form = {
        "meter": meter_number(body.meter),
        "amount_micro": payment_micro(body.amount, around.settings),
        "paid_ms": instant_ms(body.paid_at, "/paid_at"),
        "msisdn": body.msisdn,
        "currency": body.currency,
    }
    return hashlib.sha256(orjson.dumps(form, option=orjson.OPT_SORT_KEYS)).digest()


@router.get("/payments/{partner_txn_id}")
def show_payment(
    conn: Database, around: Around, partner: Signed, partner_txn_id: TxnId
) -> PaymentAnswer:
    """After any timeout: the body of the first answer, with the state of now."""
    found = top_ups.top_up_by_payment(conn, partner.code, partner_txn_id)
    return answers.payment_answer(found, around.now_ms())


@router.post("/payments/{partner_txn_id}/reversals", status_code=201)
def reverse_payment(
    conn: Database, around: Around, partner: Signed, partner_txn_id: TxnId, body: ReversalRequest
) -> PaymentAnswer:
    """Takes a payment back while no token left the building; else an operator decides."""
    now_ms = around.now_ms()
    vending.reverse(conn, around.terms, partner.code, partner_txn_id, body.reason, now_ms)
    found = top_ups.top_up_by_payment(conn, partner.code, partner_txn_id)
    return answers.payment_answer(found, now_ms)
