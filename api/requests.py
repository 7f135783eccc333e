"""Bodies of requests. Text stays text here; `api.numbers` judges it with a code of its own."""

import re
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    model_validator,
)

from schemas.contacts import typed_digits
from store.engineering import Work
from store.holds import HoldKind

# Bounds on what people and programs name things; longer is a mistake, not a name.
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[!-~]+$")]
# A name that stands alone in a path of ours: a slash would end it there, and what lies on the way
# (clients, proxies) takes `.` and `..` for steps through the path.
_STEPLESS = r"(\.*[!-\-0-~][!-.0-~]*|\.{3,})"
Segment = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=rf"^{_STEPLESS}$")]
# A partner chooses his own, and may well number by date: slashes, but no such steps between them.
PartnerNumber = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64, pattern=rf"^{_STEPLESS}?(/{_STEPLESS}?)*$"),
]
Number = Annotated[str, StringConstraints(min_length=1, max_length=40)]
Name = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=200, strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f]+$"
    ),
]
# Of a daily file: what the limit on its bytes has room for.
MAX_LINES = 50_000
# Of engineering tokens: the control of a meter test, of 36 bits; all ones is test 0.
WIDEST_FIELD = 2**36 - 1
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


def _typed(value: object) -> object:
    """A whole number that a person typed into a form, in the digits of his keyboard."""
    if isinstance(value, str):
        plain = typed_digits(value.strip())
        if plain.isascii() and plain.isdigit() and len(plain) <= 10:
            return int(plain)
    return value


# Either a number, or its digits as text.
TypedInt = Annotated[int, BeforeValidator(_typed)]


def typed_name(value: object) -> object:
    """A name or number as its owner wrote it, in the digits of his keyboard."""
    return typed_digits(value).strip() if isinstance(value, str) else value


# Of whatever people type in to name an account, in a body, a path or a filter.
Typed = BeforeValidator(typed_name)
AccountNumber = Annotated[Identifier, Typed]


def _day(value: object) -> object:
    """Seconds since 1970 and instants are no dates, though they could be read as some."""
    if (
        not isinstance(value, date)
        and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", str(value)) is None
    ):
        raise ValueError("write a date as 2026-03-01")
    return value


# A local date.
Day = Annotated[date, BeforeValidator(_day)]


class Body(BaseModel):
    """Unknown keys are refused: a misspelt one would silently change what is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class QuoteRequest(Body):
    """Exactly one: an amount, an energy in Wh, or days of the usual use."""

    amount: Number | None = None
    energy_wh: Annotated[TypedInt, Field(ge=1, le=10**9)] | None = None
    days: Annotated[TypedInt, Field(ge=1, le=365)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if [self.amount, self.energy_wh, self.days].count(None) != 2:
            raise ValueError("give exactly one of amount, energy_wh and days")
        return self


class TopUpRequest(Body):
    """`phone`: the payer's, where the method wants it. `unusual_confirmed`: the payer was asked
    about an amount that is unusual. `counted`: of cash, the coins; the nearest without.
    """

    method: Identifier
    amount: Number
    currency: Currency | None = None
    phone: Number | None = None
    unusual_confirmed: bool = False
    counted: Number | None = None


class ConfirmationRequest(Body):
    """`passcode`: as the payer's app made it; it is passed on once and kept nowhere."""

    phone: Number
    passcode: Annotated[SecretStr, Field(min_length=4, max_length=12)]


class LookupRequest(Body):
    """Exactly one: the number of a meter or of an account."""

    meter: Number | None = None
    account: AccountNumber | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.meter is None) == (self.account is None):
            raise ValueError("give exactly one of meter and account")
        return self


class PartnerQuoteRequest(Body):
    meter: Number
    amount: Number
    currency: Currency | None = None


class PaymentRequest(Body):
    """`partner_txn_id` is the idempotency key. `quote_id` binds nothing: what the money buys is
    decided at the instant at which it is credited; the answer says what changed since the quote.
    """

    partner_txn_id: PartnerNumber
    meter: Number
    amount: Number
    paid_at: Annotated[str, StringConstraints(max_length=40)]
    currency: Currency | None = None
    quote_id: Identifier | None = None
    msisdn: Annotated[str, StringConstraints(pattern=r"^\+?[0-9]{6,15}$"), Typed] | None = None


class ReversalRequest(Body):
    reason: Name


class MoveRequest(Body):
    """`meter`: the one that was meant."""

    meter: Number
    reason: Name = "paid for the wrong meter"


class CreditingRequest(Body):
    """`meter`: whose account is credited; that of the payment or another one."""

    meter: Number
    reason: Name


class LineRequest(Body):
    """One payment as the partner has it."""

    partner_txn_id: Identifier
    meter: Number
    amount: Number
    paid_at: Annotated[str, StringConstraints(max_length=40)]


