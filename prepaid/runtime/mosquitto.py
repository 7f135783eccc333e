"""A private mosquitto on the loopback interface that keeps what it acknowledged."""

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from prepaid.runtime.binaries import MosquittoBinaries
from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.folders import Account
from prepaid.runtime.server_process import LOOPBACK, FolderLock, ServerProcess, keep_port

# mosquitto's own defaults drop QoS 1 messages of a slow subscriber without a word, beyond 20 in
# flight and 1,000 queued. Zero lifts the limit in flight; the queue is bounded by bytes, far
# above a backlog of one hour of a fleet of 100,000 meters that report every 15 minutes.
MAX_QUEUED_BYTES = 1024 * 1024 * 1024
# The largest payload of the MQTT contract with room for its properties.
MAX_PACKET_BYTES = 128 * 1024
# What a crash can take with it: mosquitto 2 writes its state as a snapshot, every so often.
AUTOSAVE_INTERVAL_S = 2
MAX_KEEPALIVE_S = 3_600
# A session that stays away longer than this is forgotten with its queue.
PERSISTENT_CLIENT_EXPIRATION = "30d"
# What every broker of ours keeps to, wherever it runs; compose.yaml repeats it.
SETTINGS = (
    "persistence true",
    f"autosave_interval {AUTOSAVE_INTERVAL_S}",
    f"persistent_client_expiration {PERSISTENT_CLIENT_EXPIRATION}",
    "max_inflight_messages 0",
    "max_queued_messages 0",
    f"max_queued_bytes {MAX_QUEUED_BYTES}",
    f"max_packet_size {MAX_PACKET_BYTES}",
    f"max_keepalive {MAX_KEEPALIVE_S}",
    "queue_qos0_messages false",
    "sys_interval 10",
    "set_tcp_nodelay true",
    "log_type error",
    "log_type warning",
    "log_type notice",
    "connection_messages false",
)


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening address. Beyond loopback a client must show a certificate."""

    port: int
    address: str = LOOPBACK
    # Lines of mosquitto.conf(5) that belong to a listener: cafile, require_certificate and so on.
    certificates: tuple[str, ...] = ()

    def render(self) -> list[str]:
        """Errors: `listener_open` if anonymous clients could come from another host."""
        if self.address != LOOPBACK and "require_certificate true" not in self.certificates:
            message = f"A listener on {self.address} must require certificates: give them."
            raise RuntimeUnavailableError("listener_open", message)
        return [f"listener {self.port} {self.address}", *self.certificates]


def render_configuration(
    folder: Path, listeners: tuple[Listener, ...], access: tuple[str, ...] = ()
) -> str:
    """mosquitto.conf(5): what holds for all, access lists, then each listener.

    `access` names files of access lists and passwords. Not `per_listener_settings true`: a session
    that is away has no listener, so mosquitto 2.0 then refuses it every message and its queue
    stays empty. Certificates belong to a listener in any case, and the name in a certificate can
    be the user that the access list knows.
    """
    lines = [
        "# Written at every start.",
        f"pid_file {folder}/mosquitto.pid",
        f"persistence_location {folder}/",
        "log_dest stderr",
        *SETTINGS,
        # Holds for loopback alone: every other listener requires a certificate, see Listener.
        "allow_anonymous true",
        *access,
    ]
    for listener in listeners:
        lines.extend(listener.render())
    return "\n".join(lines) + "\n"


class Mosquitto:
    """`with Mosquitto(binaries, folder, account) as broker: broker.url`

    Two listeners, one for devices and one for our own parts, as a production broker has them.
    """

    def __init__(self, binaries: MosquittoBinaries, data_dir: Path, account: Account) -> None:
        self._binaries = binaries
        self._folder = data_dir
        self._state = data_dir / "state"
        self._account = account
        self._lock = FolderLock(data_dir)
        self._process = ServerProcess("mosquitto", self._state, data_dir / "mosquitto.log", account)
        self._backend_port = 0
        self._device_port = 0

    @property
    def url(self) -> str:
        """`mqtt://127.0.0.1:PORT` of the listener for our own parts."""
        return f"mqtt://{LOOPBACK}:{self._chosen(self._backend_port)}"

    @property
    def device_url(self) -> str:
        """`mqtt://127.0.0.1:PORT` of the listener for devices."""
        return f"mqtt://{LOOPBACK}:{self._chosen(self._device_port)}"

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
            configuration = self._folder / "mosquitto.conf"
            configuration.write_text(
                render_configuration(
                    self._state, (Listener(self._backend_port), Listener(self._device_port))
                ),
                encoding="utf-8",
            )
            self._process.start(
                [str(self._binaries.server), "-c", str(configuration)],
                self._ready,
                {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"},
            )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Writes the state and ends."""
        self._process.stop(signal.SIGTERM)
        self._lock.release()

    def kill(self) -> None:
        """Ends it with SIGKILL: up to AUTOSAVE_INTERVAL_S of its state is lost."""
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
