"""A bank like B-PAY: passcodes of its app, provider sessions that end, operations, lost answers."""

import hmac
import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from payments.simulated.channel import Mischief, Plan, Request, Response, SimulatedChannel

UNDER_WAY, SUCCEEDED, FAILED = "TA", "TS", "TF"


@dataclass(slots=True)
class Operation:
    """One payment in the bank's books, by the caller's number."""

    status: str
    transaction: str
    amount: Decimal
    plan: Plan
    checks: int = 0


class SimulatedBPay(SimulatedChannel):
    """`taken`: the truth, by operation: what payers lost. `calls`: requests by path."""

    USERNAME = "utility"

    def __init__(self, mischief: Mischief | None = None, *, port: int = 0) -> None:
        super().__init__(mischief, port=port)
        self.password = self.mischief.number(12)
        self.operations: dict[str, Operation] = {}
        self.calls: dict[str, int] = {}
        self.sessions_opened = 0
        self._sessions: set[str] = set()
        self._renewals: set[str] = set()
        self._passcodes: dict[str, tuple[str, Decimal]] = {}

    @property
    def taken(self) -> dict[str, Decimal]:
        with self.lock:
            return {
                number: each.amount
                for number, each in self.operations.items()
                if each.status == SUCCEEDED
                or (each.status == UNDER_WAY and each.plan.deed == "late_paid")
            }

    def make_passcode(self, phone: str, amount: str, digits: int = 4) -> str:
        """What the app does when its owner types the amount: a code for this payment alone."""
        code = self.mischief.number(digits)
        with self.lock:
            while code in self._passcodes:
                code = f"{int(code) + 1:0{digits}d}"[-digits:]
            self.give(code, phone, amount)
        return code

    def give(self, code: str, phone: str, amount: str) -> None:
        """A passcode for one payment of one payer; `lock` is held."""
        self._passcodes[code] = (phone, Decimal(amount))

    def end_sessions(self, *, renewals: bool = False) -> None:
        """Every session ends now; with `renewals` none of them can be renewed, either."""
        with self.lock:
            self._sessions.clear()
            if renewals:
                self._renewals.clear()

    def answer(self, request: Request) -> Response:
        self.calls[request.path] = self.calls.get(request.path, 0) + 1
        if request.path == "/authentification":
            return self._sign_in(request.fields())
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if bearer not in self._sessions:
            return _json({"errorCode": "2", "errorMessage": "invalid token"})
        form = json.loads(request.body)
        if request.path == "/payment":
            return self._pay(form)
        if request.path == "/checkTransaction":
            return self._check(form)
        return Response(b"", 404)

    def _sign_in(self, fields: dict[str, str]) -> Response:
        if fields.get("grant_type") == "refresh_token":
            good = fields.get("refresh_token") in self._renewals
        else:
            good = fields.get("username") == self.USERNAME and hmac.compare_digest(
                fields.get("password", "").encode(), self.password.encode()
            )
        if not good:
            return Response(json.dumps({"error": "invalid_grant"}).encode(), 400)
        self.sessions_opened += 1
        bearer, renewal = self.mischief.number(30), self.mischief.number(30)
        self._sessions.add(bearer)
        self._renewals.add(renewal)
        return _json(
            {
                "access_token": bearer,
                "expires_in": "300",
                "refresh_token": renewal,
                "refresh_expires_in": "1800",
            }
        )

    def _pay(self, form: dict[str, str]) -> Response:
        number = form.get("operationId", "")
        if not number:
            return _json({"errorCode": "4", "errorMessage": "operation id required"})
        if number in self.operations:
            return _json({"errorCode": "1", "errorMessage": "operation exists"})
        plan = self.mischief.plan()
        if plan.deed == "nothing":
            return Response(b"", reply="cut")
        known = self._passcodes.get(form.get("passcode", ""))
        amount = Decimal(form["amount"])
        if known != (form.get("clientPhone"), amount) or plan.deed == "refused":
            refusal = {"errorCode": "1", "errorMessage": "passcode"}
            return Response(json.dumps(refusal).encode(), reply=plan.reply)
        del self._passcodes[form["passcode"]]
        status = SUCCEEDED if plan.deed == "paid" else UNDER_WAY
        made = Operation(status, self.mischief.number(10), amount, plan)
        self.operations[number] = made
        said: dict[str, Any] = {"errorCode": "0", "transactionId": made.transaction}
        if status == UNDER_WAY:
            said = {"errorCode": "1", "errorMessage": "being worked on"}
        return Response(json.dumps(said).encode(), reply=plan.reply)

    def _check(self, form: dict[str, str]) -> Response:
        found = self.operations.get(form.get("operationID", ""))
        if found is None:
            return _json({"errorCode": "1", "errorMessage": "no such operation"})
        found.checks += 1
        if found.status == UNDER_WAY and found.checks > found.plan.late_checks:
            found.status = SUCCEEDED if found.plan.deed == "late_paid" else FAILED
        return _json({"errorCode": "0", "transactionId": found.transaction, "status": found.status})


def _json(form: dict[str, Any]) -> Response:
    return Response(json.dumps(form).encode())
