"""Pages of a wallet with a one-time password (Masrvi, Click): we fetch a provider session, the
payer's browser posts a form there, and the wallet tells us by a GET that nobody signed.

What the browser brings back is never believed. A notification counts from the wallet's own
addresses only; where the wallet can be asked it makes us ask; else amount and reference must be
those of our order, and its payment number is taken once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from urllib.parse import parse_qsl

from pydantic import SecretStr

from payments.amounts import hundredths, of_hundredths
from payments.exchange import Answer, Lost, NotSent, make_client, send
from payments.port import Confirmation, Method, Notice, Notification, Started
from schemas.errors import DomainError, Unproven
from store.payment_attempts import Attempt
from store.payment_words import Word

TIMEOUT_S = 20
# The wallet's own: after it the page refuses the form.
SESSION_S = 5 * 60
CURRENCY_NUMBERS = {"MRU": "929"}
# Why a page took no money, in the wallet's words; others are kept as `other`.
REASONS = frozenset({"CANCEL", "AUTHENTICATION", "PAYMENT_FAILED", "EXPIRED_SESSION"})
MAX_FIELDS = 40


@dataclass(frozen=True, slots=True)
class HostedSettings:
    """`page`: where the browser posts the form. `sources`: networks that notifications come from.
    `check_path`: where the wallet can be asked, None where it cannot. `returns`: our address, to
    which the browser comes back.
    """

    code: str
    name: str
    url: str
    page: str
    merchant: SecretStr
    sources: Sequence[IPv4Network | IPv6Network]
    returns: str
    brand: str
    check_path: str | None = None
    timeout_s: int = TIMEOUT_S


class HostedPage:
    """Payments on a page of the wallet."""

    def __init__(self, settings: HostedSettings) -> None:
        self.method = Method(settings.code, settings.name, "page")
        self.checks = settings.check_path is not None
        self.timeout_s = settings.timeout_s
        self._settings = settings
        self._client = make_client(settings.url, settings.timeout_s)

    def start(self, attempt: Attempt) -> Started | Word:
        """A provider session; the payer's browser takes it to the page, within 5 minutes."""
        merchant = self._settings.merchant.get_secret_value()
        try:
            answer = send(
                self._client, "GET", "/online/online.php", params={"merchantid": merchant}
            )
        except (NotSent, Lost):
            return Word("unknown", "no_answer")
        session = _session_of(answer)
        if session is None:
            return Word("failed", "session_refused", detail="the wallet opened no session")
        back = f"{self._settings.returns}/{attempt.id}"
        fields = {
            "sessionid": session,
            "merchantid": merchant,
            "amount": str(hundredths(attempt.amount_micro)),
            "currency": CURRENCY_NUMBERS.get(attempt.currency, attempt.currency),
            "purchaseref": attempt.id,
            "phonenumber": attempt.msisdn or "",
            "brand": self._settings.brand,
            "description": f"meter {attempt.meter}",
            "accepturl": back,
            "declineurl": back,
            "cancelurl": back,
            "text": attempt.account,
        }
        going_on: dict[str, object] = {
            "kind": "page",
            "url": self._settings.page,
            "method": "POST",
            "fields": fields,
        }
        return Started(None, going_on, SESSION_S, pays_alone=True)

    def confirm(self, attempt: Attempt, given: Confirmation) -> Word:
        """The page asks the payer itself."""
        raise AssertionError("the desk asks methods of kind passcode alone")

    def check(self, attempt: Attempt) -> Word:
        """What the wallet says of our reference, where it can be asked."""
        path = self._settings.check_path
        assert path is not None, "the desk looks at `checks`"
        merchant = self._settings.merchant.get_secret_value()
        try:
            found = send(
                self._client,
                "GET",
                path,
                params={"merchantid": merchant, "purchaseref": attempt.id},
            ).form()
            if found.get("purchaseref") != attempt.id:
                return Word("unknown", "not_known")
            fields = {name: str(value) for name, value in found.items() if value is not None}
            return _word(fields) or Word("pending", "open")
        except (NotSent, Lost, DomainError):
            return Word("unknown", "no_answer")

    def understand(self, notification: Notification) -> Notice:
        """A GET with the fields in its query."""
        self._check_source(notification.source)
        pairs = parse_qsl(notification.query, keep_blank_values=True)
        fields = dict(pairs)
        if len(pairs) > MAX_FIELDS or len(fields) != len(pairs):
            raise DomainError("notification_malformed", "a field stands twice, or there are many")
        order = fields.get("purchaseref", "")
        if not order or len(order) > 64:
            raise DomainError("notification_malformed", "purchaseref is missing")
        word = _word(fields)
        if word is None:
            raise DomainError("notification_malformed", "status is neither Ok nor NOK")
        if word.state == "paid" and word.amount_micro is None:
            # Without an amount nothing says that the form was not altered on its way.
            word = Word(
                "paid",
                word.word,
                word.reference,
                doubt=f"{self.method.code} named no amount: look it up at the wallet",
            )
        return Notice(order, word, proven=False)

    def close(self) -> None:
        self._client.close()

    def _check_source(self, source: str) -> None:
        try:
            address = ip_address(source)
        except ValueError:
            raise Unproven("source_refused", "it came from no address that is known") from None
        mapped = getattr(address, "ipv4_mapped", None)
        if not any((mapped or address) in network for network in self._settings.sources):
            raise Unproven("source_refused", "it did not come from the wallet's addresses")


def _session_of(answer: Answer) -> str | None:
    """`OK:ID`, or the bare id."""
    text = answer.text()
    session = text.removeprefix("OK:").strip()
    plain = session.isascii() and session.replace("-", "").isalnum()
    return session if answer.status == 200 and plain and 8 <= len(session) <= 128 else None


def _word(fields: dict[str, str]) -> Word | None:
    """None for a status that says nothing. Errors: DomainError notification_malformed."""
    status = fields.get("status", "").upper()
    if status == "OK":
        reference = fields.get("paymentref", "")
        if not reference or len(reference) > 64 or not reference.isprintable():
            raise DomainError("notification_malformed", "paymentref is missing")
        said = fields.get("amount")
        amount = None if said is None or said == "" else of_hundredths(said)
        return Word("paid", "Ok", reference, amount)
    if status == "NOK":
        given = fields.get("error", "").upper()
        reason = given if given in REASONS else "other"
        if reason == "EXPIRED_SESSION":
            return Word("expired", reason, detail="the wallet's page was open for too long")
        return Word("failed", reason, detail="the wallet says that nothing was paid")
    return None
