"""The service itself: alive, ready, and its figures."""

from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.answers import Answer, Instant, instant
from api.dependencies import Around, Open
from api.module_watch import ModuleState
from schemas.quantities import format_instant
from store import operations
from store.errors import Unavailable
from store.pool import borrow

router = APIRouter(tags=["service"], dependencies=[Open])


class HealthAnswer(Answer):
    status: Literal["alive"] = "alive"


class ChannelAnswer(Answer):
    """A way to pay that is configured; nobody outside is asked whether it works."""

    code: str
    kind: Literal["passcode", "page", "cash"]


class ReadyAnswer(Answer):
    """`ready`: requests can be served; without the security module all can but those that issue
    tokens, which `vending` says. `newest_commit_at`: when the ledger last grew; far behind `as_of`,
    look at the gateway.
    """

    ready: bool
    vending: bool
    database: Literal["ready", "away", "to_migrate"]
    security_module: ModuleState
    payment_channels: list[ChannelAnswer]
    pending_migrations: list[str]
    newest_commit_at: Instant | None
    as_of: Instant


@router.get("/healthz")
async def say_alive() -> HealthAnswer:
    """The process answers; it touches nothing else."""
    return HealthAnswer()


@router.get("/readyz", responses={503: {"model": ReadyAnswer}})
def say_ready(around: Around, response: Response) -> ReadyAnswer:
    """Whether requests can be served, with the state of each resource; 503 while not. A security
    module that is away is no reason: balances would go with it, and every process has the same one.
    """
    state: Literal["ready", "away", "to_migrate"] = "ready"
    pending: tuple[str, ...] = ()
    newest_ms = None
    try:
        with borrow(around.pool) as conn:
            found = operations.readiness(conn)
    except Unavailable:
        state = "away"
    else:
        pending, newest_ms = found.pending_migrations, found.newest_commit_ms
        around.module_watch.know(found.vending_key)
        if pending:
            state = "to_migrate"
    if state != "ready":
        response.status_code = 503
    module = around.module_watch.state()
    return ReadyAnswer(
        ready=state == "ready",
        vending=state == module == "ready",
        database=state,
        security_module=module,
        payment_channels=[
            ChannelAnswer(code=each.code, kind=each.kind) for each in around.payments.methods()
        ],
        pending_migrations=list(pending),
        newest_commit_at=instant(newest_ms),
        as_of=format_instant(around.now_ms()),
    )


@router.get("/metrics", response_class=Response)
def show_metrics(around: Around) -> Response:
    """Prometheus text."""
    return Response(
        generate_latest(around.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
    )
