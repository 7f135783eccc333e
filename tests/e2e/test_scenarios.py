"""Every quick scenario against one gateway process; the slow ones are run by the command."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from prepaid.runtime import Instance
from prepaid.scenarios.catalogue import SCENARIOS
from prepaid.scenarios.rig import Rig, Servers, rigged
from prepaid.scenarios.runner import run_scenario

ROOT = Path(__file__).parents[2]
# They kill servers or take many seconds.
SLOW = {"reconnect-storm", "message-of-64-kib", "rollover-7-digits", "rollover-8-digits"}
QUICK = [
    name for name, each in SCENARIOS.items() if not (each.kills or each.trusts or name in SLOW)
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(runtime: Instance, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    servers = Servers(runtime.database_url, runtime.broker_url)
    async with rigged(servers, tmp_path_factory.mktemp("rig"), seed=7) as made:
        yield made


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", QUICK)
async def test_what_must_be_true_is_true(rig: Rig, name: str) -> None:
    result = await run_scenario(rig, SCENARIOS[name])
    assert result.failures == ()
    assert result.checked > 5


def simulated(runtime: Instance, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PREPAID_DATABASE__URL": runtime.database_url,
        "PREPAID_BROKER__URL": runtime.broker_url,
    }
    return subprocess.run(
        [sys.executable, "-m", "prepaid", "simulate", *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_plays_one_and_writes_its_table(runtime: Instance, tmp_path: Path) -> None:
    table = tmp_path / "scenarios.md"
    name = "same-seq-different-value"
    done = simulated(runtime, "--scenario", name, f"--table={table}", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["passed"], told["failed"], told["scenarios"][0]["failures"]) == (1, 0, [])
    (row,) = [line for line in table.read_text().splitlines() if line.startswith(f"| {name}")]
    assert row.count(" | ") == 4
    assert "| passed |" in row
