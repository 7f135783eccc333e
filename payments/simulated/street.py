"""The simulated channels with what a payer does at them, as addresses to call by hand; they send
their notifications by themselves, each of them twice.
"""

from collections.abc import Sequence
from contextlib import suppress

import httpx

from payments.aggregator import DIALECTS
from payments.simulated.aggregator import SimulatedAggregator
from payments.simulated.bpay import SimulatedBPay
from payments.simulated.channel import Mischief, Request, Response
from payments.simulated.hosted import SimulatedWallet


class StreetBank(SimulatedBPay):
    """`GET /app/passcode?phone=&amount=`: what the app shows."""

    def answer(self, request: Request) -> Response:
        if request.path != "/app/passcode":
            return super().answer(request)
        code = self.mischief.number(4)
        self.give(code, request.query.get("phone", ""), request.query.get("amount", "0"))
        return Response(f"{code}\n".encode())


class StreetWallet(SimulatedWallet):
    """`GET /app/sms?purchaseref=`: the one-time password. `POST /online/confirm` gives it back."""

    def __init__(self, notifications: str, mischief: Mischief, *, port: int) -> None:
        super().__init__(mischief, port=port)
        self._notifications = notifications

    def answer(self, request: Request) -> Response:
        if request.path != "/app/sms":
            return super().answer(request)
        sent = self.one_time.get(request.query.get("purchaseref", ""))
        return Response(b"", 404) if sent is None else Response(f"{sent}\n".encode())

    def afterwards(self, request: Request, response: Response) -> None:
        reference = request.fields().get("purchaseref", "") if request.method == "POST" else ""
        if request.path == "/online/confirm" and reference in self.orders:
            # Whoever is not there to be told is told nothing: the wallet can be asked.
            with suppress(httpx.HTTPError):
                self.notify(self._notifications, self.notifications(reference) * 2)


class StreetAggregator(SimulatedAggregator):
    """`GET /pay/REFERENCE`, the page of an invoice: to open it is to pay."""

    def __init__(self, notifications: str, mischief: Mischief, *, port: int) -> None:
        super().__init__(DIALECTS["muamla"], mischief, port=port)
        self._notifications = notifications

    def answer(self, request: Request) -> Response:
        if not request.path.startswith("/pay/"):
            return super().answer(request)
        given = self._given(request.path)
        return Response(b"no such invoice\n", 404) if given is None else Response(b"paid\n")

    def afterwards(self, request: Request, response: Response) -> None:
        given = self._given(request.path)
        if given is not None:
            self.pay(given)
            with suppress(httpx.HTTPError):
                self.deliver(self._notifications, [self.notification(given)], copies=2)

    def _given(self, path: str) -> str | None:
        reference = path.removeprefix("/pay/")
        found = [each.given for each in self.invoices.values() if each.reference == reference]
        return found[0] if found and path.startswith("/pay/") else None


def methods_file(
    api_url: str, bank: StreetBank, wallet: StreetWallet, aggregator: StreetAggregator
) -> dict[str, object]:
    """The file of methods (docs/payments.md) that these channels are served by."""
    networks: Sequence[str] = ["127.0.0.0/8", "::1/128"]
    return {
        "public_url": api_url,
        "methods": [
            {
                "kind": "bpay",
                "code": "bankily",
                "name": "Bankily (simulated)",
                "url": bank.url,
                "merchant": "012345",
                "username": bank.USERNAME,
                "password": bank.password,
                "client": "utility",
                "timeout_s": 10,
            },
            {
                "kind": "hosted",
                "code": "masrvi",
                "name": "Masrvi (simulated)",
                "url": wallet.url,
                "page": f"{wallet.url}/online/page",
                "merchant": wallet.MERCHANT,
                "sources": networks,
                "brand": "Utility",
                "check_path": "/online/check",
            },
            {
                "kind": "aggregator",
                "code": "muamla",
                "name": "Muamla (simulated)",
                "url": aggregator.url,
                "dialect": "muamla",
                "access_key": aggregator.access_key,
                "keys": [aggregator.signing_key],
                "looks_up": True,
            },
            {"kind": "cash", "code": "till", "name": "Cash"},
        ],
    }
