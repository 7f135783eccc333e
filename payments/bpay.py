"""Bankily B-PAY: the payer gives a passcode that his app made; we ask for the money, and check.

There is no notification. An answer that is lost is asked for by `checkTransaction`: TS succeeded,
TF failed, TA still under way. The provider session ends after a time and is renewed.
"""

import threading
import time
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from payments.amounts import decimal_text
from payments.exchange import Lost, NotSent, make_client, send
from payments.port import Confirmation, Method, Notice, Notification, Started
from schemas.errors import Unproven
from store.payment_attempts import Attempt
from store.payment_words import Word

# The channel's own gateway gives up after about so long; its answer is worth waiting for.
TIMEOUT_S = 50
# A payer opens the app, types merchant and amount, and comes back with the passcode.
PASSCODE_WAIT_S = 15 * 60
# A session is renewed before its end, so that it does not end under a payment.
EARLY_S = 30
PHONE_DIGITS = 8
SUCCESS, SESSION_ENDED = "0", "2"


@dataclass(frozen=True, slots=True)
class BPaySettings:
    """`merchant`: the number that the payer types into the app. `client`: as the bank names us."""

    code: str
    name: str
    url: str
    merchant: str
    username: str
    password: SecretStr
    client: str
    language: str = "FR"
    timeout_s: int = TIMEOUT_S


@dataclass(frozen=True, slots=True)
class _Session:
    """What the bank lets us in with, and what renews it, each until a monotonic second."""

    bearer: SecretStr
    until_s: float
    renewal: SecretStr | None
    renewable_until_s: float


class BPay:
    """Payments with a passcode."""

    checks = True

    def __init__(self, settings: BPaySettings) -> None:
        self.method = Method(settings.code, settings.name, "passcode")
        self.timeout_s = settings.timeout_s
        self._settings = settings
        self._client = make_client(settings.url, settings.timeout_s)
        self._session: _Session | None = None
        self._renewing = threading.Lock()

    def start(self, attempt: Attempt) -> Started:
        """Nothing is asked of the bank: the payer makes the passcode with these in his app."""
        going_on = {
            "kind": "passcode",
            "merchant": self._settings.merchant,
            "amount": decimal_text(attempt.amount_micro),
        }
        return Started(None, going_on, PASSCODE_WAIT_S, pays_alone=False)

    def confirm(self, attempt: Attempt, given: Confirmation) -> Word:
        """Ask for the money, once for each attempt: its id is the bank's operation id."""
        form = {
            "clientPhone": given.msisdn[-PHONE_DIGITS:],
            "passcode": given.passcode.get_secret_value(),
            "operationId": attempt.id,
            "amount": decimal_text(attempt.amount_micro),
            "language": self._settings.language,
        }
        try:
            answer = self._call("/payment", form)
        except NotSent:
            return Word("failed", "not_sent", detail="the bank was not reached: nothing was taken")
        except Lost:
            return Word("unknown", "no_answer")
        if _text(answer, "errorCode") == SUCCESS:
            return _paid(answer)
        # A refusal is believed when the bank's own books agree: `1` is everything else.
        checked = self.check(attempt)
        if checked.word == "not_known":
            return Word("failed", "refused", detail="the bank refused the payment or the passcode")
        return checked

    def check(self, attempt: Attempt) -> Word:
        """What the bank's books say of the operation."""
        try:
            answer = self._call("/checkTransaction", {"operationID": attempt.id})
        except (NotSent, Lost):
            return Word("unknown", "no_answer")
        if _text(answer, "errorCode") != SUCCESS:
            # Not there, or not there yet: a request may still be on its way to it.
            return Word("unknown", "not_known")
        match _text(answer, "status"):
            case "TS":
                return _paid(answer)
            case "TF":
                return Word("failed", "TF", detail="the bank says that the payment failed")
            case "TA":
                return Word("pending", "TA")
            case _:
                return Word("unknown", "not_understood")

    def understand(self, notification: Notification) -> Notice:
        """The bank sends none: whoever does is not the bank."""
        raise Unproven("no_notifications", f"{self.method.code} sends no notifications")

    def close(self) -> None:
        self._client.close()

    def _call(self, path: str, form: dict[str, Any]) -> dict[str, Any]:
        """One call within a provider session, renewed once where the bank says that it ended: then
        the call was not done. Errors: NotSent, Lost.
        """
        session = self._current(None)
        answer = self._once(session, path, form)
        if answer is None:
            answer = self._once(self._current(session), path, form)
        if answer is None:
            raise NotSent
        return answer

    def _once(self, session: _Session, path: str, form: dict[str, Any]) -> dict[str, Any] | None:
        bearer = {"Authorization": f"Bearer {session.bearer.get_secret_value()}"}
        answer = send(self._client, "POST", path, json_form=form, headers=bearer)
        if answer.status in {401, 403}:
            return None
        found = answer.form()
        return None if _text(found, "errorCode") == SESSION_ENDED else found

    def _current(self, ended: _Session | None) -> _Session:
        """The session of now, another than `ended`. One call renews it, the others wait.

        Errors: NotSent: without a session nothing is asked.
        """
        with self._renewing:
            now_s = time.monotonic()
            held = self._session
            if held is not None and held is not ended and now_s < held.until_s:
                return held
            self._session = None
            if held is not None and held.renewal is not None and now_s < held.renewable_until_s:
                renewal = held.renewal.get_secret_value()
                fields = {"grant_type": "refresh_token", "refresh_token": renewal}
                self._session = self._sign_in(fields)
            if self._session is None:
                fields = {
                    "grant_type": "password",
                    "username": self._settings.username,
                    "password": self._settings.password.get_secret_value(),
                }
                self._session = self._sign_in(fields)
            if self._session is None:
                raise NotSent
            return self._session

    def _sign_in(self, fields: dict[str, str]) -> _Session | None:
        try:
            answer = send(
                self._client,
                "POST",
                "/authentification",
                fields=fields | {"client_id": self._settings.client},
            )
            found = answer.form()
        except Lost:
            return None
        bearer = _text(found, "access_token")
        if answer.status != 200 or not bearer:
            return None
        now_s = time.monotonic()
        renewal = _text(found, "refresh_token")
        return _Session(
            SecretStr(bearer),
            now_s + max(0, _seconds(found, "expires_in") - EARLY_S),
            SecretStr(renewal) if renewal else None,
            now_s + max(0, _seconds(found, "refresh_expires_in") - EARLY_S),
        )


def _paid(answer: dict[str, Any]) -> Word:
    number = _text(answer, "transactionId")
    if not number:
        # Paid, says the bank, and not as what: without its number it cannot be told from another.
        return Word("unknown", "not_understood")
    return Word("paid", "TS", reference=number[:64])


def _text(form: dict[str, Any], name: str) -> str:
    """All values are text; some say numbers all the same."""
    value = form.get(name)
    return str(value) if isinstance(value, str | int) else ""


def _seconds(form: dict[str, Any], name: str) -> int:
    text = _text(form, name)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
