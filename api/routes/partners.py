"""Partners: banks, wallets and aggregators that take money for meters. Every request is signed."""

from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Response, status

from api import answers, payment_answers
from api.admission import KnownFirst
from api.answers import Answer, Instant, Money
from api.dependencies import Around, Database, Signed
from api.numbers import (
    business_date_of,
    check_currency,
    instant_ms,
    masked,
    meter_number,
    payment_micro,
    positive_micro,
    sum_micro,
)
from api.payment_answers import PartnerQuoteAnswer, PaymentAnswer, StandingAnswer
from api.requests import (
    Day,
    FileRequest,
    LineRequest,
    LookupRequest,
    PartnerQuoteRequest,
    PaymentRequest,
    ReversalRequest,
)
from api.settings import ApiSettings
from schemas.quantities import format_instant
from store import appeals, quotes, reads, reconciliation, suspects, top_ups, tracker
from store.errors import NotFound
from store.matching import Line, Trailer
from store.pool import Connection
from store.suspicion import of_the_future
from store.vending import Payment, content_sha256

router = APIRouter(prefix="/v1/partners", tags=["partners"], route_class=KnownFirst)

# A partner's number may have slashes, which are decoded before a route is looked for: it is a path.
TxnId = Annotated[str, Path(max_length=64, pattern=r"^[!-~]+$")]
BusinessDate = Annotated[Day, Path(description="A local date that is over.")]
# Where the answer to one request is asked for next.
STATUS_LINK: dict[str, Any] = {
    "status": {
        "operationId": "show_payment",
        "parameters": {"partner_txn_id": "$response.body#/partner_txn_id"},
        "description": "After any timeout.",
    },
    "reversal": {
        "operationId": "reverse_payment",
        "parameters": {"partner_txn_id": "$response.body#/partner_txn_id"},
        "requestBody": {"reason": "paid twice"},
    },
}


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
    as_of: Instant


@router.post("/lookup")
def look_up(conn: Database, around: Around, partner: Signed, body: LookupRequest) -> LookupAnswer:
    """Whom a payment for this meter or account would credit."""
    if body.meter is not None:
        account = reads.account_served_by(conn, meter_number(body.meter))
    else:
        account = reads.account(conn, body.account or "", None)
    now_ms = around.now_ms()
    share = top_ups.debt_share(conn, around.terms, account.id, now_ms)
    return LookupAnswer(
        account=account.number,
        meter=account.meter,
        holder=masked(account.holder),
        min=answers.money(around.settings.min_payment_micro, account.currency),
        max=answers.money(around.settings.max_payment_micro, account.currency),
        debt_share_percent=None if share is None else answers.percent(share),
        status="active",
        as_of=format_instant(now_ms),
    )


@router.post(
    "/quotes",
    responses={
        200: {
            "links": {
                "payment": {
                    "operationId": "take_payment",
                    "requestBody": {
                        "partner_txn_id": "$response.body#/quote_id",
                        "meter": "$request.body#/meter",
                        "amount": "$request.body#/amount",
                        "paid_at": "$response.body#/as_of",
                        "quote_id": "$response.body#/quote_id",
                    },
                    "description": "Under a number of your own.",
                }
            }
        }
    },
)
def quote_payment(
    conn: Database, around: Around, partner: Signed, body: PartnerQuoteRequest
) -> PartnerQuoteAnswer:
    """What a payment would buy now, line by line; it binds nobody."""
    amount_micro = payment_micro(body.amount, around.settings)
    meter = meter_number(body.meter)
    account = reads.account_served_by(conn, meter)
    check_currency(body.currency, account.currency)
    now_ms = around.now_ms()
    found = top_ups.offer(conn, around.terms, account.id, now_ms, amount_micro=amount_micro)
    quote_id = quotes.keep(
        conn,
        partner.code,
        account.id,
        meter,
        found.quote,
        found.basis,
        found.valid_until_ms,
        now_ms,
    )
    return payment_answers.partner_quote_answer(account, found, quote_id)


