"""Bodies of answers: money as objects, energy in Wh, instants in RFC 3339 UTC."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from api.numbers import masked
from credit_engine.forecast import DaysLeft
from credit_engine.quote import Quote
from schemas.quantities import format_instant, format_micro
from schemas.wire import DesiredRelay, Relay
from store.issuing import WH_PER_UNIT
from store.quotes import quote_lines
from store.reads import MAY, Access, Account, Act, Balance, Entry, OpenedEntry, Slot
from store.top_up_tracker import OWNERS, Owner, TrackedState
from store.top_ups import IssuedToken, Offer, TopUp

_Item = TypeVar("_Item")

Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Amount = Annotated[str, Field(pattern=r"^-?[0-9]+\.[0-9]{6}$", examples=["123.456789"])]


class Answer(BaseModel):
    """Built by us from checked values."""

    model_config = ConfigDict(frozen=True)


class Money(Answer):
    amount: Amount
    currency: str


class AccountAnswer(Answer):
    """`role`: a customer's part in it, None for operators; `may`: what follows from it. A payer may
    pay, and of the holder sees initials.
    """

    account: str
    holder: str
    currency: str
    timezone: str
    meter: str | None
    role: Access | None
    may: list[Act]


class AccountPage(Answer):
    items: list[AccountAnswer]
    next_cursor: str | None


class DaysLeftAnswer(Answer):
    """Whole days, at most 365."""

    low: int
    likely: int
    high: int


class SupplyAnswer(Answer):
    """`desired` follows from the balance; `reported` is the meter's word, None before it spoke."""

    state: Literal["connected", "protected", "disconnected"]
    desired: DesiredRelay | None
    reported: Relay | None
    reported_at: Instant | None
    online: bool | None
    seen_at: Instant | None


class EmergencyAnswer(Answer):
    in_use: bool
    available: bool
    on_request: bool
    limit: Money | None


class ReadingAnswer(Answer):
    meter: str
    at: Instant
    wh: int


class BalanceAnswer(Answer):
    """`buys_wh` is None where energy is free; `days_left` is None with its reason beside it."""

    account: str
    balance: Money
    as_of: Instant
    buys_wh: int | None
    days_left: DaysLeftAnswer | None
    days_left_reason: Literal["too_few_days", "no_use"] | None
    supply: SupplyAnswer
    emergency: EmergencyAnswer
    debt: Money
    last_reading: ReadingAnswer | None


class SlotAnswer(Answer):
    """`(from, to]`; a gap that no reading reaches has neither energy nor cost."""

    from_: Instant = Field(serialization_alias="from")
    to: Instant
    wh: int | None
    cost: Amount | None
    quality: Literal["measured", "interpolated", "gap"]


class ConsumptionAnswer(Answer):
    account: str
    currency: str
    timezone: str
    resolution: Literal["raw", "hour", "day", "month"]
    as_of: Instant
    slots: list[SlotAnswer]


class EntryAnswer(Answer):
    """`amount` is what the balance moved by; `corrects` the entry whose amount this one mends."""

    id: str
    kind: Literal[
        "opening_debt", "energy", "standing", "daily_debt", "top_up", "reversal", "adjustment"
    ]
    from_: Instant | None = Field(serialization_alias="from")
    at: Instant
    recorded_at: Instant
    amount: Money
    balance_after: Money
    energy_wh: int
    band: str | None
    corrects: str | None


class EntryPage(Answer):
    items: list[EntryAnswer]
    next_cursor: str | None


class LegAnswer(Answer):
    ledger_account: str
    amount: Amount


class OpenedEntryAnswer(EntryAnswer):
    """`explanation`: for energy the registers from and to, the segment, the band with its blocks
    and prices per kWh, the taxes and the tariff version; instants and amounts as everywhere.
    """

    legs: list[LegAnswer]
    explanation: dict[str, Any]
    corrected_by: list[str]


class LineAnswer(Answer):
    name: str
    amount: Amount
    wh: int | None = None
    price: Amount | None = Field(default=None, description="Per kWh.")


class QuoteAnswer(Answer):
    """`lines` sum to `amount`."""

    account: str
    amount: Money
    energy_wh: int
    lines: list[LineAnswer]
    as_of: Instant
    valid_until: Instant


class StateAnswer(Answer):
    """`owner`: who has it in hand while it stands there; None where that is an end."""

    state: TrackedState
    at: Instant
    owner: Owner | None


class GoingOnAnswer(Answer):
    """Where the payer goes on. `passcode`: he makes one for `merchant` and `amount` in his app and
    confirms with it. `page`: his browser sends `fields` to `url` by `method`.
    """

    kind: Literal["passcode", "page"]
    merchant: str | None = None
    amount: str | None = None
    url: str | None = None
    method: Literal["GET", "POST"] | None = None
    fields: dict[str, str] = Field(default_factory=dict)


