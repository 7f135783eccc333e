"""The main job as a user starts it: a process, real servers of its own, and a look at the end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prepaid.runtime import Folders

ROOT = Path(__file__).parents[2]
METERS = 24
PATIENCE_S = 150


def own_environment(home: Path) -> dict[str, str]:
    """Servers of its own, whatever the tests around use; the programs come from the usual cache."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREPAID_")}
    cache = str(Folders.choose(os.environ).cache)
    return {**kept, "PREPAID_HOME": str(home), "PREPAID_CACHE": cache, "PYTHONPATH": str(ROOT)}


class Up:
    """`prepaid up --json` as a process."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.began_s = time.monotonic()
        self.errors = (home.parent / f"{home.name}.err").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "prepaid", "up", "--json", f"--meters={METERS}", "--speed=120"],
            env=own_environment(home),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.seen: dict[str, Any] = {}

    def until(self, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """The first report for which it holds."""
        assert self.process.stdout is not None
        deadline_s = time.monotonic() + PATIENCE_S
        for line in self.process.stdout:
            self.seen = json.loads(line)
            if holds(self.seen):
                return self.seen
            if time.monotonic() > deadline_s:
                pytest.fail(f"never seen: {what}; last: {self.seen}")
        pytest.fail(f"it ended before: {what}; {Path(self.errors.name).read_text()}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        _, _ = self.process.communicate(timeout=60)
        self.errors.close()
        return self.process.returncode


@pytest.fixture(scope="module")
def home(open_folder: Path) -> Path:
    return open_folder / "main-job"


@pytest.fixture
def up(home: Path) -> Iterator[Up]:
    running = Up(home)
    yield running
    if running.process.poll() is None:
        running.stop()


def living(home: Path) -> list[str]:
    """Command lines of processes that were started with this home."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            if str(home) in line or f"PREPAID_HOME={home}\0".encode() in environment:
                found.append(line)
    return found


def audit(home: Path) -> subprocess.CompletedProcess[str]:
    """`prepaid audit` on the database of a demonstration that has ended."""
    servers = subprocess.Popen(
        [sys.executable, "-m", "prepaid.runtime", "run"],
        env=own_environment(home),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert servers.stdout is not None
        name, _, url = servers.stdout.readline().strip().partition("=")
        return subprocess.run(
            [sys.executable, "-m", "prepaid", "audit"],
            env={**own_environment(home), name: url},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        servers.send_signal(signal.SIGTERM)
        servers.communicate(timeout=60)


@pytest.mark.timeout(400)
def test_credit_runs_out_supply_is_cut_a_payment_brings_a_token_and_supply_back(up: Up) -> None:
    up.until(lambda seen: seen["readings_per_s"] > 0, "readings")
    up.until(lambda seen: seen["relays_open"] > 0, "a supply that is cut, as the meter says")
    up.until(lambda seen: seen["tokens_accepted"] > 0, "a token that a meter accepted")
    up.until(lambda seen: seen["on_supply_top_ups"] > 0, "a payment that brought supply back")

    # kill -9 in the middle of it: it comes back by itself, and everything goes on.
    os.kill(up.seen["processes"]["gateway"], signal.SIGKILL)
    before = up.seen
    up.until(lambda seen: seen["restarts"] > before["restarts"], "the gateway again")
    after = up.until(
        lambda seen: seen["readings_per_s"] > 0 and seen["top_ups"] > before["top_ups"],
        "readings and payments after the kill",
    )
    assert after["quarantine"] == {}
    assert up.stop() == 0
    assert living(up.home) == []

    told = audit(up.home)
    assert told.returncode == 0, told.stdout[-2000:]
    assert told.stdout.splitlines()[-1].endswith(", 0 failed")


@pytest.mark.timeout(200)
def test_a_second_start_goes_on_with_the_data_of_the_first(up: Up) -> None:
    first = up.until(lambda seen: seen["readings_per_s"] > 0, "readings")
    assert first["accounts"] == METERS
    assert first["top_ups"] > 0
    assert up.stop() == 0
