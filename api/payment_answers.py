"""Bodies of answers about payments: their track, quotes, what waits for a person, daily files."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from api import answers
from api.answers import Amount, Answer, Instant, LineAnswer, Money, QuoteAnswer, StateAnswer
from schemas.quantities import format_instant, format_micro
from store.appeals import Appeal
from store.matching import Class, Line, Trailer
from store.reads import Account
from store.reconciliation import ReconciliationItem, Standing
from store.suspicion import Kind
from store.top_ups import Offer
from store.tracker import Owner, Step, StepName, StepState, Track
from store.worklists import HeldPayment

AppealState = Literal["asked", "proposed", "granted", "refused"]


class PartnerQuoteAnswer(QuoteAnswer):
    """`quote_id`: name it in the payment, and its answer says what changed in between."""

    quote_id: str


class ChangeAnswer(Answer):
    """`what`: balance, debt, consumed_wh, tariff_version, ..., as the quote follows from them."""

    what: str
    before: str
    after: str


class NamedQuoteAnswer(Answer):
    """`equal`: the payment bought what was quoted, line by line; None while it waits."""

    quote_id: str
    equal: bool | None
    changed: list[ChangeAnswer]


class StepAnswer(Answer):
    """`owner` makes the step happen. `awaited` is not failed: nobody knows yet."""

    step: StepName
    owner: Owner
    state: StepState
    at: Instant | None
    note: str | None


class MovedAnswer(Answer):
    """Where the payment's credit is now; its tokens are those of this meter."""

    at: Instant
    meter: str
    receipt_number: str
    tokens: list[str]


class PaymentAnswer(Answer):
    """A payment as it was first answered, with `state`, `steps` and `as_of` of now.

    `suspect`: the money is here and waits for a person (`suspicion` says why); `account` and
    `receipt_number` come when it is credited. `waits_for`: who acts next, None when all is done.
    `appeal`: what became of a reversal or a move that an operator has to grant.
    """

    id: str
    partner_txn_id: str
    channel: str
    meter: str
    account: str | None
    receipt_number: str | None
    amount: Money
    energy_wh: int
    paid_at: Instant
    state: Literal[
        "suspect",
        "received",
        "credited",
        "token_issued",
        "delivered",
        "accepted",
        "on_supply",
        "rejected",
        "reversed",
    ]
    states: list[StateAnswer]
    tokens: list[str] = Field(description="STS tokens, 20 digits each, in the order of entry.")
    lines: list[LineAnswer]
    quote: NamedQuoteAnswer | None
    suspicion: Kind | None
    moved: MovedAnswer | None
    appeal: AppealState | None
    steps: list[StepAnswer]
    waits_for: Owner | None
    as_of: Instant


class OperatorPaymentAnswer(PaymentAnswer):
    """`became_debt`: what was consumed before the payment was taken back."""

    suspicion_detail: str | None
    became_debt: Money | None


class OperatorPaymentPage(Answer):
    items: list[OperatorPaymentAnswer]
    next_cursor: str | None


class SuspectAnswer(Answer):
    """Money that waits or waited; `account`: whom its meter serves, None where nobody has it."""

    id: str
    channel: str
    partner_txn_id: str
    meter: str
    account: str | None
    amount: Money
    paid_at: Instant
    suspicion: Kind
    detail: str
    held_at: Instant
    decision: Literal["credited", "returned"] | None
    decided_by: str | None
    decided_at: Instant | None
    reason: str | None
    top_up: str | None


class SuspectPage(Answer):
    items: list[SuspectAnswer]
    next_cursor: str | None


class AppealAnswer(Answer):
    """`proposed`: one of two people has granted it. `payment` is our id."""

    id: int
    kind: Literal["reversal", "move"]
    payment: str
    channel: str
    partner_txn_id: str
    account: str
    meter: str
    to_meter: str | None
    amount: Money
    asked_by: str
    reason: str
    asked_at: Instant
    state: AppealState
    proposed_by: str | None
    decided_by: str | None
    decided_at: Instant | None
    note: str | None


class AppealPage(Answer):
    items: list[AppealAnswer]
    next_cursor: str | None


class MoveAnswer(Answer):
    """`id` is the top-up at the meter that was meant; `tokens` are for that meter."""

    id: str
    moved_from: str
    meter: str
    amount: Money
    energy_wh: int
    receipt_number: str
    tokens: list[str]
    moved_at: Instant


