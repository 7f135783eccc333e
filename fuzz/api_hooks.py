"""What schemathesis cannot know of this API: who asks, and which accounts, meters and payments are.

Loaded by `schemathesis run` (SCHEMATHESIS_HOOKS); `fuzz.api` writes the file that FUZZ_API_KNOWN
names. Requests to partners' routes are signed over the bytes that go out, whatever they are.
"""

import json
import os
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
import schemathesis
from requests.auth import AuthBase

from api.signatures import sign

KNOWN: dict[str, Any] = json.loads(Path(os.environ["FUZZ_API_KNOWN"]).read_text(encoding="utf-8"))
PARTNERS = "/v1/partners/"
# Of four generated values three become known ones: refusals are found, and what lies behind them.
KEPT_OF_FOUR = 1


class Caller(AuthBase):
    """A partner that signs, a customer or an administrator, by the path."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        path = request.path_url
        body = request.body or b""
        content = body.encode() if isinstance(body, str) else bytes(body)
        if path.startswith(PARTNERS):
            message, at = f"msg_{time.monotonic_ns()}", int(time.time())
            request.headers["webhook-partner"] = KNOWN["partner"]
            request.headers["webhook-id"] = message
            request.headers["webhook-timestamp"] = str(at)
            request.headers["webhook-signature"] = sign(KNOWN["signing"], message, at, content)
        else:
            own = path.startswith("/v1/accounts/") and zlib.crc32(path.encode() + content) % 4 == 0
            key = KNOWN["customer"] if own else KNOWN["operator"]
            request.headers["Authorization"] = f"Bearer {key}"
        return request


schemathesis.auth.set_from_requests(Caller())


def _chosen(name: str, value: object) -> Any:
    """A known value in the place of a generated one, by the generated one; or that."""
    draw = zlib.crc32(repr((name, value)).encode())
    if draw % 4 < KEPT_OF_FOUR:
        return value
    source = SOURCES.get(name)
    return value if source is None else source(draw // 4)


def _of(name: str) -> Callable[[int], Any]:
    return lambda draw: KNOWN[name][draw % len(KNOWN[name])]


def _amount(draw: int) -> str:
    return f"{1 + draw % 900}.{draw % 100:02d}"


def _instant(draw: int) -> str:
    return datetime.fromtimestamp(time.time() - draw % 200_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


SOURCES: dict[str, Callable[[int], Any]] = {
    "account": _of("accounts"),
    "meter": _of("meters"),
    "number": _of("meters"),
    "top_up": _of("top_ups"),
    "payment": _of("top_ups"),
    "partner_txn_id": _of("numbers"),
    "tariff": _of("tariffs"),
    "centre": _of("centres"),
    "currency": lambda _: "MRU",
    "amount": _amount,
    "paid_at": _instant,
    "business_date": lambda draw: f"2026-0{1 + draw % 9}-1{draw % 10}",
    "hold": lambda draw: 1 + draw % 20,
    "appeal": lambda draw: 1 + draw % 20,
    "item": lambda draw: 1 + draw % 20,
}


# Bodies of which one field is given.
ALTERNATIVES = ({"meter", "account"}, {"amount", "energy_wh", "days"})


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> Any:
    if not path_parameters:
        return path_parameters
    return {name: _chosen(name, value) for name, value in path_parameters.items()}


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    if not isinstance(body, dict):
        return body
    for alternatives in ALTERNATIVES:
        if set(body) <= alternatives and len(body) > 1:
            body = dict([max(body.items(), key=lambda item: (item[1] is not None, item[0]))])
    return {
        # A new number for most payments: a known one is a repeat or a conflict.
        name: value
        if name in {"number", "partner_txn_id"}
        else _chosen(name, value)
        if isinstance(value, str)
        else value
        for name, value in body.items()
    }
