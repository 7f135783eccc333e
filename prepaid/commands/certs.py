"""`prepaid certs`: who may speak for a device, and with what the server signs."""

import asyncio
import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import aiomqtt
import typer

from meter_gateway.checked_client import CheckedClient
from meter_gateway.receiver import BrokerAddress
from prepaid.clock import wall_ms
from prepaid.database import connected
from prepaid.secrets_files import write_secret
from prepaid.settings import Settings
from prepaid.trust.authority import CRL_DAYS, Authority
from prepaid.trust.desk import Desk, end_connection, facts, open_folder
from prepaid.trust.files import (
    broker_tls,
    dispatch_tls,
    dispatch_url,
    load_authority,
    load_signing_key,
    passphrase,
)
from schemas.configuration import Configuration
from schemas.errors import DomainError
from schemas.quantities import format_instant
from schemas.signing import KEY_OCTETS, MAX_KEYS, SigningKey, VerificationKey
from schemas.topics import Topic, build
from store import trust
from store.pool import Connection
from store.trust import NewCertificate

Who = Annotated[str, typer.Option("--by", help="Who does this; kept for ever.")]
Reason = Annotated[str, typer.Option(help="Why; kept for ever.")]
Name = Annotated[
    str, typer.Argument(help="A meter's number, a gateway, claim.NAME, part.NAME, or server.")
]
Out = Annotated[Path, typer.Option(help="Folder for NAME.pem and NAME.key (mode 0600).")]
Hosts = Annotated[
    list[str] | None, typer.Option("--host", help="Name or address of the broker; for `server`.")
]
Days = Annotated[int | None, typer.Option(min=1, help="Life of the certificate.")]

app = typer.Typer(
    no_args_is_help=True,
    help="""Certificates of devices, and the key that commands are signed with.

    The authority: PREPAID_TRUST__CA (a folder), PREPAID_TRUST__CA_PASSPHRASE_FILE. The broker that
    shall hear of revocations at once: PREPAID_BROKER__FOLDER. docs/broker.md tells the order.
    """,
)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="certs")


@dataclass(frozen=True, slots=True)
class _Opened:
    desk: Desk
    conn: Connection
    settings: Settings
    now_ms: int


@contextmanager
def _opened() -> Iterator[_Opened]:
    settings = Settings()
    authority = load_authority(settings.trust)
    folder = settings.broker.folder
    assert settings.trust.ca is not None, "load_authority refuses a missing folder"
    desk = Desk(authority, settings.trust.ca, None if folder is None else open_folder(folder))
    with connected(settings) as conn:
        # TLS knows the wall's time only, also where a demonstration runs faster.
        yield _Opened(desk, conn, settings, wall_ms())


@app.command()
def ca(
    folder: Annotated[Path, typer.Argument(help="To be created; an existing authority is kept.")],
    passphrase_file: Annotated[
        Path, typer.Option(help="Holds the passphrase (mode 0600); made at random if missing.")
    ],
    name: Annotated[str, typer.Option(help="The issuer's name in every certificate.")] = (
        "prepaid devices"
    ),
) -> None:
    """Create the authority: ca.pem for brokers and devices, ca.key encrypted.

    Keep the passphrase file elsewhere than the folder, and a copy of both off this machine.
    """
    if not passphrase_file.exists():
        write_secret(passphrase_file, secrets.token_urlsafe(32).encode())
    Authority.create(name, wall_ms()).save(folder, passphrase(passphrase_file))
    sys.stdout.write(f"{folder / 'ca.pem'}\n")


@app.command()
def issue(name: Name, out: Out, by: Who, host: Hosts = None, days: Days = None) -> None:
    """Make a key and a certificate; the name becomes client id, user name and topic level."""
    with _opened() as at:
        made = at.desk.issue(at.conn, name, out, by, at.now_ms, hosts=tuple(host or ()), days=days)
        _say_issued(made, out)


@app.command()
def renew(name: Name, out: Out, by: Who, host: Hosts = None, days: Days = None) -> None:
    """Make a new key and certificate; the old one stays good until it ends or is revoked."""
    with _opened() as at:
        hosts = tuple(host or ())
        made = at.desk.issue(
            at.conn, name, out, by, at.now_ms, hosts=hosts, days=days, renewal=True
        )
        _say_issued(made, out)


