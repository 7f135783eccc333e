"""The programs of the system as users run them, with a supervisor, and what can be done to them."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from prepaid.demo.processes import Child
from prepaid.runtime.server_process import POLL_S

# A program that died is back after this long, as under any supervisor.
RESTART_S = 0.3
READY_S = 60.0
LOG_LINES = 12
LOG_TAIL_BYTES = 16_384


class Program:
    """One process that is kept alive, except while a fault holds it down."""

    def __init__(self, name: str, child: Child) -> None:
        self.name = name
        # How often it ended by itself since it was last asked.
        self.died = 0
        self._child = child
        self._down = False
        self._due_s = 0.0

    @property
    def pid(self) -> int:
        """Errors: RuntimeError while it does not run."""
        pid = self._child.pid
        if pid is None or not self._child.running():
            raise RuntimeError(f"{self.name} does not run: {self.last_words()}")
        return pid

    def start(self) -> None:
        """Start it, and keep it running."""
        self._child.start()
        self._down, self._due_s = False, 0.0

    async def ready(self) -> str:
        """Its first line. Errors: RuntimeError where it says none in time."""
        end_s = time.monotonic() + READY_S
        while not self._child.said():
            if time.monotonic() > end_s or not self._child.running():
                raise RuntimeError(f"{self.name} did not start: {self.last_words()}")
            await asyncio.sleep(POLL_S)
        return self._child.said()

    def look(self) -> None:
        """Start it again a moment after it died by itself."""
        if self._down or self._child.running():
            return
        now_s = time.monotonic()
        if not self._due_s:
            self.died += 1
            self._due_s = now_s + RESTART_S
        elif now_s >= self._due_s:
            self.start()

    def kill(self) -> None:
        """SIGKILL; it stays down until `start`."""
        self._down = True
        self._child.kill()

    async def stop(self) -> None:
        """SIGTERM, in order; it stays down until `start`."""
        self._down = True
        await asyncio.to_thread(self._child.stop)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """SIGSTOP until the block ends."""
        with stopped([self.pid]):
            yield

    def last_words(self) -> str:
        """The end of its log."""
        return tail(self._child.log)


@contextlib.contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    """SIGSTOP to each of these until the block ends; who is gone meanwhile is gone."""
    for pid in pids:
        _send(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            _send(pid, signal.SIGCONT)


def family(pid: int) -> list[int]:
    """A process and its children, the parent first."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return [pid]
    return [pid, *(int(child) for child in listed.split())]


def tail(log: Path) -> str:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-LOG_LINES:])


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
