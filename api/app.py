"""The application: made from its surroundings, with no state outside it."""

import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.routing import BaseRoute, Route

from api.code_delivery import CodeDelivery, Courier
from api.dependencies import Surroundings
from api.edge import Edge, Metrics
from api.errors import Problem, answer_errors
from api.pace import Pace
from api.paying import NO_PAYMENTS, Payments
from api.plain_balances import PlainBalances
from api.routes import (
    accounts,
    customer_sign_in,
    customers,
    desk,
    events,
    exports,
    gateways,
    grants,
    health,
    imports,
    moves,
    operators,
    payments,
    reconciliation,
    register,
    sign_in,
    tariffs,
    tokens,
    top_ups,
)
from api.routes import partners as partner_routes
from api.settings import ApiSettings, Partner
from api.signatures import Signers
from api.spans import RequestSpans
from api.streams import Streams
from store import account_events
from store.account_events import Place
from store.balances import Balances
from store.pool import Pool, borrow, url_of
from store.terms import TermsCache
from tokens.security_module import SecurityModule

# Of this contract, not of the release: it grows when a name or a meaning changes.
CONTRACT_VERSION = "1.0.0"


ROUTES = (
    sign_in,
    customer_sign_in,
    customers,
    accounts,
    top_ups,
    moves,
    grants,
    events,
    partner_routes,
    reconciliation,
    operators,
    payments,
    desk,
    tariffs,
    tokens,
    register,
    gateways,
    exports,
    imports,
    health,
)


class Api(FastAPI):
    """FastAPI that describes its refusals by the media type in which it sends them."""

    def openapi(self) -> dict[str, Any]:
        described = super().openapi()
        for operations in described["paths"].values():
            for operation in operations.values():
                # Under whatever media type the route answers with: a refusal has its own.
                refusal = operation["responses"]["default"]
                (schema,) = refusal["content"].values()
                refusal["content"] = {"application/problem+json": schema}
        return described


def _lifespan(
    pool: Pool, courier: Courier, balances: Balances
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Without waiting: an API that starts before its database answers 503 until it is there.
        pool.open(wait=False)
        courier.start()
        try:
            yield
        finally:
            courier.stop()
            await balances.close()
            pool.close()

    return lifespan


def _balance_route() -> BaseRoute:
    (found,) = (
        each
        for each in accounts.router.routes
        if isinstance(each, Route) and each.name == accounts.show_balance.__name__
    )
    return found


def _streams(pool: Pool, settings: ApiSettings) -> Streams:
    def marks(of_accounts: Sequence[int]) -> Mapping[int, Place]:
        with borrow(pool) as conn:
            return account_events.marks(conn, of_accounts)

    return Streams(
        marks,
        most=settings.streams,
        per_caller=settings.streams_per_caller,
        poll_s=settings.streams_poll_s,
        heartbeat_s=settings.streams_heartbeat_s,
    )


def _surround(app: FastAPI, around: Surroundings, balances: Balances) -> None:
    """What stands around the routes, from the inside out."""
    app.add_middleware(PlainBalances, around=around, balances=balances, route=_balance_route())
    app.add_middleware(
        Edge,
        metrics=around.metrics,
        body_limit=around.settings.body_limit_bytes,
        file_limit=around.settings.file_limit_bytes,
        pace=around.pace,
        new_id=lambda: secrets.token_hex(8),
    )
    app.add_middleware(RequestSpans)


def create_app(
    settings: ApiSettings,
    *,
    pool: Pool,
    security_module: SecurityModule,
    now_ms: Callable[[], int],
    wall_s: Callable[[], float],
    partners: Sequence[Partner],
    payments: Payments = NO_PAYMENTS,
    code_delivery: CodeDelivery | None = None,
) -> FastAPI:
    """The API on a pool that its lifespan opens and closes.

    `now_ms` is the system's clock and may be a demonstration's; `wall_s` is real time, by which
    signatures are judged. `payments`: how customers pay; whoever made it ends it. `code_delivery`
    takes one-time codes to their people; without it they wait in the outbox for another process.

    Errors: ValueError for a partner's key that is none.
    """
    metrics = Metrics()
    pace = Pace(
        per_caller=settings.requests_per_minute,
        per_address=settings.requests_per_minute_of_address,
    )

    courier = Courier(pool, code_delivery, wall_s)
    terms = TermsCache()
    balances = Balances(url_of(pool), terms)
    app = Api(
        title="prepaid",
        version=CONTRACT_VERSION,
        summary="Smart prepaid meters: balances, vending, tokens.",
        # The pages load scripts from elsewhere; the description itself stays at /openapi.json.
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(pool, courier, balances),
        responses={
            "default": {"model": Problem, "description": "A refusal, with its stable code."}
        },
        redirect_slashes=False,
        # Names that stay: clients are generated from them.
        generate_unique_id_function=lambda route: route.name,
        # FastAPI's own spans and logs hold paths, query strings, addresses and what exceptions say.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.surroundings = around = Surroundings(
        settings=settings,
        pool=pool,
        security_module=security_module,
        now_ms=now_ms,
        wall_s=wall_s,
        signers=Signers(partners),
        metrics=metrics,
        pace=pace,
        payments=payments,
        streams=_streams(pool, settings),
        code_queued=courier.wake,
        terms=terms,
    )
    answer_errors(app)
    for module in ROUTES:
        app.include_router(module.router)
    _surround(app, around, balances)
    return app
