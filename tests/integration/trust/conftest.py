"""A broker of its own for these tests, from the files that `prepaid broker config` writes: TLS with
certificates, TLS with passwords, pre-shared keys, and the listener of the server's parts.
"""

import contextlib
import io
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import mqtt5
import psycopg
import pytest
from aiomqtt import ProtocolVersion

from meter_gateway.checked_client import CheckedClient
from meter_gateway.receiver import BrokerAddress
from prepaid.cli import main
from prepaid.runtime import Account, Binaries, resolve
from prepaid.runtime.server_process import LOOPBACK, ServerProcess, choose_port
from prepaid.trust.authority import Authority
from prepaid.trust.desk import Desk, open_folder
from prepaid.trust.files import passphrase
from store import registry

METER, OTHER, PASSWORD_METER, PSK_METER, FRESH, REVOKED = (
    "37000000017", "37000000025", "37000000033", "37000000041", "37000000058", "37000000074",
)  # fmt: skip
GATEWAY, CLAIM, HOST = "DCU-7", "claim.batch-1", "broker.utility.example"


class Site:
    """The utility's installation: `prepaid` runs a command as an operator types it."""

    def __init__(self, folder: Path, database_url: str, ports: dict[str, int]) -> None:
        self.folder = folder
        self.database_url = database_url
        self.ports = ports
        self.environ: dict[str, str] = {}

    @property
    def broker(self) -> Path:
        return self.folder / "broker"

    @property
    def certs(self) -> Path:
        return self.folder / "certs"

    @property
    def log(self) -> Path:
        return self.folder / "mosquitto.log"

    def prepaid(self, *words: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environ.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["prepaid", *words])
            with (
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
                pytest.raises(SystemExit) as ended,
            ):
                main()
        return int(ended.value.code or 0), out.getvalue(), err.getvalue()

    def prepaid_reading(self, said: str, *words: str) -> tuple[int, str, str]:
        """A command that reads its standard input, and would catch signals in a process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(said))
            patch.setattr(signal, "signal", lambda *_: None)
            return self.prepaid(*words)

    def done(self, *words: str) -> str:
        code, out, err = self.prepaid(*words)
        assert code == 0, err
        return out

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca" / "ca.pem"

    def part(self, part: str) -> BrokerAddress:
        """Where and as whom one of the server's parts connects."""
        variable = {"ingest": "URL", "dispatch": "DISPATCH_URL", "enrolment": "ENROLMENT_URL",
                    "watch": "WATCH_URL"}[part]  # fmt: skip
        return BrokerAddress.parse(self.environ[f"PREPAID_BROKER__{variable}"])

    def context(self, name: str | None, ca: Path | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=ca or self.ca_file)
        if name is not None:
            context.load_cert_chain(self.certs / f"{name}.pem", self.certs / f"{name}.key")
        return context

    def admits(
        self,
        context: ssl.SSLContext | None,
        listener: str = "certificates",
        username: str | None = None,
        password: str = "",
    ) -> bool:
        """Whether a client gets as far as a session, by the bytes of one attempt."""
        connect = mqtt5.ConnectPacket(
            "whoever",
            username=username,
            password=password.encode() if username else None,
            clean_start=True,
        )
        try:
            with socket.create_connection((LOOPBACK, self.ports[listener]), timeout=5) as plain:
                link = context.wrap_socket(plain, server_hostname=HOST) if context else plain
                with link:
                    link.sendall(connect.write())
                    answer, _ = mqtt5.read(memoryview(link.recv(1024)))
        except (OSError, IndexError):
            return False  # the handshake failed, or the broker hung up without a word
        return getattr(answer, "reason_code", None) == mqtt5.ConnAckReasonCode.SUCCESS

    def device(self, name: str, **options: Any) -> CheckedClient:
        """A device with its certificate."""
        if "tls_context" not in options:
            options["tls_context"] = self.context(name)
        return self.client("certificates", **{"identifier": name, "timeout": 15} | options)

    def client(self, listener: str, **options: Any) -> CheckedClient:
        return CheckedClient(
            LOOPBACK,
            self.ports[listener],
            protocol=ProtocolVersion.V5,
            **options,
        )

    def desk(self) -> Desk:
        ca = self.folder / "ca"
        authority = Authority.load(ca, passphrase(self.folder / "passphrase"))
        return Desk(authority, ca, open_folder(self.broker))

    def issue(self, *names: str) -> None:
        for name in names:
            self.done("certs", "issue", name, "--out", str(self.certs), "--by", "a")


def _provision(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        centre = registry.add_centre(conn, "C", "C")
        for number in (METER, OTHER, PASSWORD_METER, PSK_METER, FRESH, REVOKED):
            registry.add_meter(conn, centre, registry.NewMeter(number))
        registry.add_meter(conn, centre, registry.NewMeter("77000000001", gateway=GATEWAY))


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    return resolve(lambda _: None)


@pytest.fixture(scope="session")
def site(
    open_folder: Path,
    binaries: Binaries,
    copied_database: Callable[[str], AbstractContextManager[str]],
    template_database: str,
) -> Iterator[Site]:
    home = open_folder / "trust"
    home.mkdir()
    ports: dict[str, int] = {}
    for name in ("parts", "certificates", "passwords", "keys"):
        ports[name] = choose_port(f"{home}/{name}", taken=frozenset(ports.values()))
    with copied_database(template_database) as url:
        _provision(url)
        made = Site(home, url, ports)
        made.environ = {
            "PREPAID_DATABASE__URL": url,
            "PREPAID_TRUST__CA": str(home / "ca"),
            "PREPAID_TRUST__CA_PASSPHRASE_FILE": str(home / "passphrase"),
        }
        made.done("certs", "ca", str(home / "ca"), "--passphrase-file", str(home / "passphrase"))
        made.done(*_config(made))
        for line in (made.broker / "parts.env").read_text().splitlines():
            name, _, value = line.partition("=")
            made.environ[name] = value
        process = ServerProcess("mosquitto", made.broker / "state", made.log, Account.choose())
        process.start(
            [str(binaries.mosquitto.server), "-c", str(made.broker / "mosquitto.conf")],
            lambda _: all(_open(port) for port in ports.values()),
            {"PATH": os.environ["PATH"]},
        )
        made.issue(CLAIM, METER, OTHER, GATEWAY)
        yield made
        process.stop(signal.SIGTERM)


def _config(site: Site) -> list[str]:
    words = ["broker", "config", str(site.broker), "--address", LOOPBACK]
    for host in (HOST, "localhost", LOOPBACK):
        words += ["--host", host]
    options = {"parts-port": "parts", "port": "certificates", "password-port": "passwords",
               "psk-port": "keys"}  # fmt: skip
    for option, name in options.items():
        words += [f"--{option}", str(site.ports[name])]
    return words


def _open(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    """Wait for a condition, never for a time."""
    return _until


def _until(true: Callable[[], Any], what: str, deadline_s: float = 20.0) -> Any:
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        found = true()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(what)
