"""`prepaid broker`: what a mosquitto is told, who has a password or key, and what it refused."""

import json
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from prepaid import logs
from prepaid.clock import wall_ms
from prepaid.database import connected
from prepaid.runtime.broker_folder import BrokerFolder
from prepaid.runtime.folders import Account
from prepaid.runtime.mosquitto_files import AUTOSAVE_INTERVAL_S, PARTS, Listener
from prepaid.runtime.server_process import LOOPBACK
from prepaid.secrets_files import read_secret, write_secret
from prepaid.settings import Settings
from prepaid.trust.broker_log import LogFile, Tally, read_line
from prepaid.trust.desk import Desk, open_folder, role_of
from prepaid.trust.files import load_authority
from schemas.errors import DomainError
from schemas.quantities import format_instant
from store import trust
from store.errors import Unavailable
from store.pool import Connection

PASSWORD_OCTETS = 24
KEY_OCTETS = 32
ROUND_S = 1.0
DAY_MS = 24 * 3600 * 1000
# Each part's address, for the file that the parts are started with.
VARIABLES = {
    "part.ingest": "PREPAID_BROKER__URL",
    "part.dispatch": "PREPAID_BROKER__DISPATCH_URL",
    "part.enrolment": "PREPAID_BROKER__ENROLMENT_URL",
    "part.watch": "PREPAID_BROKER__WATCH_URL",
}

Device = Annotated[str, typer.Argument(help="A meter's number or a gateway's name.")]

app = typer.Typer(
    no_args_is_help=True,
    help="""The broker's configuration and access. Its folder: PREPAID_BROKER__FOLDER.

    Other brokers than mosquitto: docs/broker.md.
    """,
)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="broker")


@app.command()
def config(
    folder: Annotated[Path, typer.Argument(help="For mosquitto.conf and all that it names.")],
    host: Annotated[
        list[str], typer.Option(help="Name or address that devices know the broker by; repeat it.")
    ],
    user: Annotated[
        str | None, typer.Option(help="Account that mosquitto runs as; only root names one.")
    ] = None,
    address: Annotated[str, typer.Option(help="Where devices connect.")] = "0.0.0.0",  # noqa: S104 - devices come from outside
    port: Annotated[int, typer.Option(min=1, max=65535, help="TLS with certificates.")] = 8883,
    password_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="TLS with passwords; none without.")
    ] = None,
    psk_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="TLS with pre-shared keys; none without.")
    ] = None,
    parts_address: Annotated[
        str, typer.Option(help="Where the server's parts connect; beyond loopback with TLS.")
    ] = LOOPBACK,
    parts_port: Annotated[int, typer.Option(min=1, max=65535)] = 1883,
    count_refusals: Annotated[
        bool, typer.Option(help="Log denied publications, for `prepaid broker watch`.")
    ] = True,
    autosave: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="SECONDS",
            help="Between two snapshots of its queues; 300 where millions of messages may wait.",
        ),
    ] = AUTOSAVE_INTERVAL_S,
) -> None:
    """Write a mosquitto's configuration: certificates, access list, users of the server's parts.

    Run it again after a change of mind: passwords, keys and the server's certificate stay. The
    parts' addresses with their passwords go to parts.env (mode 0600). Let only the server's own
    network reach the parts' port: a client chooses its id there.
    """
    files = BrokerFolder(folder.absolute(), Account.choose(user))
    files.make()
    settings = Settings()
    desk = Desk(load_authority(settings.trust), _ca_folder(settings), files)
    with connected(settings) as conn:
        if not (files.folder / "server.pem").exists():
            _issue_server(desk, conn, files, tuple(host))
        desk.publish_revocations(conn, wall_ms())
    parts_tls = None if parts_address == LOOPBACK else files.server_tls(certificates=False)
    listeners = [
        Listener(parts_port, parts_address, tls=parts_tls),
        Listener(port, address, tls=files.server_tls(certificates=True), devices=True),
    ]
    if password_port is not None:
        tls = files.server_tls(certificates=False)
        listeners.append(Listener(password_port, address, tls=tls, devices=True))
    if psk_port is not None:
        listeners.append(Listener(psk_port, address, pre_shared_keys=True, devices=True))
    files.write_configuration(
        listeners, protected=True, count_refusals=count_refusals, autosave_interval_s=autosave
    )
    reach = LOOPBACK if parts_address == LOOPBACK else host[0]
    _write_parts(files, f"{reach}:{parts_port}", tls=parts_tls is not None)
    files.reload()
    sys.stdout.write(f"{files.configuration}\n{files.folder / 'parts.env'}\n")


def _ca_folder(settings: Settings) -> Path:
    assert settings.trust.ca is not None, "load_authority refuses a missing folder"
    return settings.trust.ca


