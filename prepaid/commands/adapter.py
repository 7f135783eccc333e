"""`prepaid adapter`: foreign devices, read by their profiles."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from meter_gateway.foreign import device_profile as profile
from meter_gateway.foreign.keys import SealingKey
from meter_gateway.foreign.process import AdapterSettings, run_adapter
from meter_gateway.gateway import stop_on_signals
from prepaid import logs
from prepaid.clock import Clock
from prepaid.secrets_files import read_sealing_key
from prepaid.settings import Settings
from schemas.errors import DomainError


def register(app: typer.Typer) -> None:
    app.command()(adapter)


def adapter(
    profiles: Annotated[
        list[str], typer.Argument(help="Names (see `prepaid device profiles`) or paths of files.")
    ],
    name: Annotated[
        str, typer.Option(help="Of this adapter: stable over restarts, and its own.")
    ] = "1",
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics on this port of 127.0.0.1.")
    ] = None,
    json_logs: Annotated[bool, typer.Option("--json", help="Logs as JSON lines.")] = False,
) -> None:
    """Take what foreign devices publish, and store and debit it as readings; until SIGTERM.

    Run each profile in one adapter only. The broker user is that of PREPAID_ADAPTER__BROKER_URL
    (else of PREPAID_BROKER__URL): it reads the profiles' topics and, for Sparkplug, may publish
    rebirth requests. Devices are mapped to meters with `prepaid device add`.
    """
    logs.configure(as_json=json_logs)
    configured = Settings()
    loaded = [profile.load(each) for each in profiles]
    if len({each.profile for each in loaded}) < len(loaded):
        raise DomainError("bad_profile", "name each profile once")
    settings = AdapterSettings(
        database_url=configured.database_url(),
        broker_url=configured.adapter_broker_url(),
        name=name,
        profiles=loaded,
        now_ms=Clock.parse(configured.clock).now_ms,
        sealing_key=_sealing_key(configured.adapter.key_file),
        metrics_port=metrics_port,
    )
    asyncio.run(_run(settings))


def _sealing_key(path: Path | None) -> SealingKey | None:
    return None if path is None else read_sealing_key(path)


async def _run(settings: AdapterSettings) -> None:
    stopping = asyncio.Event()
    stop_on_signals(stopping)

    def ready() -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    await run_adapter(settings, stopping, ready)
