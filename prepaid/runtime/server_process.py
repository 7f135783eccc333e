"""One server as a child process: port, lock, log, and an end without remains."""

import fcntl
import os
import re
import signal
import socket
import subprocess
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.folders import Account

LOOPBACK = "127.0.0.1"
# Below the range that Linux gives to outgoing connections (32768 and up), so that no client
# occupies a port while its server restarts.
FIRST_PORT, PORTS = 20_000, 10_000
START_DEADLINE_S = 60
STOP_DEADLINE_S = 60
POLL_S = 0.02
# A log that grew past this is started anew.
MAX_LOG_BYTES = 10 * 1024 * 1024

_REASON = re.compile(r"FATAL|PANIC|Error|error")


def choose_port(seed: str, *, taken: frozenset[int] = frozenset()) -> int:
    """A free TCP port of the loopback interface; the same seed tends to give the same port.

    Errors: `no_free_port`.
    """
    first = zlib.crc32(seed.encode())
    for step in range(PORTS):
        port = FIRST_PORT + (first + step) % PORTS
        if port not in taken and port_is_free(port):
            return port
    message = f"No free TCP port between {FIRST_PORT} and {FIRST_PORT + PORTS}: end a program."
    raise RuntimeUnavailableError("no_free_port", message)


def port_is_free(port: int) -> bool:
    """True if a server could listen on `port` of the loopback interface now."""
    with socket.socket() as probe:
        # As the servers do; a connection that is closing does not keep them from starting.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def keep_port(folder: Path, name: str, *, taken: frozenset[int] = frozenset()) -> int:
    """The port written in `folder/NAME.port`; a new one, written there, if that is not free."""
    path = folder / f"{name}.port"
    try:
        port = int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        port = 0
    if not (0 < port < 65_536 and port not in taken and port_is_free(port)):
        port = choose_port(str(path), taken=taken)
        path.write_text(f"{port}\n", encoding="ascii")
    return port


class FolderLock:
    """Keeps a second instance out of one data folder. The kernel frees it when its holder dies."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Errors: `already_running`. Acquired twice by one holder: once."""
        if self._file is not None:
            return
        file = self._path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            message = (
                f"Another instance runs on {self._path.parent}: "
                "stop it, or set PREPAID_HOME to a folder of its own."
            )
            raise RuntimeUnavailableError("already_running", message) from None
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class ServerProcess:
    """Starts, watches and ends one server. `folder` is its working folder and tells it apart.

    The log is opened by us, so it lies in a folder that the server's account cannot change.
    """

    def __init__(self, name: str, folder: Path, log: Path, account: Account) -> None:
        self.name = name
        self.log = log
        self._folder = folder
        self._account = account
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Errors: `not_running` before the start and after the end."""
        if self._child is None or self._child.poll() is not None:
            message = f"{self.name} does not run: start it first, or read {self.log}."
            raise RuntimeUnavailableError("not_running", message)
        return self._child.pid

    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(
        self,
        command: Sequence[str],
        ready: Callable[[int], bool],
        environ: Mapping[str, str],
    ) -> None:
        """Runs `command` until `ready(pid)`. Errors: `start_failed` with the log's first error."""
        if self.log.exists() and self.log.stat().st_size > MAX_LOG_BYTES:
            self.log.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with os.fdopen(os.open(self.log, flags, 0o600), "ab") as log:
            said_before = log.tell()
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=dict(environ),
                # Ctrl-C in a terminal goes to us alone; we end the servers in order.
                start_new_session=True,
                umask=0o077,
                user=self._account.popen_user,
                group=self._account.popen_group,
                extra_groups=self._account.popen_extra_groups,
            )
        deadline = time.monotonic() + START_DEADLINE_S
        while not ready(self._child.pid):
            if self._child.poll() is not None or time.monotonic() > deadline:
                self.kill()
                said = self.log.read_bytes()[said_before:].decode(errors="replace").splitlines()
                named = [line for line in said if _REASON.search(line)]
                reason = (named or said or ["no message"])[0].strip()
                message = f"{self.name} did not start ({reason}): see {self.log}."
                raise RuntimeUnavailableError("start_failed", message)
            time.sleep(POLL_S)

    def stop(self, ask: signal.Signals) -> None:
        """Asks the server to end in order, and ends it by force after a minute."""
        if self._child is None:
            return
        if self._child.poll() is None:
            self._child.send_signal(ask)
            try:
                self._child.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._child = None

    def kill(self) -> None:
        """Ends the server and its children at once, as a power cut would. For fault tests too."""
        if self._child is None:
            return
        if self._child.poll() is None:
            children = _children(self._child.pid)
            self._child.kill()
            for child in children:
                _signal(child, signal.SIGKILL)
            _wait_gone(children)
        self._child.wait()
        self._child = None

    def end_leftover(self, pid_file: Path, ask: signal.Signals) -> None:
        """Ends the server that a killed parent left behind in this folder, if there is one."""
        try:
            pid = int(pid_file.read_text(encoding="ascii").split("\n", 1)[0])
            ours = Path(f"/proc/{pid}/cwd").resolve(strict=True) == self._folder.resolve()
        except (OSError, ValueError):
            return
        if ours:
            _signal(pid, ask)
            _wait_gone([pid])


def _children(pid: int) -> list[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in listed.split()]


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _wait_gone(pids: Sequence[int]) -> None:
    """Waits until none of `pids` is there; a zombie whose parent has yet to ask counts as gone."""
    deadline = time.monotonic() + STOP_DEADLINE_S
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