def _issue_server(
    desk: Desk, conn: Connection, files: BrokerFolder, hosts: tuple[str, ...]
) -> None:
    now_ms = wall_ms()
    target = files.folder / "issued"
    held = bool(trust.in_force(conn, "server", now_ms))
    desk.issue(conn, "server", target, "broker config", now_ms, hosts=hosts, renewal=held)
    certificate, key = target / "server.pem", target / "server.key"
    files.write_server(certificate.read_bytes(), read_secret(key), desk.authority.pem)
    certificate.unlink()
    key.unlink()
    target.rmdir()


def _write_parts(files: BrokerFolder, at: str, *, tls: bool) -> None:
    """Passwords are made once; they stand in clear in parts.env alone."""
    path = files.folder / "parts.env"
    if path.exists() and files.users() >= set(PARTS):
        return
    passwords = {part: secrets.token_urlsafe(PASSWORD_OCTETS) for part in PARTS}
    files.set_passwords(passwords)
    scheme = "mqtts" if tls else "mqtt"
    lines = [
        f"{VARIABLES[part]}={scheme}://{part}:{quote(password, safe='')}@{at}\n"
        for part, password in passwords.items()
    ]
    lines.append(f"PREPAID_BROKER__FOLDER={files.folder}\n")
    if tls:
        lines.append(f"PREPAID_BROKER__CA={files.folder / 'ca.pem'}\n")
    write_secret(path, "".join(lines).encode())


@app.command()
def password(device: Device) -> None:
    """Give a device that has no certificate a password; it is printed once."""
    files = _device_folder(device)
    made = secrets.token_urlsafe(PASSWORD_OCTETS)
    files.set_passwords({device: made})
    files.reload()
    sys.stdout.write(f"{made}\n")


@app.command()
def psk(device: Device) -> None:
    """Give a device that has no certificate a pre-shared key; it is printed once, in hex."""
    files = _device_folder(device)
    made = secrets.token_bytes(KEY_OCTETS)
    files.set_key(device, made)
    files.reload()
    sys.stdout.write(f"{made.hex()}\n")


@app.command()
def forget(device: Device) -> None:
    """Take a device's password and key away; mosquitto ends its connection."""
    files = _device_folder(device)
    if not files.forget(device):
        raise DomainError("not_found", f"{device} has neither password nor key.")
    files.reload()
    sys.stdout.write(f"{device} forgotten\n")


@app.command()
def watch(
    log: Annotated[str, typer.Argument(help="mosquitto's log, or - for standard input.")],
    trim: Annotated[
        bool, typer.Option("--trim", help="Begin the file anew when it grew large.")
    ] = False,
) -> None:
    """Count what the broker refuses, by day and device, in the database; until SIGTERM or Ctrl-C.

    Needs a configuration with --count-refusals. With systemd:
    journalctl -fu mosquitto -o cat | prepaid broker watch -
    """
    logs.configure(as_json=False)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    settings = Settings()
    tally = Tally()
    if log == "-":
        _watch_stream(settings, tally)
        return
    file = LogFile(Path(log), trim=trim)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not ended.wait(ROUND_S):
        _count(tally, file.lines())
        _record(settings, tally)


def _watch_stream(settings: Settings, tally: Tally) -> None:
    recorded_s = time.monotonic()
    for line in sys.stdin:
        _count(tally, iter((line.rstrip("\n"),)))
        # A flood of refusals is not to be a flood of connections to the database.
        if time.monotonic() - recorded_s >= ROUND_S:
            _record(settings, tally)
            recorded_s = time.monotonic()
    _record(settings, tally)


def _count(tally: Tally, lines: Iterator[str]) -> None:
    for line in lines:
        seen = read_line(line)
        if seen is not None:
            tally.add(seen)


def _record(settings: Settings, tally: Tally) -> None:
    taken = tally.take()
    if not taken:
        return
    try:
        with connected(settings) as conn:
            trust.count_refusals(conn, taken, wall_ms())
    except Unavailable:
        tally.give_back(taken)  # the next round brings them


@app.command()
def refusals(
    days: Annotated[int, typer.Option(min=1, help="How far back.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show what the broker and the enrolment refused, by device and day (UTC), newest first."""
    with connected(Settings()) as conn:
        for each in trust.refusals(conn, wall_ms() - days * DAY_MS):
            if as_json:
                sys.stdout.write(json.dumps(each._asdict()) + "\n")
            else:
                sys.stdout.write(
                    f"{each.day}  {each.device or '(unknown)'}  {each.reason}  {each.times}  "
                    f"last {format_instant(each.last_ms)} {each.last_detail}\n"
                )


def _device_folder(device: str) -> BrokerFolder:
    if role_of(device) not in {"meter", "gateway"}:
        raise DomainError("bad_name", "Name a meter's number or a gateway.")
    folder = Settings().broker.folder
    if folder is None:
        raise DomainError("not_configured", "Set PREPAID_BROKER__FOLDER to the broker's folder.")
    return open_folder(folder)
