"""`GET /v1/accounts/{account}/balance` where nothing about it is out of the ordinary.

The route of that name asks about ten statements on threads of the framework. Nearly every request
for a balance needs none of that: it is answered here, from one statement that it shares with others
(`store.balances`). Whatever is not answered with 200 goes on to the route, so that each refusal is
decided and worded in one place.
"""

import re

import orjson
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from api.answers import balance_form
from api.dependencies import (
    ACCESS_KEY_MAX,
    BALANCE_ROLES,
    Surroundings,
    caller_name,
    digest_of,
)
from api.edge import WHOLE
from schemas.contacts import typed_digits
from store.balances import Asked, Balances, SeenBalance

# As the route takes it; what else may stand there goes on to it.
_PATH = re.compile(r"/v1/accounts/([^/\x00-\x1f]{1,64})/balance")
_SCHEME = b"Bearer "


class PlainBalances:
    """Inside of `Edge`, which bounds, names, logs and counts the request as every other."""

    def __init__(
        self, app: ASGIApp, *, around: Surroundings, balances: Balances, route: BaseRoute
    ) -> None:
        self._app = app
        self._around = around
        self._balances = balances
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = None
        if scope["type"] == "http" and scope["method"] == "GET":
            place = _PATH.fullmatch(scope["path"])
            if place is not None:
                found = await self._find(scope, place[1])
        if found is None:
            await self._app(scope, receive, send)
            return
        caller = caller_name(found.caller)
        # Who asks too often is counted and told by the route.
        if found.caller.role not in BALANCE_ROLES or self._around.pace.of_caller(caller):
            await self._app(scope, receive, send)
            return
        scope["state"]["caller"] = caller
        scope["route"] = self._route
        body = orjson.dumps(balance_form(found.account, found.currency, found.balance))
        whole = scope.get("extensions", {}).get(WHOLE)
        if whole is not None and whole(body):
            return
        headers = [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"application/json"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _find(self, scope: Scope, account: str) -> SeenBalance | None:
        key = _access_key(scope)
        if key is None:
            return None
        around = self._around
        asked = Asked(digest_of(key), typed_digits(account), around.now_ms(), around.wall_ms())
        return await self._balances.find(asked)


def _access_key(scope: Scope) -> str | None:
    """The access key of a request that says one, once and plainly."""
    said = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(said) != 1 or not said[0].startswith(_SCHEME):
        return None
    key: str = said[0][len(_SCHEME) :].decode("latin-1")
    return key if 0 < len(key) <= ACCESS_KEY_MAX else None
