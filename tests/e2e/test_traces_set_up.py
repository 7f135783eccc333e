"""Traces are set up where the standard variables ask for them, and nowhere else."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
# In a process of its own: a provider is set once in a process's life, and threads come with it.
SET_UP = """
import sys, threading
from prepaid.traces import set_up
set_up("prepaid-test")
from opentelemetry import trace
loaded = [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
span = trace.get_tracer("test").start_span("test")
print(bool(loaded), threading.active_count() > 1, span.is_recording())
"""
WITHOUT_THE_EXTRA = """
import sys
sys.modules["{missing}"] = None
sys.argv = ["prepaid", "{command}"]
from prepaid.cli import main
main()
"""


def run(program: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "PREPAID_"))
    }
    return subprocess.run(
        [sys.executable, "-c", program],
        env=kept | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {"OTEL_SERVICE_NAME": "north", "OTEL_TRACES_SAMPLER": "always_on"},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "True"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_loaded_started_or_recorded_unasked(variables: dict[str, str]) -> None:
    done = run(SET_UP, variables)
    assert (done.stdout, done.stderr) == ("False False False\n", "")


@pytest.mark.parametrize(
    ("variables", "recorded"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, True),
        ({**ENDPOINT, "OTEL_TRACES_SAMPLER": "always_off"}, False),
    ],
)
def test_an_endpoint_asks_for_traces_and_the_sampler_decides_which(
    variables: dict[str, str], recorded: bool
) -> None:
    done = run(SET_UP, variables)
    assert done.stdout == f"True True {recorded}\n", done.stderr


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("gateway", "opentelemetry.sdk.trace"),
        ("api", "opentelemetry.exporter.otlp.proto.http.trace_exporter"),
    ],
)
def test_without_the_extra_a_command_says_what_to_install(command: str, missing: str) -> None:
    program = WITHOUT_THE_EXTRA.format(missing=missing, command=command)
    done = run(program, ENDPOINT)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("prepaid: ")
    assert "extra `traces`" in line
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in line
    # Unasked, the same process does without: it goes on to what it lacks next.
    assert "traces" not in run(program, {}).stderr