class TrailerRequest(Body):
    """The end of a file. `sha256`: in hex, of a line each of number, meter, amount with six
    decimals and instant in UTC, tab between and newline after, in the order of the file.
    """

    count: Annotated[int, Field(ge=0, le=MAX_LINES)]
    sum: Annotated[str, StringConstraints(min_length=1, max_length=40)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class FileRequest(Body):
    """A partner's daily file: every payment of a business date."""

    lines: Annotated[list[LineRequest], Field(max_length=MAX_LINES)]
    trailer: TrailerRequest


class DecisionRequest(Body):
    """What becomes of a difference. `credited` takes a line that never came as a payment as one."""

    decision: Literal[
        "agreed", "corrected", "credited", "returned", "another_payment", "nothing_taken"
    ]
    note: Name


class ReasonRequest(Body):
    """Why somebody does what the address says; kept in the audit log."""

    reason: Name | None = None


class NoteRequest(Body):
    note: Name


class HoldRequest(Body):
    """From now on. `until`: None holds until somebody releases it."""

    account: AccountNumber
    kind: HoldKind
    reason: Name
    until: Annotated[str, StringConstraints(max_length=40)] | None = None


class AdjustmentRequest(Body):
    """`amount`: above zero credits the account, below zero debits it; the customer reads why."""

    account: AccountNumber
    amount: Number
    currency: Currency | None = None
    reason: Name


class OperatorReversalRequest(Body):
    """`top_up`: our id of it."""

    top_up: Identifier
    reason: Name


class LowCreditRequest(Body):
    amount: Number
    currency: Currency | None = None
    reason: Name | None = None


class AssignmentRequest(Body):
    tariff: Identifier
    from_: Annotated[Day, Field(alias="from", strict=False)]
    reason: Name


class DraftRequest(Body):
    """`version`: as in the rating contract, section 10."""

    version: dict[str, object]
    note: Name


class SimulationRequest(Body):
    """Local dates of the past; `to` is excluded. `version` needs no `valid_from`."""

    version: dict[str, object]
    from_: Annotated[Day, Field(alias="from", strict=False)]
    to: Annotated[Day, Field(strict=False)]


class CentreRequest(Body):
    code: Segment
    name: Name
    reason: Name | None = None


class ReprintRequest(Body):
    top_up: Identifier
    reason: Name


class EngineeringRequest(Body):
    """`fields`: `mpl` (W), `register`, or `control` and `mfr_code`, as the work asks for."""

    meter: Number
    work: Annotated[Work, Field(strict=False)]
    fields: dict[str, Annotated[int, Field(ge=0, le=WIDEST_FIELD)]] = Field(default_factory=dict)
    reason: Name


class KeyChangeConfirmation(Body):
    """`note`: who saw the meter accept the set, and where."""

    note: Name


class DecodeRequest(Body):
    """`digits`: of an STS token, as typed. `meter`: where it was typed in, to read all of it."""

    digits: Annotated[str, StringConstraints(min_length=1, max_length=60)]
    meter: Number | None = None


class StsAttributes(Body):
    """IEC 62055-41 key attributes of a meter that takes tokens. `third_kct`: an EA07 meter that
    knows the third key change token, which carries the SGC.
    """

    meter_pan: Number
    sgc: Annotated[str, StringConstraints(pattern=r"^[0-9]{6}$")]
    krn: Annotated[int, Field(ge=1, le=9)]
    kt: Annotated[int, Field(ge=0, le=3)] = 2
    ken: Annotated[int, Field(ge=0, le=255)] = 255
    ti: Annotated[str, StringConstraints(pattern=r"^[0-9]{2}$")] = "01"
    base_date: int = 2014
    ea: int = 11
    dkga: int = 4
    third_kct: bool = False


class NewAccount(Body):
    """The supply point that a new meter opens. `terms`: `debt`, `emergency`, `reconnect_at` and
    `non_disconnection` as in the rating contract, section 10.
    """

    number: Annotated[Segment, Typed]
    holder: Name
    tariff: Identifier
    opening_wh: Annotated[int, Field(ge=0, lt=10**12)] = 0
    max_power_w: Annotated[int, Field(ge=1, le=10**9)] | None = None
    modulus_wh: Annotated[int, Field(ge=1000, le=10**12)] = 10**9
    terms: dict[str, object] = Field(default_factory=dict)


class GatewayRequest(Body):
    """`name`: as its topics and its certificate have it."""

    name: Identifier
    reason: Name | None = None


class PlaceRequest(Body):
    """`gateway`: the one that speaks for the meter from now on; None: it speaks for itself."""

    gateway: Identifier | None
    reason: Name


class NewMeterRequest(Body):
    number: Number
    centre: Identifier
    gateway: Identifier | None = None
    sts: StsAttributes | None = None
    account: NewAccount | None = None
    reason: Name | None = None
