"""`prepaid replay`: every scenario through broker, workers and database, in any order."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "tests" / "data" / "scenarios"


@pytest.fixture
def owner_url(database_url: str, as_owner: Callable[[str], str]) -> str:
    return as_owner(database_url)


def replay(database_url: str, broker_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prepaid", "replay", *arguments],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            # It makes a database of its own.
            "PREPAID_DATABASE__URL": database_url,
            "PREPAID_DATABASE__OWNER_URL": database_url,
            "PREPAID_BROKER__URL": broker_url,
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    "way",
    [(), ("--workers", "3", "--batch", "5", "--shuffle", "11")],
    ids=["in order", "three workers, shuffled"],
)
def test_scenarios_give_the_same_result_through_the_real_path(
    owner_url: str, broker_url: str, way: tuple[str, ...]
) -> None:
    told = replay(owner_url, broker_url, str(SCENARIOS), *way)
    assert told.returncode == 0, told.stdout + told.stderr
    passed, _, failed = told.stdout.splitlines()[-1].partition(" passed, ")
    assert int(passed) >= 60
    assert failed == "0 failed"


def test_one_scenario_prints_its_result(owner_url: str, broker_url: str) -> None:
    told = replay(owner_url, broker_url, str(SCENARIOS / "a01-flat-one-band.yaml"))
    assert told.returncode == 0, told.stderr
    assert '"balance"' in told.stdout


def test_a_bad_scenario_is_refused_before_anything_is_sent(owner_url: str, broker_url: str) -> None:
    told = replay(owner_url, broker_url, str(SCENARIOS / "a48-error-unknown-key.yaml"))
    assert told.returncode == 2
    assert told.stderr.splitlines()[-1].startswith("prepaid: ")
