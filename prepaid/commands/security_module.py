"""`prepaid security-module`: the vending keys in a process of their own."""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import structlog
import typer

from prepaid import logs
from prepaid.clock import wall_ms
from prepaid.security_modules import ea07_tables, open_own_security_module, told
from prepaid.security_process.limits import (
    INTERVAL_MS,
    MAX_FAILED_VERIFICATIONS,
    LimitedSecurityModule,
    Limits,
    VendCounter,
)
from prepaid.security_process.server import SecurityModuleServer, alone
from prepaid.settings import Settings
from schemas.errors import DomainError

# Of class 0: tenths of a kWh, m3 or minute; hundred-thousandths of currency.
UNITS_OF_CREDIT = 10
UNITS_OF_CURRENCY = 100_000
INTERVAL_S = INTERVAL_MS // 1000


def register(app: typer.Typer) -> None:
    app.command("security-module")(security_module)


def security_module(
    max_credit: Annotated[
        int, typer.Option(min=1, help="Most that one token carries: kWh, m3 or minutes.")
    ] = 5000,
    max_currency: Annotated[
        int, typer.Option(min=0, help="The same of currency tokens; 0 makes none.")
    ] = 0,
    max_vends: Annotated[
        int,
        typer.Option(min=1, help="Tokens and key change sets made in an interval."),
    ] = 20_000,
    max_failed_verifications: Annotated[
        int, typer.Option(min=1, help="Wrong digits in an interval; one slip search tries 200.")
    ] = MAX_FAILED_VERIFICATIONS,
    interval_s: Annotated[int, typer.Option(min=1, help="Length of the interval.")] = INTERVAL_S,
    counter: Annotated[
        Path | None, typer.Option(help="File of the vend counter; by default beside the socket.")
    ] = None,
    json_logs: Annotated[bool, typer.Option("--json", help="Logs as JSON lines.")] = False,
) -> None:
    """Hold the vending keys and make tokens for the processes of this user, until SIGTERM.

    Needs PREPAID_STS__SOCKET, where it listens and where the API and the command line find it, and
    the keys: PREPAID_STS__KEY_FILE with PREPAID_STS__KEY_PASSPHRASE, or wrapped keys and their
    token (docs/security-module.md); for real EA07 meters PREPAID_STS__TABLES, too. The others need
    PREPAID_STS__SOCKET alone.

    The limits hold inside, and the count outlives the process. Prints `ready` when it listens.
    """
    logs.configure(as_json=json_logs)
    sts = Settings().sts
    if sts.socket is None:
        raise DomainError("not_configured", "set PREPAID_STS__SOCKET to the path of the socket")
    limits = Limits(
        max_credit=max_credit * UNITS_OF_CREDIT,
        max_currency=max_currency * UNITS_OF_CURRENCY,
        max_vends=max_vends,
        max_failed_verifications=max_failed_verifications,
        interval_ms=interval_s * 1000,
    )
    structlog.get_logger().info("ea07_tables", tables=told(ea07_tables(sts)))
    with alone(sts.socket):
        counted = VendCounter(counter or sts.socket.with_suffix(".count"))
        module = LimitedSecurityModule(open_own_security_module(sts), limits, counted, wall_ms)
        with SecurityModuleServer(sts.socket, module, frozenset({os.geteuid()})) as server:
            _end_on_signals(server)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            server.serve_forever()


def _end_on_signals(server: SecurityModuleServer) -> None:
    def end(*_: object) -> None:
        # From another thread: shutdown() waits for the loop that this one runs.
        threading.Thread(target=server.shutdown, daemon=True).start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
