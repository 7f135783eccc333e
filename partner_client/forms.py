"""Answers of the API as values. Fields that this version does not know are left out; a field of the
contract that is missing is `Unexpected`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from partner_client.errors import Unexpected

Form = Mapping[str, Any]
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Money:
    """`amount` is a decimal string with six decimals: keep it one, or make it a Decimal."""

    amount: str
    currency: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """Show `holder` to the payer: "is this you?". `debt_share_percent`: of each payment."""

    account: str
    meter: str | None
    holder: str
    least: Money
    most: Money
    debt_share_percent: str | None


@dataclass(frozen=True, slots=True)
class QuoteLine:
    """`name`: debt, owed, energy, a tax, or change; `wh` and `price` (per kWh) with energy only."""

    name: str
    amount: str
    wh: int | None
    price: str | None


@dataclass(frozen=True, slots=True)
class Quote:
    """What an amount buys now; the amounts of `lines` sum to `amount`. It binds nobody."""

    quote_id: str
    account: str
    amount: Money
    energy_wh: int
    lines: Sequence[QuoteLine]
    valid_until: str


@dataclass(frozen=True, slots=True)
class Change:
    what: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class NamedQuote:
    """`equal`: the payment bought what was quoted; None while it waits for a person."""

    quote_id: str
    equal: bool | None
    changed: Sequence[Change]


@dataclass(frozen=True, slots=True)
class Step:
    """`state`: done, awaited (nobody knows yet: not failed), refused, later, not_needed."""

    step: str
    owner: str
    state: str
    at: str | None
    note: str | None


@dataclass(frozen=True, slots=True)
class Moved:
    """The payer moved the payment to another meter: print these tokens."""

    at: str
    meter: str
    receipt_number: str
    tokens: Sequence[str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment as it was first answered, with the state of now."""

    partner_txn_id: str
    id: str
    meter: str
    account: str | None
    receipt_number: str | None
    amount: Money
    energy_wh: int
    state: str
    tokens: Sequence[str]
    lines: Sequence[QuoteLine]
    quote: NamedQuote | None
    suspicion: str | None
    moved: Moved | None
    appeal: str | None
    steps: Sequence[Step]
    waits_for: str | None

    @property
    def is_held(self) -> bool:
        """The money is with the utility and a person decides: keep it, and ask again later."""
        return self.state == "suspect"

    @property
    def is_back(self) -> bool:
        """Taken back: give the money back to the payer."""
        return self.state == "reversed"

    def __repr__(self) -> str:
        """Without tokens: they are worth what was paid for them."""
        return f"<Payment {self.partner_txn_id}: {self.state}, {len(self.tokens)} tokens>"


@dataclass(frozen=True, slots=True)
class Item:
    """One payment as both sides have it; `owner` acts; `decision` None: open."""

    cls: str
    partner_txn_id: str
    theirs: str | None
    ours: str | None
    owner: str
    action: str
    decision: str | None


@dataclass(frozen=True, slots=True)
class Standing:
    """A business date from both sides; `count`, `sum` and `sha256` are of what the utility has."""

    business_date: str
    count: int
    sum: str
    sha256: str
    items: Sequence[Item]

    def open(self) -> list[Item]:
        """What nobody decided yet."""
        return [item for item in self.items if item.decision is None]


def parsed(form: Any, make: Callable[[Form], _Value]) -> _Value:
    """The value of an answer. Errors: Unexpected."""
    try:
        return make(form)
    except (KeyError, TypeError, AttributeError):
        raise Unexpected("the answer lacks a field of the contract: look at the address") from None


def money(form: Form) -> Money:
    return Money(form["amount"], form["currency"])


def lookup(form: Form) -> Lookup:
    return Lookup(
        form["account"],
        form["meter"],
        form["holder"],
        money(form["min"]),
        money(form["max"]),
        form["debt_share_percent"],
    )


def _lines(forms: Sequence[Form]) -> tuple[QuoteLine, ...]:
    return tuple(
        QuoteLine(each["name"], each["amount"], each.get("wh"), each.get("price")) for each in forms
    )


def quote(form: Form) -> Quote:
    return Quote(
        form["quote_id"],
        form["account"],
        money(form["amount"]),
        form["energy_wh"],
        _lines(form["lines"]),
        form["valid_until"],
    )


def _named_quote(form: Form) -> NamedQuote:
    changed = tuple(Change(each["what"], each["before"], each["after"]) for each in form["changed"])
    return NamedQuote(form["quote_id"], form["equal"], changed)


def _moved(form: Form) -> Moved:
    return Moved(form["at"], form["meter"], form["receipt_number"], tuple(form["tokens"]))


def payment(form: Form) -> Payment:
    return Payment(
        partner_txn_id=form["partner_txn_id"],
        id=form["id"],
        meter=form["meter"],
        account=form["account"],
        receipt_number=form["receipt_number"],
        amount=money(form["amount"]),
        energy_wh=form["energy_wh"],
        state=form["state"],
        tokens=tuple(form["tokens"]),
        lines=_lines(form["lines"]),
        quote=None if form["quote"] is None else _named_quote(form["quote"]),
        suspicion=form["suspicion"],
        moved=None if form["moved"] is None else _moved(form["moved"]),
        appeal=form["appeal"],
        steps=tuple(
            Step(each["step"], each["owner"], each["state"], each["at"], each["note"])
            for each in form["steps"]
        ),
        waits_for=form["waits_for"],
    )


def standing(form: Form) -> Standing:
    trailer = form["trailer"]
    return Standing(
        form["business_date"],
        trailer["count"],
        trailer["sum"],
        trailer["sha256"],
        tuple(
            Item(
                each["class"],
                each["partner_txn_id"],
                each["theirs"],
                each["ours"],
                each["owner"],
                each["action"],
                each["decision"],
            )
            for each in form["items"]
        ),
    )
