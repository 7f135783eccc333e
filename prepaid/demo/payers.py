"""Simulated customers: when credit runs low or out, each pays after a while, as a bank would ask.

Payments go through the partner API with signed requests, so that nothing of the way is skipped. An
answer that is lost is asked for again under the same number.
"""

import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx

from api.signatures import sign
from prepaid.demo.centre import ACCOUNT_PREFIX
from prepaid.secrets_files import read_secret
from schemas.quantities import format_instant, format_micro
from store.overview import LowAccount

TIMEOUT_S = 10.0
# Real seconds from "no credit" to the payment: time enough to see the supply cut.
PATIENCE_S = (4.0, 20.0)
AMOUNTS = (20, 50, 100, 200)
MICRO = 1_000_000
# Some pay before they are cut.
CAREFUL_BELOW_MICRO = 300_000


@dataclass(slots=True)
class PartnerClient:
    """Signs and sends requests of one partner."""

    base_url: str
    code: str
    key: str
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=TIMEOUT_S))

    @classmethod
    def from_file(cls, base_url: str, path: Path) -> "PartnerClient":
        """The first partner of a partners file, with its newest key."""
        form = json.loads(read_secret(path))[0]
        return cls(base_url, form["code"], form["keys"][0])

    def headers(self, body: bytes) -> dict[str, str]:
        """The four headers of api.md section 3 for these bytes, now."""
        message_id, timestamp_s = f"msg_{secrets.token_hex(12)}", int(time.time())
        return {
            "webhook-partner": self.code,
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": sign(self.key, message_id, timestamp_s, body),
            "content-type": "application/json",
        }

    def post(self, path: str, form: dict[str, object]) -> httpx.Response:
        body = json.dumps(form).encode()
        return self.http.post(self.base_url + path, content=body, headers=self.headers(body))


@dataclass(slots=True)
class Payers:
    """Who is about to pay; `now_ms` is the demonstration's clock."""

    client: PartnerClient
    now_ms: Callable[[], int]
    _due_s: dict[str, float] = field(default_factory=dict)
    _open: dict[str, dict[str, object]] = field(default_factory=dict)
    paid: int = 0
    failed: int = 0

    def consider(self, lowest: Sequence[LowAccount]) -> None:
        """Let everybody with little credit make up their mind, and pay where the time has come."""
        now_s = time.monotonic()
        for account in lowest:
            if not account.account.startswith(ACCOUNT_PREFIX):
                continue  # somebody's own meter, to play with
            careful = Random(account.meter).random() < 1 / 4  # noqa: S311 - a habit, no secret
            bound_micro = CAREFUL_BELOW_MICRO if careful else 0
            if account.balance_micro > bound_micro:
                continue
            if account.meter not in self._due_s:
                patience_s = Random().uniform(*PATIENCE_S)  # noqa: S311 - as above
                self._due_s[account.meter] = now_s + patience_s
            elif now_s >= self._due_s[account.meter]:
                self._pay(account)

    def _pay(self, account: LowAccount) -> None:
        payment = self._open.setdefault(
            account.meter,
            {
                "partner_txn_id": f"demo-{secrets.token_hex(8)}",
                "meter": account.meter,
                "amount": self._amount(account),
                "paid_at": format_instant(self.now_ms()),
            },
        )
        try:
            answer = self.client.post("/v1/partners/payments", payment)
        except httpx.HTTPError:
            return  # unknown is not failed: the same number again next time
        if answer.status_code in {httpx.codes.CREATED, httpx.codes.ACCEPTED}:
            # One that is held is paid, too: a person of the utility decides.
            self.paid += 1
        elif answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            return
        else:
            self.failed += 1
        del self._open[account.meter]
        del self._due_s[account.meter]

    def _amount(self, account: LowAccount) -> str:
        """What is owed, and one of the usual amounts on top."""
        chosen = Random().choice(AMOUNTS) * MICRO  # noqa: S311 - as above
        owed = -min(0, account.balance_micro)
        whole = -(-(chosen + owed) // MICRO) * MICRO
        return format_micro(whole)[:-4]
