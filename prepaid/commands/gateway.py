"""`prepaid gateway`: one worker between broker and database."""

import asyncio
import sys
from typing import Annotated

import typer
import uvloop

from meter_gateway.gateway import (
    LEAVE_DEADLINE_S,
    STOP_DEADLINE_S,
    Gateway,
    GatewaySettings,
    collect_seldom,
    stop_on_signals,
)
from meter_gateway.ingest import BATCH_MAX
from prepaid import logs, traces
from prepaid.clock import Clock
from prepaid.settings import Settings
from prepaid.trust.files import broker_tls, dispatch_tls, dispatch_url, ingest_url, load_signing_key
from store.outbox import Pacing


def register(app: typer.Typer) -> None:
    app.command()(gateway)


def gateway(
    name: Annotated[
        str,
        typer.Option(help="Of this worker: stable over restarts and different from the others'."),
    ] = "1",
    group: Annotated[
        str,
        typer.Option(help="Workers of one group share the messages; each group gets all of them."),
    ] = "ingest",
    batch: Annotated[
        int, typer.Option(min=1, max=BATCH_MAX, help="At most this many messages a commit.")
    ] = BATCH_MAX,
    ephemeral: Annotated[
        bool,
        typer.Option(help="When stopped, empty this worker's session and end it: for good."),
    ] = False,
    leave: Annotated[
        bool,
        typer.Option(help="For a worker that will not come back: empty its session, end it, exit."),
    ] = False,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics on this port of 127.0.0.1.")
    ] = None,
    json_logs: Annotated[bool, typer.Option("--json", help="Logs as JSON lines.")] = False,
) -> None:
    """Take readings from the broker, debit them, send commands; until SIGTERM or Ctrl-C.

    Several workers share the load: give each its own --name. A worker that is stopped keeps its
    share of the messages for its next start; one that is taken away for good gives it up by
    --ephemeral, or afterwards by --leave under its name.
    """
    logs.configure(as_json=json_logs)
    traces.set_up("prepaid-gateway")
    configured = Settings()
    clock = Clock.parse(configured.clock)
    settings = GatewaySettings(
        database_url=configured.database_url(),
        broker_url=configured.broker_url(),
        tls=broker_tls(configured.broker),
        ingest_url=ingest_url(configured.broker),
        ephemeral=ephemeral or leave,
        leaving=leave,
        dispatch_url=dispatch_url(configured.broker),
        dispatch_tls=dispatch_tls(configured.broker),
        signing_key=load_signing_key(configured.trust),
        name=name,
        now_ms=clock.now_ms,
        speed=clock.speed,
        batch_max=batch,
        group=group,
        keep_days=configured.keep_readings_days,
        metrics_port=metrics_port,
        pacing=Pacing(configured.commands.at_once, configured.commands.spacing_ms),
    )
    uvloop.run(_run(settings))


async def _run(settings: GatewaySettings) -> None:
    stopping = asyncio.Event()
    if settings.leaving:
        stopping.set()
    more_s = LEAVE_DEADLINE_S if settings.ephemeral else 0.0
    stop_on_signals(stopping, STOP_DEADLINE_S + more_s)

    def ready() -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    collect_seldom()
    await Gateway(settings).run(stopping, ready)
    if settings.ephemeral:
        sys.stdout.write("left\n")
