"""A private mosquitto on the loopback interface that keeps what it acknowledged.

Without an `Access` it admits whoever is on this machine: for tests and trials. With one it asks for
passwords or certificates, by the same files that `prepaid broker config` writes for a broker that
stands alone.
"""

import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from prepaid.runtime.binaries import MosquittoBinaries
from prepaid.runtime.broker_folder import BrokerFolder
from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.folders import Account
from prepaid.runtime.mosquitto_files import AUTOSAVE_INTERVAL_S, Listener
from prepaid.runtime.server_process import LOOPBACK, FolderLock, ServerProcess, keep_port

# The user whose rights ingest needs; the address for our own parts is this one's.
INGEST = "part.ingest"


@dataclass(frozen=True, slots=True, repr=False)
class DeviceTls:
    """TLS for devices, as PEM: the broker's certificate and key, and the authority of theirs."""

    certificate: bytes
    private_key: bytes
    ca: bytes
    revocations: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Access:
    """Passwords by user name, claims, and whether devices show certificates instead of passwords.

    `count_refusals`: the log tells each denied publication, with a line per packet beside them.
    """

    passwords: Mapping[str, str]
    claims: Sequence[str] = ()
    device_tls: DeviceTls | None = None
    count_refusals: bool = False


class Mosquitto:
    """`with Mosquitto(binaries, folder, account) as broker: broker.url`

    Two listeners, one for devices and one for our own parts, as a production broker has them.
    """

    def __init__(
        self,
        binaries: MosquittoBinaries,
        data_dir: Path,
        account: Account,
        access: Access | None = None,
        *,
        autosave_interval_s: int = AUTOSAVE_INTERVAL_S,
    ) -> None:
        self._binaries = binaries
        self._folder = data_dir
        self.files = BrokerFolder(data_dir, account)
        self._access = access
        self._autosave_interval_s = autosave_interval_s
        self._state = self.files.state
        self._account = account
        self._lock = FolderLock(data_dir)
        self._process = ServerProcess("mosquitto", self._state, data_dir / "mosquitto.log", account)
        self._backend_port = 0
        self._device_port = 0

    @property
    def url(self) -> str:
        """`mqtt://127.0.0.1:PORT` of the listener for our own parts, for ingest."""
        return self.part_url(INGEST)

    def part_url(self, part: str) -> str:
        """The same for another part; with its user and password where the broker asks for them."""
        at = f"{LOOPBACK}:{self._chosen(self._backend_port)}"
        if self._access is None:
            return f"mqtt://{at}"
        return f"mqtt://{part}:{quote(self._access.passwords[part], safe='')}@{at}"

    @property
    def device_url(self) -> str:
        """`mqtt://127.0.0.1:PORT` of the listener for devices, `mqtts:` with certificates."""
        tls = self._access is not None and self._access.device_tls is not None
        return f"mqtt{'s' if tls else ''}://{LOOPBACK}:{self._chosen(self._device_port)}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> Path:
        return self._process.log

    def running(self) -> bool:
        return self._process.running()

    def start(self) -> None:
        """Serves; a second start keeps the ports and finds sessions, queues and retained messages.

        Errors: `already_running`, `start_failed`, and those of `Account.make_folder`.
        """
        self._account.make_folder(self._state)
        self._lock.acquire()
        try:
            self._process.end_leftover(self._state / "mosquitto.pid", signal.SIGTERM)
            if self._backend_port == 0:
                self._backend_port = keep_port(self._folder, "backend")
                self._device_port = keep_port(
                    self._folder, "device", taken=frozenset({self._backend_port})
                )
            self._write_files()
            self._process.start(
                [str(self._binaries.server), "-c", str(self.files.configuration)],
                self._ready,
                {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"},
            )
        except BaseException:
            self.stop()
            raise

    def _write_files(self) -> None:
        files, access = self.files, self._access
        tls = None
        if access is not None:
            files.write_access_list(access.claims)
            files.set_passwords(dict(access.passwords))
            if access.device_tls is not None:
                pem = access.device_tls
                files.write_server(pem.certificate, pem.private_key, pem.ca)
                files.write_revocations(pem.revocations)
                tls = files.server_tls(certificates=True)
        files.write_configuration(
            (
                Listener(self._backend_port),
                Listener(self._device_port, tls=tls, devices=access is not None),
            ),
            protected=access is not None,
            count_refusals=access is not None and access.count_refusals,
            autosave_interval_s=self._autosave_interval_s,
        )

    def stop(self) -> None:
        """Writes the state and ends."""
        self._process.stop(signal.SIGTERM)
        self._lock.release()

    def kill(self) -> None:
        """Ends it with SIGKILL: its state is that of its last snapshot."""
        self._process.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _chosen(self, port: int) -> int:
        if port == 0:
            raise RuntimeUnavailableError("not_running", "mosquitto has no port: start it first.")
        return port

    def _ready(self, pid: int) -> bool:
        for port in (self._backend_port, self._device_port):
            try:
                socket.create_connection((LOOPBACK, port), timeout=1).close()
            except OSError:
                return False
        return True
