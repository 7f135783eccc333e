"""Routes that ask who sends a body before they read it: what a stranger sends is answered 401,
whatever it is, and nobody has us parse what he did not sign.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from api.dependencies import Allowed, access_key, connection, principal, signed_by, surroundings
from api.signatures import Envelope

_borrowed = asynccontextmanager(connection)


def calls_of(dependant: Dependant) -> Iterator[Any]:
    """Everything that a route depends on."""
    for each in dependant.dependencies:
        yield each.call
        yield from calls_of(each)


class KnownFirst(APIRoute):
    """A route of a body. Who sends it is found once: its dependencies are told the same."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        admit = _admission(self.dependant)
        if self.body_field is None or admit is None:
            return handle

        async def handle_known(request: Request) -> Response:
            await admit(request)
            return await handle(request)

        return handle_known


def _admission(dependant: Dependant) -> Callable[[Request], Awaitable[object]] | None:
    """How a route finds its caller; None where anyone may call it."""
    calls = list(calls_of(dependant))
    if signed_by in calls:
        return _find_partner
    allowed = [each for each in calls if isinstance(each, Allowed)]
    if not allowed:
        return None

    async def find_caller(request: Request) -> None:
        around, given = surroundings(request), await access_key(request)
        async with _borrowed(around) as conn:
            found = await run_in_threadpool(principal, request, conn, around, given)
        for each in allowed:
            each(found)

    return find_caller


async def _find_partner(request: Request) -> None:
    named = (request.headers.get(f"webhook-{name}") for name in Envelope._fields)
    await signed_by(request, surroundings(request), *named)