class _TopUpForm(Answer):
    """`states`: every state reached, with its time."""

    id: str
    account: str
    meter: str
    channel: str
    amount: Money
    energy_wh: int
    state: TrackedState
    states: list[StateAnswer]
    tokens: list[str] = Field(description="STS tokens, 20 digits each, in the order of entry.")
    lines: list[LineAnswer]
    as_of: Instant


class TopUpAnswer(_TopUpForm):
    """From its payment on. What comes with the credit (receipt number, lines, tokens, `top_up`, our
    number of it) is absent before.
    """

    receipt_number: str | None
    paid_at: Instant | None
    going_on: GoingOnAnswer | None
    top_up: str | None


class TopUpPage(Answer):
    items: list[TopUpAnswer]
    next_cursor: str | None


class TokenAnswer(Answer):
    """`result` is the meter's own word, named as in IEC 62055-41."""

    digits: str
    meter: str
    top_up: str
    ordinal: int
    token_class: int
    subclass: int
    energy_wh: int
    issued_at: Instant
    state: Literal["issued", "delivered", "accepted", "rejected", "replaced"]
    result: str | None
    answered_at: Instant | None


class TokenPage(Answer):
    items: list[TokenAnswer]
    as_of: Instant
    next_cursor: str | None


class EmergencyRequestAnswer(Answer):
    account: str
    in_use: bool
    as_of: Instant


def instant(at_ms: int | None) -> str | None:
    """RFC 3339, or None."""
    return None if at_ms is None else format_instant(at_ms)


def money(micro: int, currency: str) -> Money:
    return Money(amount=format_micro(micro), currency=currency)


def _money_form(micro: int, currency: str) -> dict[str, str]:
    return {"amount": format_micro(micro), "currency": currency}


def percent(ppm: int) -> str:
    """Parts per million as percents with 4 decimals, exactly: 160000 -> `"16.0000"`."""
    return f"{ppm // 10_000}.{ppm % 10_000:04d}"


def page(
    found: Sequence[_Item], limit: int, cursor: Callable[[_Item], str]
) -> tuple[Sequence[_Item], str | None]:
    """The items of a page and, when one more was found, where the next begins."""
    items = found[:limit]
    return items, cursor(items[-1]) if len(found) > limit else None


def account_answer(account: Account) -> AccountAnswer:
    return AccountAnswer(
        account=account.number,
        holder=masked(account.holder) if account.access == "payer" else account.holder,
        currency=account.currency,
        timezone=account.timezone,
        meter=account.meter,
        role=account.access,
        may=[] if account.access is None else list(MAY[account.access]),
    )


def balance_answer(account: Account, found: Balance) -> BalanceAnswer:
    return BalanceAnswer.model_validate(balance_form(account.number, account.currency, found))


def balance_form(number: str, currency: str, found: Balance) -> dict[str, object]:
    """A BalanceAnswer as JSON values, in the order of its fields."""
    status, meter, left = found.status, found.supply, found.days_left
    reading = None
    if meter is not None and meter.reading_ms is not None:
        at = format_instant(meter.reading_ms)
        reading = {"meter": meter.meter, "at": at, "wh": meter.reading_wh}
    limit = found.emergency_limit_micro
    return {
        "account": number,
        "balance": _money_form(status.balance_micro, currency),
        "as_of": format_instant(status.at_ms),
        "buys_wh": found.buys_wh,
        "days_left": {"low": left.low, "likely": left.likely, "high": left.high}
        if isinstance(left, DaysLeft)
        else None,
        "days_left_reason": None if isinstance(left, DaysLeft) else left,
        "supply": {
            "state": status.supply,
            "desired": None if meter is None else meter.desired_relay,
            "reported": None if meter is None else meter.reported_relay,
            "reported_at": None if meter is None else instant(meter.reported_ms),
            "online": None if meter is None else meter.online,
            "seen_at": None if meter is None else instant(meter.seen_ms),
        },
        "emergency": {
            "in_use": status.emergency_in_use,
            "available": status.emergency_available,
            "on_request": found.emergency_on_request,
            "limit": None if limit is None else _money_form(limit, currency),
        },
        "debt": _money_form(status.debt_outstanding_micro, currency),
        "last_reading": reading,
    }


def slot_answer(slot: Slot) -> SlotAnswer:
    return SlotAnswer(
        from_=format_instant(slot.from_ms),
        to=format_instant(slot.to_ms),
        wh=slot.wh,
        cost=None if slot.cost_micro is None else format_micro(slot.cost_micro),
        quality=slot.quality,
    )


