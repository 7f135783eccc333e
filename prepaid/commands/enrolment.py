"""`prepaid enrolment`: the desk at which meters ask for their certificates."""

import asyncio
import sys
from typing import Annotated

import typer

from meter_gateway.enrolment import Enrolment
from meter_gateway.gateway import stop_on_signals
from meter_gateway.receiver import BrokerAddress
from prepaid import logs
from prepaid.clock import wall_ms
from prepaid.settings import Settings
from prepaid.trust.desk import Desk, open_folder
from prepaid.trust.files import broker_tls, load_authority
from store.session import Session


def register(app: typer.Typer) -> None:
    app.command()(enrolment)


def enrolment(
    json_logs: Annotated[bool, typer.Option("--json", help="Logs as JSON lines.")] = False,
) -> None:
    """Answer requests under claim certificates, until SIGTERM or Ctrl-C.

    Needs PREPAID_TRUST__CA with its passphrase file, the database, and the broker at
    PREPAID_BROKER__ENROLMENT_URL. A meter must be registered, and has one certificate: another
    needs `prepaid certs allow-reenrolment`.
    """
    logs.configure(as_json=json_logs)
    settings = Settings()
    authority = load_authority(settings.trust)
    assert settings.trust.ca is not None, "load_authority refuses a missing folder"
    folder = settings.broker.folder
    desk = Desk(authority, settings.trust.ca, None if folder is None else open_folder(folder))
    given = settings.broker.enrolment_url
    url = settings.broker_url() if given is None else given.get_secret_value()
    asyncio.run(
        _run(desk, BrokerAddress.parse(url, broker_tls(settings.broker)), settings.database_url())
    )


async def _run(desk: Desk, address: BrokerAddress, database_url: str) -> None:
    stopping = asyncio.Event()
    stop_on_signals(stopping)
    session = Session(database_url, "enrolment")

    def ready() -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    try:
        at = Enrolment(address, "prepaid-enrolment", session, desk.enrol, wall_ms)
        await at.run(stopping, ready)
    finally:
        await session.close()