@router.post(
    "/payments",
    status_code=status.HTTP_201_CREATED,
    responses={
        201: {"description": "Credited.", "links": STATUS_LINK},
        202: {
            "model": PaymentAnswer,
            "description": "Taken, and waits for a person: the state is `suspect`, or `reversed` "
            "once it was sent back.",
            "links": STATUS_LINK,
        },
    },
)
def take_payment(
    conn: Database, around: Around, partner: Signed, body: PaymentRequest, response: Response
) -> PaymentAnswer:
    """Takes a payment that was made, once: credits it and issues its tokens, or holds it where
    something speaks against that. A repeat is given the first answer with the state of now; the
    same number with another content is a conflict.
    """
    meter = meter_number(body.meter)
    amount_micro = payment_micro(body.amount, around.settings)
    paid_ms = instant_ms(body.paid_at, "/paid_at")
    payment = Payment(
        channel=partner.code,
        partner_txn_id=body.partner_txn_id,
        meter=meter,
        amount_micro=amount_micro,
        paid_ms=paid_ms,
        request_sha256=content_sha256(
            meter,
            amount_micro,
            paid_ms,
            msisdn=body.msisdn,
            currency=body.currency,
            quote_id=body.quote_id,
        ),
        msisdn=body.msisdn,
        quote_id=body.quote_id,
    )
    # A repeat is answered whatever has changed since, the meter's exchange included.
    if body.currency is not None and not top_ups.is_taken(
        conn, partner.code, payment.partner_txn_id
    ):
        check_currency(body.currency, _currency(conn, around.settings, meter))
    now_ms = around.now_ms()
    suspects.receive(
        conn,
        around.terms,
        around.security_module,
        payment,
        now_ms,
        # By either clock: that of a demonstration may be of another day.
        against=of_the_future(paid_ms, max(now_ms, around.wall_ms())),
    )
    answer = _payment(conn, around, partner.code, body.partner_txn_id, now_ms)
    if answer.receipt_number is None:
        response.status_code = status.HTTP_202_ACCEPTED
    return answer


def _currency(conn: Connection, settings: ApiSettings, meter: str) -> str:
    try:
        return reads.account_served_by(conn, meter).currency
    except NotFound:
        return settings.currency


def _payment(
    conn: Connection, around: Around, channel: str, number: str, now_ms: int
) -> PaymentAnswer:
    track = tracker.of_payment(conn, channel, number)
    return payment_answers.payment_answer(track, number, around.settings.currency, now_ms)


@router.get("/payments/{partner_txn_id:path}")
def show_payment(
    conn: Database, around: Around, partner: Signed, partner_txn_id: TxnId
) -> PaymentAnswer:
    """After any timeout: the body of the first answer, with the state of now."""
    return _payment(conn, around, partner.code, partner_txn_id, around.now_ms())


@router.post("/payments/{partner_txn_id:path}/reversals", status_code=201)
def reverse_payment(
    conn: Database, around: Around, partner: Signed, partner_txn_id: TxnId, body: ReversalRequest
) -> PaymentAnswer:
    """Takes a payment back while no token left the building; else the answer is 409 and the request
    waits for an operator: `appeal` of the payment says what became of it.
    """
    now_ms = around.now_ms()
    appeals.take_back(conn, around.terms, partner.code, partner_txn_id, body.reason, now_ms)
    return _payment(conn, around, partner.code, partner_txn_id, now_ms)


@router.get("/recon/{business_date}")
def show_business_date(
    conn: Database, around: Around, partner: Signed, business_date: BusinessDate
) -> StandingAnswer:
    """What we have of a business date, line by line, and what your file of it came to."""
    return _standing(conn, around, partner.code, business_date_of(business_date))


@router.put("/recon/{business_date}")
def send_file(
    conn: Database, around: Around, partner: Signed, business_date: BusinessDate, body: FileRequest
) -> StandingAnswer:
    """Takes the file of a business date that is over and matches it with ours. The same file again
    changes nothing; a corrected one replaces what nobody decided yet.
    """
    day = business_date_of(business_date)
    trailer = Trailer(
        body.trailer.count,
        sum_micro(body.trailer.sum, "/trailer/sum"),
        bytes.fromhex(body.trailer.sha256),
    )
    reconciliation.reconcile(
        conn,
        partner.code,
        day,
        [_line(n, line) for n, line in enumerate(body.lines)],
        trailer,
        zone=around.settings.business_zone,
        who=f"partner:{partner.code}",
        now_ms=around.now_ms(),
    )
    return _standing(conn, around, partner.code, day)


def _line(place: int, line: LineRequest) -> Line:
    at = f"/lines/{place}"
    return Line(
        line.partner_txn_id,
        meter_number(line.meter, f"{at}/meter"),
        positive_micro(line.amount, f"{at}/amount"),
        instant_ms(line.paid_at, f"{at}/paid_at"),
    )


def _standing(conn: Connection, around: Around, channel: str, day: date) -> StandingAnswer:
    found = reconciliation.standing(conn, channel, day, around.settings.business_zone)
    return payment_answers.standing_answer(
        day.isoformat(), found, around.settings.currency, around.now_ms()
    )
