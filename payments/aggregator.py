"""Aggregators (Moosyl, Muamla): an invoice, a page of theirs, and notifications signed over their
raw bytes. Nothing signs a time: the same notification may come again, late and out of order.
"""

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SecretStr

from payments.amounts import hundredths, of_hundredths
from payments.exchange import Lost, NotSent, make_client, send
from payments.port import Confirmation, Method, Notice, Notification, Started
from schemas.errors import DomainError, Unproven
from store.payment_attempts import Attempt
from store.payment_words import Word

TIMEOUT_S = 20
INVOICE_S = 60 * 60
SIGNATURE_HEX = 64


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one aggregator names things: `orders`, where an invoice is made and looked up; `given`,
    the field that carries our id; `says`, the state that an event or a status means.
    """

    orders: str
    given: str
    signature: str
    prefix: str
    says: Mapping[str, Literal["paid", "failed", "expired", "pending"]]


# As their public pages have it; what they leave open (where the payment's own number stands) is
# read where it is most likely, and an installation agrees on it with the aggregator.
DIALECTS: Mapping[str, Dialect] = {
    "muamla": Dialect(
        orders="/v1/invoices",
        given="given_id",
        signature="x-muamla-signature",
        prefix="",
        says={
            "invoice.verified": "paid",
            "invoice.failed": "failed",
            "invoice.expired": "expired",
            "verified": "paid",
            "failed": "failed",
            "expired": "expired",
            "pending": "pending",
        },
    ),
    "moosyl": Dialect(
        orders="/payment-request",
        given="transactionId",
        signature="x-webhook-signature",
        prefix="sha256=",
        says={
            "paid": "paid",
            "failed": "failed",
            "expired": "expired",
            "pending": "pending",
        },
    ),
}


@dataclass(frozen=True, slots=True)
class AggregatorSettings:
    """`keys`: of their signatures; while they change, the new one and the old. `looks_up`: whether
    an invoice can be asked for.
    """

    code: str
    name: str
    url: str
    dialect: Dialect
    access_key: SecretStr
    keys: Sequence[SecretStr]
    returns: str
    looks_up: bool = True
    timeout_s: int = TIMEOUT_S


class Aggregator:
    """Payments by an invoice of an aggregator."""

    def __init__(self, settings: AggregatorSettings) -> None:
        self.method = Method(settings.code, settings.name, "page")
        self.checks = settings.looks_up
        self.timeout_s = settings.timeout_s
        self._settings = settings
        self._client = make_client(settings.url, settings.timeout_s)

    def start(self, attempt: Attempt) -> Started | Word:
        """An invoice under our id: made again it is the same one."""
        dialect = self._settings.dialect
        form = {
            dialect.given: attempt.id,
            "amount": hundredths(attempt.amount_micro),
            "currency": attempt.currency,
            "expires_in": INVOICE_S,
            "return_url": f"{self._settings.returns}/{attempt.id}",
            "metadata": {"meter": attempt.meter},
        }
        try:
            answer = send(
                self._client, "POST", dialect.orders, json_form=form, headers=self._headers()
            )
            found = answer.form()
        except (NotSent, Lost):
            return Word("unknown", "no_answer")
        url, reference = found.get("url"), found.get("reference")
        if answer.status not in {200, 201} or not _is_name(reference) or not _is_page(url):
            return Word("failed", "invoice_refused", detail="the aggregator made no invoice")
        going_on: dict[str, object] = {"kind": "page", "url": url, "method": "GET", "fields": {}}
        return Started(reference, going_on, INVOICE_S, pays_alone=True)

    def confirm(self, attempt: Attempt, given: Confirmation) -> Word:
        """The aggregator's page asks the payer itself."""
        raise AssertionError("the desk asks methods of kind passcode alone")

    def check(self, attempt: Attempt) -> Word:
        """What the aggregator says of the invoice, where it can be asked."""
        if attempt.order_reference is None:
            return Word("unknown", "not_known")
        path = f"{self._settings.dialect.orders}/{attempt.order_reference}"
        try:
            answer = send(self._client, "GET", path, headers=self._headers())
            found = answer.form()
            if answer.status != 200 or found.get(self._settings.dialect.given) != attempt.id:
                return Word("unknown", "not_known")
            word = self._word(None, found)
            return Word("unknown", "not_understood") if word is None else word
        except (NotSent, Lost, DomainError):
            return Word("unknown", "no_answer")

    def understand(self, notification: Notification) -> Notice:
        """A POST with JSON, signed over its bytes as they came."""
        self._verify(notification)
        try:
            form = json.loads(notification.body)
        except ValueError:
            form = None
        data = form.get("data") if isinstance(form, dict) else None
        if not isinstance(form, dict) or not isinstance(data, dict):
            raise DomainError("notification_malformed", "send a JSON object with event and data")
        order = data.get(self._settings.dialect.given) or data.get("reference")
        if not _is_name(order):
            raise DomainError("notification_malformed", "the order's name is missing")
        return Notice(str(order), self._word(form.get("event"), data), proven=True)

    def close(self) -> None:
        self._client.close()

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._settings.access_key.get_secret_value()}"}

    def _verify(self, notification: Notification) -> None:
        dialect = self._settings.dialect
        given = notification.headers.get(dialect.signature)
        if given is None:
            raise Unproven("signature_absent", f"send the header {dialect.signature}")
        text = given.removeprefix(dialect.prefix).lower().encode("latin-1", "replace")
        wanted = [
            hmac.digest(key.get_secret_value().encode(), notification.body, "sha256").hex().encode()
            for key in self._settings.keys
        ]
        # Each is compared, so that the time tells nothing.
        matches = [hmac.compare_digest(each, text) for each in wanted]
        if not (given.startswith(dialect.prefix) and len(text) == SIGNATURE_HEX and any(matches)):
            raise Unproven("signature_wrong", "sign the raw body with the key that was agreed")

    def _word(self, event: object, data: Mapping[str, Any]) -> Word | None:
        """By the event, else by the status in it; None where neither says anything of money.

        Errors: DomainError notification_malformed.
        """
        says = self._settings.dialect.says
        code = next((str(each) for each in (event, data.get("status")) if str(each) in says), None)
        if code is None:
            return None
        state = says[code]
        if state != "paid":
            return Word(state, code)
        number = data.get("payment_id") or data.get("id") or data.get("reference")
        if not _is_name(number):
            raise DomainError("notification_malformed", "the payment's number is missing")
        return Word("paid", code, str(number), of_hundredths(data.get("amount")))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 64 and value.isprintable()


def _is_page(value: object) -> bool:
    return (
        isinstance(value, str) and value.startswith(("https://", "http://")) and len(value) < 2048
    )
