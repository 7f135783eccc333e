"""Gateway processes as users run them, on the clock of a measurement, and what they have done."""

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load import BROKER_VARIABLE, LoadError
from benchmarks.processes import peak_memory_mib, tree_cpu_s
from benchmarks.publisher import forget_session
from meter_gateway.overtaking import session_names
from meter_gateway.receiver import BrokerAddress

# The gateway answers each look itself, for some milliseconds in which it does nothing else: seldom
# enough not to be what is measured, and soon enough to see the end.
POLL_S, POLL_MAX_S = 0.02, 1.0
STOP_S = 20.0
# Without a new commit for so long, something is wrong and the run ends.
STALLED_S = 60.0
_ACCEPTED = re.compile(r'^prepaid_readings_total\{verdict="accepted"\} (\S+)$', re.MULTILINE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Workers:
    """`count` processes of one share group; `clock` is theirs, as PREPAID_CLOCK says it."""

    def __init__(
        self, database_url: str, broker_url: str, clock: str, count: int, folder: Path
    ) -> None:
        self._address = BrokerAddress.parse(broker_url)
        self._group = f"bench-{secrets.token_hex(4)}"
        self._count = count
        self._folder = folder
        self._environment = os.environ | {
            "PREPAID_DATABASE__URL": database_url,
            BROKER_VARIABLE: broker_url,
            "PREPAID_CLOCK": clock,
        }
        self._processes: list[subprocess.Popen[str]] = []
        self._ports: list[int] = []
        # Of processes that have ended.
        self._accepted_before = 0
        self._cpu_s_before = 0.0
        self.peak_memory_mib = 0.0

    def _name(self, place: int) -> str:
        return f"{self._group}-{place}"

    def start(self) -> None:
        """Start all and wait until each is subscribed. Errors: LoadError."""
        self._ports = [free_port() for _ in range(self._count)]
        self._processes = [self._run(place, port) for place, port in enumerate(self._ports)]
        for place, process in enumerate(self._processes):
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                said = self._log(place).read_text(encoding="utf-8")[-300:]
                self._end()
                raise LoadError("worker_failed", f"A gateway did not start: {said}")

    def _run(self, place: int, port: int) -> subprocess.Popen[str]:
        name = ["--name", self._name(place), "--group", self._group]
        with self._log(place).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "prepaid", "gateway", *name, "--metrics-port", str(port)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def _log(self, place: int) -> Path:
        return self._folder / f"{self._name(place)}.log"

    def accepted(self) -> int:
        """Readings committed and accepted since the first start, as the gateways count them."""
        total = self._accepted_before
        for port in self._ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                found = _ACCEPTED.search(answer.read().decode())
            total += 0 if found is None else int(float(found[1]))
        return total

    def wait_accepted(self, readings: int) -> None:
        """Until so many are committed. Errors: LoadError when nothing moves any more."""
        began_s = moved_s = time.monotonic()
        first = had = self.accepted()
        while (now := self.accepted()) < readings:
            at_s = time.monotonic()
            if now > had:
                had, moved_s = now, at_s
            if at_s - moved_s > STALLED_S:
                raise LoadError("stalled", f"{now} of {readings} readings were taken, then none.")
            # Half of the time that is left at this pace.
            left_s = (readings - now) * (at_s - began_s) / (now - first) if now > first else 0.2
            time.sleep(min(max(left_s / 2, POLL_S), POLL_MAX_S))

    def cpu_s(self) -> float:
        """CPU seconds of all, from the first start on."""
        return self._cpu_s_before + sum(tree_cpu_s(each.pid) for each in self._processes)

    def note_memory(self) -> None:
        """Keep the largest peak of any of them in `peak_memory_mib`."""
        peaks = [peak_memory_mib(each.pid) for each in self._processes]
        self.peak_memory_mib = max([self.peak_memory_mib, *peaks])

    def stop(self) -> None:
        """In order; the broker keeps their sessions and what comes meanwhile."""
        try:
            if all(each.poll() is None for each in self._processes):
                self._accepted_before = self.accepted()
        finally:
            self._end()

    def _end(self) -> None:
        """Of each process, also of one that is not up yet: nothing is asked of it."""
        self._cpu_s_before = self.cpu_s()
        self.note_memory()
        for each in self._processes:
            each.send_signal(signal.SIGTERM)
        for each in self._processes:
            try:
                each.wait(STOP_S)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()
            if each.stdout is not None:
                each.stdout.close()
        self._processes, self._ports = [], []

    def forget(self) -> None:
        """End their sessions at the broker."""
        for place in range(self._count):
            for session in session_names(self._name(place)):
                forget_session(self._address, session)


@contextmanager
def running(workers: Workers) -> Iterator[Workers]:
    """Started at the beginning; stopped and forgotten at the end, whatever happens."""
    try:
        workers.start()
        yield workers
    finally:
        workers.stop()
        workers.forget()
