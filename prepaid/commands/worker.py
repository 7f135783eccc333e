"""`prepaid worker NAME`: one duty of the system alone, beside gateways and API or elsewhere."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

import typer

from meter_gateway.clockwork import run_clockwork
from meter_gateway.dispatch import Dispatcher
from meter_gateway.gateway import stop_on_signals
from meter_gateway.receiver import BrokerAddress
from prepaid import logs, traces
from prepaid.clock import Clock, wall_ms
from prepaid.payment_methods import serving_payments
from prepaid.security_modules import open_security_module
from prepaid.settings import Settings
from prepaid.trust.files import broker_tls, dispatch_tls, dispatch_url, load_signing_key
from schemas.errors import DomainError
from store.outbox import Pacing
from store.session import POINT_LOOKUPS, Session

Doing = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


class Duty(StrEnum):
    """What can be done apart from receiving and serving."""

    CLOCKWORK = "clockwork"
    DISPATCH = "dispatch"
    PAYMENTS = "payments"


def register(app: typer.Typer) -> None:
    app.command()(worker)


def worker(
    duty: Annotated[
        Duty,
        typer.Argument(
            metavar="NAME",
            help="clockwork: what time alone brings (midnights, ends of windows and holds, orders "
            "to repeat). dispatch: commands to meters. payments: customers' payments that nobody "
            "waits for (needs PREPAID_PAYMENTS__FILE and the security module).",
        ),
    ],
    as_worker: Annotated[
        str, typer.Option("--as", help="Of this worker, different from the others of its duty.")
    ] = "worker-1",
    json_logs: Annotated[bool, typer.Option("--json", help="Logs as JSON lines.")] = False,
) -> None:
    """Do one duty of the system alone, until SIGTERM or Ctrl-C.

    Each `prepaid gateway` does clockwork and dispatch beside its messages, and `prepaid api` goes
    on with payments; a worker adds hands for one of these, on this host or another, with the rights
    that its duty needs. Any number of them share the work.
    """
    logs.configure(as_json=json_logs)
    traces.set_up(f"prepaid-{duty.value}")
    settings = Settings()
    doing: Mapping[Duty, Doing] = {
        Duty.CLOCKWORK: partial(_clockwork, settings),
        Duty.DISPATCH: partial(_dispatch, settings, as_worker),
        Duty.PAYMENTS: partial(_payments, settings),
    }
    asyncio.run(_until_stopped(doing[duty]))


async def _until_stopped(doing: Doing) -> None:
    stopping = asyncio.Event()
    stop_on_signals(stopping)
    await doing(stopping)


def _ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


async def _clockwork(settings: Settings, stopping: asyncio.Event) -> None:
    clock = Clock.parse(settings.clock)
    session = Session(settings.database_url(), "clockwork", POINT_LOOKUPS)
    try:
        _ready()
        await run_clockwork(session, clock.now_ms, stopping, settings.keep_readings_days)
    finally:
        await session.close()


async def _dispatch(settings: Settings, name: str, stopping: asyncio.Event) -> None:
    clock = Clock.parse(settings.clock)
    address = BrokerAddress.parse(
        dispatch_url(settings.broker) or settings.broker_url(),
        dispatch_tls(settings.broker) or broker_tls(settings.broker),
    )
    session = Session(settings.database_url(), "dispatch")
    dispatcher = Dispatcher(
        address,
        f"prepaid-dispatch-{name}",
        session,
        clock.now_ms,
        clock.speed,
        load_signing_key(settings.trust),
        Pacing(settings.commands.at_once, settings.commands.spacing_ms),
    )
    try:
        _ready()
        await dispatcher.run(stopping)
    finally:
        await session.close()


async def _payments(settings: Settings, stopping: asyncio.Event) -> None:
    if settings.payments.file is None:
        raise DomainError("not_configured", "set PREPAID_PAYMENTS__FILE to the file of the methods")
    module = open_security_module(settings.sts)
    with serving_payments(settings, module, Clock.parse(settings.clock).now_ms, wall_ms):
        _ready()
        await stopping.wait()
