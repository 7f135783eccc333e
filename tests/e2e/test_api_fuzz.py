"""A bounded, seeded share of what `scripts/fuzz_api` does at length: no request breaks the API."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


# The share itself takes half a minute; the machine that it runs on may be busy.
SECONDS, LONGEST_S = 15, 240


def fuzzed(database_url: str) -> tuple[int, str]:
    """Exit status and output; nothing of it outlives this call."""
    with subprocess.Popen(
        [
            sys.executable, "-m", "fuzz.api", "--seed", "20261", "--examples", "3",
            "--seconds", str(SECONDS), "--phases", "fuzzing,stateful",
        ],
        cwd=ROOT,
        env=os.environ | {"FUZZ_DATABASE_URL": database_url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            said, _ = process.communicate(timeout=LONGEST_S)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, said


@pytest.mark.timeout(LONGEST_S + 30)
def test_no_request_of_the_description_breaks_the_api_or_the_books(runtime: Any) -> None:
    status, said = fuzzed(runtime.database_url)
    assert status == 0, said[-8000:]
    (summary,) = (json.loads(line) for line in said.splitlines() if line[:1] == "{")
    # It got behind the doors, and was refused, too.
    assert summary["routes_that_did"] > 15
    assert {"200", "404", "422"} <= summary["by_status"].keys()
    assert summary["callers_refused"].keys() <= {
        "POST /v1/auth/operator", "DELETE /v1/auth/operator", "GET /v1/auth/operator",
    }  # fmt: skip
