"""The processes of the demonstration: started, watched, started again when they die, ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

# A process that dies is back within a second; one that keeps dying does not keep the machine busy.
RESTART_FIRST_S = 0.5
RESTART_LAST_S = 10.0
STOP_S = 15.0


class Child:
    """One `prepaid` command as a process, with its log; `program` is what the interpreter runs."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        logs: Path,
        program: Sequence[str] = ("-m", "prepaid"),
    ) -> None:
        self.name = name
        self.restarts = 0
        self.log = logs / f"{name}.log"
        self.output = logs / f"{name}.out"
        self._arguments = [sys.executable, *program, *arguments]
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._wait_s = RESTART_FIRST_S
        self._due_s = 0.0

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it; its log goes on where it ended."""
        output: IO[bytes]
        with self.log.open("ab") as log, self.output.open("wb") as output:
            self._process = subprocess.Popen(
                self._arguments,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                # Ctrl-C reaches the terminal's whole group: we end our children in their order.
                start_new_session=True,
            )
        self._due_s = 0.0

    def said(self) -> str:
        """The first line of its output: it says so when it is ready."""
        try:
            lines = self.output.read_text().splitlines()
        except OSError:
            return ""
        return lines[0] if lines else ""

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def watch(self) -> str | None:
        """Start it again if it died; returns what happened, if anything."""
        if self._process is None or self._process.poll() is None:
            return None
        now_s = time.monotonic()
        if not self._due_s:
            self._due_s = now_s + self._wait_s
            self._wait_s = min(self._wait_s * 2, RESTART_LAST_S)
            return f"{self.name} ended ({_how(self._process.returncode)}); starting it again"
        if now_s >= self._due_s:
            self.restarts += 1
            self.start()
        return None

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if it does not end in time."""
        process = self._process
        if process is None:
            return
        self._process = None
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _how(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def environment(**values: str) -> dict[str, str]:
    """Our own environment, and these on top."""
    return {**os.environ, **values}