class FileLineAnswer(Answer):
    partner_txn_id: str
    meter: str
    amount: Amount
    paid_at: Instant


class TrailerAnswer(Answer):
    count: int
    sum: Amount
    sha256: str


class FileAnswer(Answer):
    """The partner's file that stands."""

    sha256: str
    received_at: Instant


class ItemAnswer(Answer):
    """One payment as both sides have it, in `currency`; `owner` acts. `payment` is our id."""

    id: int
    channel: str
    business_date: str
    class_: Class = Field(serialization_alias="class")
    partner_txn_id: str
    payment: str | None
    theirs: Amount | None
    ours: Amount | None
    currency: str
    owner: str
    action: str
    age_days: int
    opened_at: Instant
    decision: str | None
    note: str | None
    closed_at: Instant | None
    as_of: Instant


class ItemPage(Answer):
    items: list[ItemAnswer]
    as_of: Instant
    next_cursor: str | None


class StandingAnswer(Answer):
    """A business date from both sides: our lines and trailer, your file, and every item of both;
    every amount is in `currency`.
    """

    business_date: str
    currency: str
    lines: list[FileLineAnswer]
    trailer: TrailerAnswer
    file: FileAnswer | None
    items: list[ItemAnswer]
    as_of: Instant


def partner_quote_answer(account: Account, offer: Offer, quote_id: str) -> PartnerQuoteAnswer:
    form = answers.quote_answer(account, offer).model_dump()
    return PartnerQuoteAnswer.model_validate(form | {"quote_id": quote_id})


def payment_form(
    track: Track, number: str, currency: str, now_ms: int, *, digits: bool = True
) -> dict[str, object]:
    """`currency`: of a payment for a meter that nobody has; `number`: the partner's own."""
    head = _credited_form(track, now_ms, digits=digits)
    if head is None:
        head = _held_form(track, track.currency or currency)
    quote = track.quote
    return {
        **head,
        "partner_txn_id": number,
        "state": track.state,
        "states": answers.state_forms(track.states()),
        "quote": None
        if quote is None
        else {
            "quote_id": quote.quote_id,
            "equal": quote.equal,
            "changed": [dict(each) for each in quote.changed],
        },
        "suspicion": None if track.suspect is None else track.suspect.suspicion,
        "moved": _moved_form(track, digits=digits),
        "appeal": None if track.appeal is None else track.appeal.state,
        "steps": [step_answer(step) for step in track.steps],
        "waits_for": track.waits_for,
        "as_of": format_instant(now_ms),
    }


def _credited_form(track: Track, now_ms: int, *, digits: bool) -> dict[str, object] | None:
    if track.top_up is None:
        return None
    return answers.top_up_form(track.top_up, now_ms, digits=digits)


def _held_form(track: Track, currency: str) -> dict[str, object]:
    held = track.suspect
    assert held is not None, "it was credited, or it is held"
    return {
        "id": held.id,
        "channel": held.channel,
        "meter": held.meter,
        "account": None,
        "receipt_number": None,
        "amount": answers.money(held.amount_micro, currency),
        "energy_wh": 0,
        "paid_at": format_instant(held.paid_ms),
        "tokens": [],
        "lines": [],
    }


def _moved_form(track: Track, *, digits: bool) -> dict[str, object] | None:
    if track.moved is None:
        return None
    return {
        "at": format_instant(track.moved.credited_ms),
        "meter": track.moved.meter,
        "receipt_number": str(track.moved.receipt_number),
        "tokens": [each if digits else answers.masked_digits(each) for each in track.moved.tokens],
    }


def payment_answer(track: Track, number: str, currency: str, now_ms: int) -> PaymentAnswer:
    return PaymentAnswer.model_validate(payment_form(track, number, currency, now_ms))


def operator_payment_answer(
    track: Track, number: str, currency: str, now_ms: int, *, digits: bool
) -> OperatorPaymentAnswer:
    debt = track.became_debt_micro
    return OperatorPaymentAnswer.model_validate(
        payment_form(track, number, currency, now_ms, digits=digits)
        | {
            "suspicion_detail": None if track.suspect is None else track.suspect.detail,
            "became_debt": None
            if debt is None
            else answers.money(debt, track.currency or currency),
        }
    )


