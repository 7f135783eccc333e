"""Calls of the partner API, each signed anew and repeated while nobody answered.

Every request of the contract may be repeated: a payment and its reversal by the payment's number, a
file by its date. So the client sends the same again after a lost answer, and only when it stops
trying is the outcome unknown, which is not "failed".
"""

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote as quoted

import httpx

from partner_client import forms
from partner_client.daily_file import DailyFile, hundredths, instant
from partner_client.errors import OutcomeUnknown, Refused, Unexpected, Unusable
from partner_client.forms import Lookup, Payment, Quote, Standing
from partner_client.signing import Keys

# A vend takes a fraction of a second; beyond this the answer is lost.
TIMEOUT_S = 30.0
# Tries of one call, the first included, and the pauses between them: 1, 2, 4 and 8 seconds.
ATTEMPTS = 5
FIRST_PAUSE_S = 1.0
# Longer than this no server asks a caller to wait within one call.
LONGEST_PAUSE_S = 60.0
# The server did nothing, or nobody knows: the same again is safe.
_TRY_AGAIN = frozenset({429, 500, 502, 503, 504})


class Client:
    """One partner towards one utility. Not for several threads at once."""

    def __init__(
        self,
        base_url: str,
        code: str,
        keys: Keys,
        *,
        timeout_s: float = TIMEOUT_S,
        attempts: int = ATTEMPTS,
        transport: httpx.BaseTransport | None = None,
        wall_s: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`base_url`: https, or http to this machine. `code`: as the utility knows you.

        Errors: Unusable.
        """
        _check_address(base_url)
        if attempts < 1:
            raise Unusable("try at least once")
        self._code = code
        self._keys = keys
        self._attempts = attempts
        self._wall_s = wall_s
        self._sleep = sleep
        # Redirects are not followed: the signature would go to whoever is named there.
        self._http = httpx.Client(
            base_url=base_url.rstrip("/"),
            timeout=timeout_s,
            transport=transport,
            follow_redirects=False,
        )

    def __repr__(self) -> str:
        return f"<Client of {self._code} at {self._http.base_url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def look_up(self, *, meter: str | None = None, account: str | None = None) -> Lookup:
        """Whom a payment would credit, by the number of a meter or of an account."""
        if (meter is None) == (account is None):
            raise Unusable("give exactly one of meter and account")
        body = {"meter": meter} if account is None else {"account": account}
        return forms.parsed(self._call("POST", "/lookup", body), forms.lookup)

    def quote(self, meter: str, amount: str) -> Quote:
        """What an amount buys now, line by line."""
        hundredths(amount)
        body = {"meter": meter, "amount": amount}
        return forms.parsed(self._call("POST", "/quotes", body), forms.quote)

    def pay(
        self,
        partner_txn_id: str,
        meter: str,
        amount: str,
        paid_at: datetime,
        *,
        quote_id: str | None = None,
        msisdn: str | None = None,
    ) -> Payment:
        """Tell the utility of a payment that was made, under your own number, once for ever.

        The same call again is the same payment. Errors: OutcomeUnknown, ask `payment`; Refused
        `idempotency_conflict`, this number was used for another payment.
        """
        hundredths(amount)
        body = {
            "partner_txn_id": partner_txn_id,
            "meter": meter,
            "amount": amount,
            "paid_at": instant(paid_at),
        }
        if quote_id is not None:
            body["quote_id"] = quote_id
        if msisdn is not None:
            body["msisdn"] = msisdn
        return forms.parsed(self._call("POST", "/payments", body), forms.payment)

    def payment(self, partner_txn_id: str) -> Payment | None:
        """What became of a payment; None: it never arrived, so that sending it is right."""
        path = f"/payments/{quoted(partner_txn_id, safe='')}"
        try:
            return forms.parsed(self._call("GET", path), forms.payment)
        except Refused as refusal:
            if refusal.status == httpx.codes.NOT_FOUND:
                return None
            raise

    def take_back(self, partner_txn_id: str, reason: str) -> Payment:
        """Take a payment back. Errors: Refused `token_issued`: an operator decides, and `appeal` of
        the payment says what.
        """
        path = f"/payments/{quoted(partner_txn_id, safe='')}/reversals"
        return forms.parsed(self._call("POST", path, {"reason": reason}), forms.payment)

    def send_file(self, business_date: date, file: DailyFile) -> Standing:
        """Send the payments of a business date that is over; a corrected file replaces it."""
        path = f"/recon/{business_date.isoformat()}"
        return forms.parsed(self._call("PUT", path, file.form()), forms.standing)

    def standing(self, business_date: date) -> Standing:
        """What the utility has of a business date, and what your file of it came to."""
        return forms.parsed(
            self._call("GET", f"/recon/{business_date.isoformat()}"), forms.standing
        )

    def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        content = b"" if body is None else json.dumps(body).encode()
        why = "no answer"
        for attempt in range(self._attempts):
            pause_s = FIRST_PAUSE_S * 2**attempt
            try:
                answer = self._send(method, path, content)
            except httpx.TransportError as error:
                why = type(error).__name__
            else:
                if answer.status_code not in _TRY_AGAIN:
                    return _answer_of(answer)
                why = f"status {answer.status_code}"
                pause_s = max(pause_s, _asked_pause_s(answer))
            if attempt + 1 < self._attempts:
                self._sleep(min(pause_s, LONGEST_PAUSE_S))
        raise OutcomeUnknown(
            f"{method} {path.split('/')[1]} was not answered after {self._attempts} tries ({why}): "
            "it may have been done; ask by the payment's number, or send the same again"
        )

    def _send(self, method: str, path: str, content: bytes) -> httpx.Response:
        # Signed anew each time: a signature is worth something for five minutes.
        message_id, timestamp_s = f"msg_{secrets.token_hex(12)}", int(self._wall_s())
        headers = {
            "webhook-partner": self._code,
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": self._keys.signature(message_id, timestamp_s, content),
        }
        if content:
            headers["content-type"] = "application/json"
        return self._http.request(method, f"/v1/partners{path}", content=content, headers=headers)


def _check_address(base_url: str) -> None:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        raise Unusable("give an address such as https://prepaid.example") from None
    if url.scheme == "https" and url.host:
        return
    if url.scheme == "http" and _is_this_machine(url.host):
        return
    raise Unusable("give an https address: without TLS others read the tokens that you print")


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _asked_pause_s(answer: httpx.Response) -> float:
    asked = answer.headers.get("retry-after", "")
    return float(asked) if asked.isascii() and asked.isdigit() else 0.0


def _answer_of(answer: httpx.Response) -> Any:
    try:
        form = answer.json()
    except ValueError:
        form = None
    if not isinstance(form, dict):
        raise Unexpected(f"status {answer.status_code} without JSON: look at the address")
    if answer.is_success:
        return form
    raise Refused(
        answer.status_code,
        str(form.get("code", "unknown")),
        str(form.get("detail", "")),
        _pointers(form.get("errors")),
    )


def _pointers(faults: Any) -> Sequence[str]:
    if not isinstance(faults, list):
        return ()
    return [str(each.get("pointer", "")) for each in faults if isinstance(each, dict)]
