"""`prepaid api`: balances, payments and tokens over HTTP."""

import sys
import time
from typing import Annotated

import structlog
import typer

from api import server
from api.app import create_app
from api.paying import NO_PAYMENTS
from prepaid import logs, traces
from prepaid.clock import Clock, wall_ms
from prepaid.demo.codes import code_delivery
from prepaid.payment_methods import serving_payments
from prepaid.secrets_files import load_partners
from prepaid.security_modules import ea07_tables, open_security_module, told
from prepaid.settings import Settings
from store.pool import make_pool


def register(app: typer.Typer) -> None:
    app.command()(api)


def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8080,
    share_port: Annotated[
        bool,
        typer.Option("--share-port", help="With other processes of this command, one per core."),
    ] = False,
    json_logs: Annotated[bool, typer.Option("--json", help="Logs as JSON lines.")] = False,
) -> None:
    """Serve the API until SIGTERM or Ctrl-C; requests under way are answered first.

    Needs PREPAID_DATABASE__URL, PREPAID_STS__KEY_FILE with PREPAID_STS__KEY_PASSPHRASE (or wrapped
    keys and their token: docs/security-module.md), PREPAID_PARTNERS__FILE for the banks that may
    pay, and PREPAID_PAYMENTS__FILE for the ways in which customers pay themselves.
    """
    logs.configure(as_json=json_logs)
    traces.set_up("prepaid-api")
    settings = Settings()
    file = settings.partners.file
    partners = () if file is None else load_partners(file)
    pool = make_pool(settings.database_url())
    module = open_security_module(settings.sts)
    if settings.sts.socket is None:
        structlog.get_logger().info("ea07_tables", tables=told(ea07_tables(settings.sts)))
    now_ms = Clock.parse(settings.clock).now_ms
    codes = [each.code for each in partners]
    with serving_payments(settings, module, now_ms, wall_ms, codes) as desk:
        application = create_app(
            settings.api_settings(),
            pool=pool,
            security_module=module,
            now_ms=now_ms,
            wall_s=time.time,
            partners=partners,
            payments=desk or NO_PAYMENTS,
            code_delivery=code_delivery(settings.customers.code_delivery),
        )
        server.run(
            application,
            host=host,
            port=port,
            announce=_announce,
            trusted_proxies=settings.api.trusted_proxies,
            share_port=share_port,
        )


def _announce(address: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
