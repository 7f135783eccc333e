"""An aggregator like Moosyl and Muamla: invoices by the caller's id, and notifications signed over
their bytes, that come again, late, and in any order.
"""

import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from payments.aggregator import Dialect
from payments.simulated.channel import Mischief, Plan, Request, Response, SimulatedChannel

# What is not answered with 200 is sent again; the original waits 1, 2, 4, ... minutes between.
TRIES = 6


@dataclass(slots=True)
class Invoice:
    """One invoice; `payment` is the number of what was paid for it, as `paid` hundredths."""

    reference: str
    given: str
    amount: int
    status: str = "pending"
    payment: str | None = None
    paid: int = 0


class SimulatedAggregator(SimulatedChannel):
    """`invoices`: the truth, by the caller's id."""

    def __init__(
        self, dialect: Dialect, mischief: Mischief | None = None, *, port: int = 0
    ) -> None:
        super().__init__(mischief, port=port)
        self.dialect = dialect
        self.access_key = self.mischief.number(24)
        self.signing_key = self.mischief.number(32)
        self.invoices: dict[str, Invoice] = {}

    def answer(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.access_key}":
            return Response(b"{}", 401)
        orders = self.dialect.orders
        if request.method == "POST" and request.path == orders:
            return self._make(json.loads(request.body), self.mischief.plan())
        if request.method == "GET" and request.path.startswith(f"{orders}/"):
            reference = request.path.removeprefix(f"{orders}/")
            for invoice in self.invoices.values():
                if invoice.reference == reference:
                    reply = self.mischief.plan().reply
                    return Response(json.dumps(self._form(invoice)).encode(), reply=reply)
        return Response(b"{}", 404)

    def pay(self, given: str, *, amount: int | None = None) -> None:
        """A payer transfers the money, or another amount of it."""
        with self.lock:
            invoice = self.invoices[given]
            invoice.payment = self.mischief.number(12)
            invoice.paid = invoice.amount if amount is None else amount
            invoice.status = self._word("paid")

    def fail(self, given: str, meaning: str = "failed") -> None:
        """The aggregator ends an invoice without money."""
        with self.lock:
            self.invoices[given].status = self._word(meaning)

    def notification(self, given: str, *, status: str | None = None) -> bytes:
        """The bytes of a notification about an invoice, as it stands or in another state."""
        with self.lock:
            form = self._form(self.invoices[given])
        if status is not None:
            form["status"] = self._word(status)
        event = f"invoice.{form['status']}"
        return json.dumps({"event": event, "data": form}).encode()

    def headers(self, body: bytes) -> dict[str, str]:
        """The signature over these bytes."""
        digest = hmac.digest(self.signing_key.encode(), body, "sha256").hex()
        return {
            self.dialect.signature: f"{self.dialect.prefix}{digest}",
            "content-type": "application/json",
        }

    def deliver(self, address: str, bodies: Sequence[bytes], *, copies: int = 1) -> list[int]:
        """Send each as often as `copies` says, shuffled by the seed, again while it is not taken;
        the last answer to each.
        """
        sent = list(bodies) * copies
        self.mischief.shuffle(sent)
        with httpx.Client(trust_env=False, timeout=30) as client:
            return [self._send(client, address, body) for body in sent]

    def _send(self, client: httpx.Client, address: str, body: bytes) -> int:
        status = 0
        for _ in range(TRIES):
            status = client.post(address, content=body, headers=self.headers(body)).status_code
            if status == 200:
                break
        return status

    def _make(self, form: dict[str, Any], plan: Plan) -> Response:
        if plan.deed == "nothing":
            return Response(b"", reply="cut")
        given = str(form[self.dialect.given])
        made = self.invoices.setdefault(
            given, Invoice(self.mischief.number(12), given, int(form["amount"]))
        )
        said = {"reference": made.reference, "url": f"{self.url}/pay/{made.reference}"}
        return Response(json.dumps(said).encode(), 201, plan.reply)

    def _form(self, invoice: Invoice) -> dict[str, Any]:
        return {
            "reference": invoice.reference,
            self.dialect.given: invoice.given,
            "amount": invoice.paid if invoice.payment else invoice.amount,
            "status": invoice.status,
            "payment_id": invoice.payment,
        }

    def _word(self, meaning: str) -> str:
        """The status that means this, in the aggregator's words."""
        said = self.dialect.says.items()
        return next(word for word, means in said if means == meaning and "." not in word)