@app.command()
def revoke(
    name: Name,
    by: Who,
    reason: Reason,
    serial: Annotated[
        str | None, typer.Option(help="This certificate only; without: all of the name.")
    ] = None,
) -> None:
    """End a device's certificates, and its live connection.

    Exit status 1 if the broker still lets it in: then its list of revocations was not read.
    """
    with _opened() as at:
        serials = trust.revoke(at.conn, name, by, reason, at.now_ms, serial)
        sys.stdout.write("".join(f"{each}\n" for each in serials))
        read = at.desk.publish_revocations(at.conn, at.now_ms)
        if not read:
            sys.stderr.write(
                "prepaid: the broker must read the list now: copy crl.pem and reload it\n"
            )
        url = at.settings.broker.watch_url or at.settings.broker.url
        if url is None or serial is not None:
            sys.stderr.write("prepaid: a live connection was left alone\n")
            return
        address = BrokerAddress.parse(url.get_secret_value(), broker_tls(at.settings.broker))
    if not asyncio.run(end_connection(address, name)):
        sys.stderr.write(f"prepaid: {name} comes back: the broker has not read the list\n")
        raise typer.Exit(1)


@app.command("list")
def list_certificates(
    name: Annotated[str | None, typer.Argument(help="One name; without: all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show every certificate that was ever signed, newest first."""
    now_ms = wall_ms()
    with connected(Settings()) as conn:
        for each in trust.certificates(conn, name):
            shown = facts(each, now_ms)
            if as_json:
                sys.stdout.write(json.dumps(shown) + "\n")
            else:
                until = format_instant(each.not_after_ms)
                sys.stdout.write(f"{each.name}  {shown['state']}  until {until}  {each.serial}\n")


@app.command()
def crl() -> None:
    """Write the list of revocations anew and let the broker read it.

    A broker refuses every certificate once the list is over: run this daily.
    """
    with _opened() as at:
        read = at.desk.publish_revocations(at.conn, at.now_ms)
    sys.stdout.write(f"{at.desk.list_folder / 'crl.pem'} for {CRL_DAYS} days\n")
    if not read:
        sys.stderr.write("prepaid: no broker of ours runs here: copy the list and reload it\n")


@app.command("allow-reenrolment")
def allow_reenrolment(meter: str, by: Who, reason: Reason) -> None:
    """Let a meter that has a certificate enrol once more, say after a repair."""
    with connected(Settings()) as conn:
        trust.allow_reenrolment(conn, meter, by, reason, wall_ms())
    sys.stdout.write(f"{meter} may enrol once more\n")


@app.command("signing-key")
def signing_key(
    path: Annotated[Path, typer.Argument(help="The file to create; an existing one is kept.")],
) -> None:
    """Make the key that commands are signed with; prints its verification key for the meters."""
    if path.exists():
        raise DomainError("file_exists", f"{path} is there: name another file.")
    key = SigningKey.from_octets(secrets.token_bytes(KEY_OCTETS))
    write_secret(path, key.pem())
    sys.stdout.write(f"{key.verification_key.text}\n")


@app.command("publish-keys")
def publish_keys(
    keys: Annotated[list[str], typer.Argument(help=f"1 to {MAX_KEYS} verification keys.")],
    by: Who,
) -> None:
    """Tell every meter which verification keys to hold; signed with the key in use.

    A roll-over: publish old and new; when the meters' hello says the version, sign with the new
    key (PREPAID_TRUST__SIGNING_KEY); then publish the new one alone. Meters behind a gateway are
    given theirs by it.
    """
    settings = Settings()
    key = load_signing_key(settings.trust)
    if key is None:
        raise DomainError("not_configured", "Set PREPAID_TRUST__SIGNING_KEY to the key in use.")
    wanted = tuple(VerificationKey(text) for text in keys)
    Configuration("", 1, wanted)
    with connected(settings) as conn:
        version = trust.publish_command_keys(conn, keys, by, wall_ms())
        meters = trust.direct_meters(conn)
    messages = [
        (
            build(Topic("m", meter, "dn", "cfg")),
            Configuration(meter, version, wanted).payload(key),
        )
        for meter in meters
    ]
    broker = settings.broker
    address = BrokerAddress.parse(
        dispatch_url(broker) or settings.broker_url(), dispatch_tls(broker) or broker_tls(broker)
    )
    asyncio.run(_retain(address, messages))
    sys.stdout.write(f"version {version} for {len(messages)} meters\n")


async def _retain(address: BrokerAddress, messages: list[tuple[str, bytes]]) -> None:
    try:
        async with CheckedClient(
            address.host,
            address.port,
            username=address.username,
            password=address.password,
            protocol=aiomqtt.ProtocolVersion.V5,
            tls_context=address.tls.context() if address.tls else None,
        ) as client:
            for topic, content in messages:
                await client.publish(topic, content, qos=1, retain=True)
            client.raise_refused()
    except aiomqtt.MqttError as error:
        raise DomainError("broker_away", f"The broker does not take them: {error}.") from None


def _say_issued(made: NewCertificate, out: Path) -> None:
    until = format_instant(made.not_after_ms)
    sys.stdout.write(f"{out / made.name}.pem  {made.role}  until {until}  {made.serial}\n")