def _entry_form(entry: Entry, currency: str) -> dict[str, object]:
    return {
        "id": str(entry.id),
        "kind": entry.kind,
        "from_": instant(entry.from_ms),
        "at": format_instant(entry.at_ms),
        "recorded_at": format_instant(entry.recorded_ms),
        "amount": money(entry.amount_micro, currency),
        "balance_after": money(entry.balance_micro, currency),
        "energy_wh": entry.energy_wh,
        "band": entry.band,
        "corrects": None if entry.corrects is None else str(entry.corrects),
    }


def entry_answer(entry: Entry, currency: str) -> EntryAnswer:
    return EntryAnswer.model_validate(_entry_form(entry, currency))


def opened_entry_answer(opened: OpenedEntry, currency: str) -> OpenedEntryAnswer:
    return OpenedEntryAnswer.model_validate(
        _entry_form(opened.entry, currency)
        | {
            "legs": [
                {"ledger_account": code, "amount": format_micro(micro)}
                for code, micro in opened.legs
            ],
            "explanation": spoken(opened.explanation),
            "corrected_by": [str(number) for number in opened.corrected_by],
        }
    )


def spoken(form: Any) -> Any:
    """An explanation as recorded, with its integers in the words of this contract.

    `*_micro` become decimal strings, `*_ms` instants, `*_ppm` percents and µ per Wh prices per kWh.
    """
    if isinstance(form, Mapping):
        return dict(_spoken_field(name, value) for name, value in form.items())
    if isinstance(form, Sequence) and not isinstance(form, str):
        return [spoken(each) for each in form]
    return form


def _spoken_field(name: str, value: Any) -> tuple[str, Any]:
    if isinstance(value, int) and not isinstance(value, bool):
        if name == "price_micro_per_wh":
            return "price", format_micro(value * 1000)
        if name.endswith("_micro"):
            return name.removesuffix("_micro"), format_micro(value)
        if name.endswith("_ms"):
            return name.removesuffix("_ms"), format_instant(value)
        if name == "ppm" or name.endswith("_ppm"):
            return name.removesuffix("ppm") + "percent", percent(value)
    if name == "valid_from":
        return "tariff_version", value
    return name, spoken(value)


def quote_answer(account: Account, offer: Offer) -> QuoteAnswer:
    offered: Quote = offer.quote
    return QuoteAnswer.model_validate(
        {
            "account": account.number,
            "amount": money(offered.amount_micro, account.currency),
            "energy_wh": offered.energy_wh,
            "lines": quote_lines(offered),
            "as_of": format_instant(offered.at_ms),
            "valid_until": format_instant(offer.valid_until_ms),
        }
    )


def masked_digits(digits: str) -> str:
    """A token for those who may know of it and not use it: its last four digits."""
    return "*" * (len(digits) - 4) + digits[-4:]


def state_forms(states: Sequence[tuple[TrackedState, int]]) -> list[dict[str, object]]:
    return [
        {"state": state, "at": format_instant(at_ms), "owner": OWNERS[state]}
        for state, at_ms in states
    ]


def top_up_form(top_up: TopUp, now_ms: int, *, digits: bool = True) -> dict[str, object]:
    return {
        "id": top_up.id,
        "account": top_up.account,
        "meter": top_up.meter,
        "channel": top_up.channel,
        "receipt_number": str(top_up.receipt_number),
        "amount": money(top_up.amount_micro, top_up.currency),
        "energy_wh": top_up.energy_wh,
        "paid_at": format_instant(top_up.paid_ms),
        "state": top_up.state,
        "states": state_forms(top_up.states()),
        "going_on": None,
        "top_up": top_up.id,
        "tokens": [each if digits else masked_digits(each) for each in top_up.tokens],
        "lines": list(top_up.lines),
        "as_of": format_instant(now_ms),
    }


def top_up_answer(top_up: TopUp, now_ms: int, *, digits: bool = True) -> TopUpAnswer:
    """`digits`: whether the caller may read the tokens."""
    return TopUpAnswer.model_validate(top_up_form(top_up, now_ms, digits=digits))


def token_answer(token: IssuedToken) -> TokenAnswer:
    return TokenAnswer(
        digits=token.digits,
        meter=token.meter,
        top_up=token.top_up,
        ordinal=token.ordinal,
        token_class=token.token_class,
        subclass=token.subclass,
        energy_wh=token.amount * WH_PER_UNIT,
        issued_at=format_instant(token.issued_ms),
        state=token.state,
        result=token.result,
        answered_at=instant(token.answered_ms),
    )