def step_answer(step: Step) -> StepAnswer:
    return StepAnswer(
        step=step.step,
        owner=step.owner,
        state=step.state,
        at=answers.instant(step.at_ms),
        note=step.note,
    )


def suspect_answer(held: HeldPayment, currency: str) -> SuspectAnswer:
    found = held.suspect
    return SuspectAnswer.model_validate(
        {
            "id": found.id,
            "channel": found.channel,
            "partner_txn_id": found.partner_txn_id,
            "meter": found.meter,
            "account": held.account,
            "amount": answers.money(found.amount_micro, held.currency or currency),
            "paid_at": format_instant(found.paid_ms),
            "suspicion": found.suspicion,
            "detail": found.detail,
            "held_at": format_instant(found.held_ms),
            "decision": found.decision,
            "decided_by": found.decided_by,
            "decided_at": answers.instant(found.decided_ms),
            "reason": found.reason,
            "top_up": found.top_up,
        }
    )


def appeal_answer(appeal: Appeal) -> AppealAnswer:
    return AppealAnswer.model_validate(
        {
            "id": appeal.id,
            "kind": appeal.kind,
            "payment": appeal.top_up,
            "channel": appeal.channel,
            "partner_txn_id": appeal.partner_txn_id,
            "account": appeal.account,
            "meter": appeal.meter,
            "to_meter": appeal.to_meter,
            "amount": answers.money(appeal.amount_micro, appeal.currency),
            "asked_by": appeal.asked_by,
            "reason": appeal.reason,
            "asked_at": format_instant(appeal.asked_ms),
            "state": appeal.state,
            "proposed_by": appeal.proposed_by,
            "decided_by": appeal.decided_by,
            "decided_at": answers.instant(appeal.decided_ms),
            "note": appeal.note,
        }
    )


def item_answer(item: ReconciliationItem, currency: str, now_ms: int) -> ItemAnswer:
    """`currency`: of this installation's partners, as no file names one."""
    return ItemAnswer(
        id=item.id,
        channel=item.channel,
        business_date=item.business_date.isoformat(),
        class_=item.cls,
        partner_txn_id=item.partner_txn_id,
        payment=item.payment,
        theirs=None if item.their_micro is None else format_micro(item.their_micro),
        ours=None if item.our_micro is None else format_micro(item.our_micro),
        currency=currency,
        owner=item.owner,
        action=item.action,
        age_days=item.age_days(now_ms),
        opened_at=format_instant(item.opened_ms),
        decision=item.decision,
        note=item.note,
        closed_at=answers.instant(item.closed_ms),
        as_of=format_instant(now_ms),
    )


def standing_answer(
    business_date: str, standing: Standing, currency: str, now_ms: int
) -> StandingAnswer:
    file = standing.file
    return StandingAnswer(
        business_date=business_date,
        currency=currency,
        lines=[_line_answer(line) for line in standing.lines],
        trailer=_trailer_answer(standing.trailer),
        file=None
        if file is None
        else FileAnswer(sha256=file.sha256.hex(), received_at=format_instant(file.received_ms)),
        items=[item_answer(item, currency, now_ms) for item in standing.items],
        as_of=format_instant(now_ms),
    )


def _line_answer(line: Line) -> FileLineAnswer:
    return FileLineAnswer(
        partner_txn_id=line.partner_txn_id,
        meter=line.meter,
        amount=format_micro(line.amount_micro),
        paid_at=format_instant(line.paid_ms),
    )


def _trailer_answer(trailer: Trailer) -> TrailerAnswer:
    return TrailerAnswer(
        count=trailer.count, sum=format_micro(trailer.sum_micro), sha256=trailer.sha256.hex()
    )


def move_answer(track: Track, top_up: str, *, digits: bool) -> MoveAnswer:
    """The top-up that took the place of `top_up`, without what is its account's own."""
    moved = track.moved
    assert moved is not None, "it was just moved"
    form: Mapping[str, object] = {
        "id": moved.id,
        "moved_from": top_up,
        "meter": moved.meter,
        "amount": answers.money(moved.amount_micro, moved.currency),
        "energy_wh": moved.energy_wh,
        "receipt_number": str(moved.receipt_number),
        "tokens": [each if digits else answers.masked_digits(each) for each in moved.tokens],
        "moved_at": format_instant(moved.credited_ms),
    }
    return MoveAnswer.model_validate(form)
