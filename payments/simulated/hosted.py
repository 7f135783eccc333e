"""A wallet with a page of its own, like Masrvi and Click: sessions of 5 minutes, a one-time
password, and a GET to the merchant that nobody signed: once, twice, out of order, or never.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

import httpx

from payments.simulated.channel import Mischief, Request, Response, SimulatedChannel

SESSION_S = 5 * 60


@dataclass(slots=True)
class Order:
    """What the wallet knows of a merchant's reference; `paid` by payment number, in hundredths."""

    fields: Mapping[str, str]
    paid: dict[str, int] = field(default_factory=dict)
    refused: str | None = None


class SimulatedWallet(SimulatedChannel):
    """`orders`: the truth; `one_time`: what was sent by SMS. Payers call `open_page`, `confirm` and
    `cancel`; `notify` tells of it.
    """

    MERCHANT = "merchant-1"

    def __init__(
        self,
        mischief: Mischief | None = None,
        *,
        now_s: Callable[[], float] = time.monotonic,
        port: int = 0,
    ) -> None:
        super().__init__(mischief, port=port)
        self.orders: dict[str, Order] = {}
        self._now_s = now_s
        self._sessions: dict[str, float] = {}
        self.one_time: dict[str, str] = {}

    def answer(self, request: Request) -> Response:
        match request.path:
            case "/online/online.php":
                if request.query.get("merchantid") != self.MERCHANT:
                    return Response(b"NOK:merchant")
                session = self.mischief.number(20)
                self._sessions[session] = self._now_s() + SESSION_S
                return Response(f"OK:{session}".encode())
            case "/online/page":
                return self._page(request.fields())
            case "/online/confirm":
                return self._confirm(request.fields())
            case "/online/check":
                return self._check(request.query)
            case _:
                return Response(b"", 404)

    def open_page(self, going_on: Mapping[str, object]) -> str:
        """The payer's browser posts the form; what the page says, `OK` or an error."""
        fields = going_on["fields"]
        assert isinstance(fields, Mapping), "a form"
        return self._browse(str(going_on["url"]), dict(fields))

    def confirm(self, reference: str, *, right: bool = True) -> str:
        """The payer types the one-time password that came by SMS; the payment's number, or why not.

        Again after a payment it is another payment.
        """
        with self.lock:
            sent = self.one_time[reference]
        given = {"purchaseref": reference, "code": sent if right else "x"}
        return self._browse(f"{self.url}/online/confirm", given)

    def cancel(self, reference: str, reason: str = "CANCEL") -> None:
        """The payer leaves the page."""
        with self.lock:
            self.orders[reference].refused = reason

    def notifications(self, reference: str) -> list[str]:
        """The query of every notification that there is to send, oldest first: refusals before."""
        with self.lock:
            order = self.orders[reference]
            said = []
            if order.refused is not None:
                said.append({"status": "NOK", "error": order.refused})
            said += [
                {"status": "Ok", "paymentref": number, "payid": f"P{number}", "amount": str(amount)}
                for number, amount in order.paid.items()
            ]
            named = {"purchaseref": reference, "mobile": order.fields.get("phonenumber", "")}
            return [urlencode({**each, **named}) for each in said]

    @staticmethod
    def notify(address: str, queries: Sequence[str]) -> list[int]:
        """Send notifications to the merchant, in this order; what was answered."""
        with httpx.Client(trust_env=False, timeout=30) as client:
            return [client.get(f"{address}?{query}").status_code for query in queries]

    def _page(self, fields: dict[str, str]) -> Response:
        until = self._sessions.get(fields.get("sessionid", ""), 0)
        if self._now_s() >= until:
            return Response(b"EXPIRED_SESSION")
        reference = fields["purchaseref"]
        self.orders.setdefault(reference, Order(fields))
        self.one_time[reference] = self.mischief.number(6)
        return Response(b"OK")

    def _confirm(self, given: dict[str, str]) -> Response:
        reference = given["purchaseref"]
        order = self.orders[reference]
        if given["code"] != self.one_time[reference]:
            order.refused = "AUTHENTICATION"
            return Response(b"AUTHENTICATION")
        number = self.mischief.number(10)
        order.paid[number] = int(order.fields["amount"])
        return Response(number.encode())

    def _check(self, query: Mapping[str, str]) -> Response:
        reference = query.get("purchaseref", "")
        order = self.orders.get(reference)
        if order is None:
            return Response(json.dumps({"status": "NONE"}).encode())
        said: dict[str, str] = {"purchaseref": reference, "status": "OPEN"}
        if order.paid:
            number, amount = next(iter(order.paid.items()))
            said |= {"status": "Ok", "paymentref": number, "amount": str(amount)}
        elif order.refused is not None:
            said |= {"status": "NOK", "error": order.refused}
        return Response(json.dumps(said).encode(), reply=self.mischief.plan().reply)

    def _browse(self, url: str, fields: dict[str, str]) -> str:
        with httpx.Client(trust_env=False, timeout=30) as client:
            return client.post(url, data=fields).text
