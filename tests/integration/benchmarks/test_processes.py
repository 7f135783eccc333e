"""A process of a measurement that fails ends it with the reason."""

import os
import subprocess
import sys

import pytest

from benchmarks import workers
from benchmarks.bench_api import _serving
from benchmarks.floors import Running
from benchmarks.load import LoadError
from benchmarks.processes import listener_pid, peak_memory_mib, process_cpu_s, tree_cpu_s
from benchmarks.workers import Workers, free_port

NOWHERE = "postgresql://127.0.0.1:1/none"


@pytest.fixture
def idle(tmp_path):
    return Workers(NOWHERE, "mqtt://127.0.0.1:1", "no clock", 1, tmp_path)


def test_a_gateway_that_does_not_start_says_why(idle):
    with pytest.raises(LoadError, match=r"A gateway did not start.*Write a clock as"):
        idle.start()


def test_gateways_that_take_nothing_more_end_the_run(idle, monkeypatch):
    monkeypatch.setattr(workers, "STALLED_S", 0.05)
    monkeypatch.setattr(idle, "accepted", lambda: 3)
    idle.wait_accepted(3)
    with pytest.raises(LoadError, match="3 of 4 readings were taken, then none"):
        idle.wait_accepted(4)


def test_an_api_that_does_not_start_says_why(tmp_path):
    environment = {name: value for name, value in os.environ.items() if "PREPAID_" not in name}
    with (
        pytest.raises(LoadError, match=r"The API did not start.*PREPAID_DATABASE__URL"),
        _serving(("prepaid", "api", "--port", "0"), environment, tmp_path),
    ):
        pass


def test_a_floor_that_fails_is_no_measurement():
    with pytest.raises(LoadError, match="ended with an error"):
        Running(subprocess.Popen(["false"], text=True)).finish()


def test_a_process_is_found_by_its_port_and_its_children_count():
    port = free_port()
    work = "sum(range(3_000_000))"
    program = (
        f"import socket, subprocess, sys; subprocess.run([sys.executable, '-c', '{work}']);"
        f" s = socket.create_server(('127.0.0.1', {port})); print('ready', flush=True);"
        " sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert listener_pid(port, "python") == process.pid
        assert listener_pid(port, "mosquitto") is None
        # The child has ended: its time is in the parent's, and not in the parent alone.
        assert tree_cpu_s(process.pid) > process_cpu_s(process.pid, "python") > 0
        assert peak_memory_mib(process.pid) > 1
        process.kill()
    assert tree_cpu_s(process.pid) == 0
