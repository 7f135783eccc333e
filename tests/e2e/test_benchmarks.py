"""Every bench once, tiny: what it reports and that its own checks hold. No rate is judged here."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.catalog import BENCHES
from prepaid.runtime import Instance

# All benches in one run, each with processes of its own; other tests may share the cores.
pytestmark = [pytest.mark.timeout(300), pytest.mark.long]

ROOT = Path(__file__).parents[2]
SIZE = ("--meters", "20", "--repetitions", "1", "--paced", "0.2", "--months", "1")
# Ratios of times on a busy machine; everything else that is checked must hold anywhere.
TIMED = "at most"
SUBJECTS = {
    "receiver": {"receiver", "aiomqtt"},
    "validation": {"JSON", "CBOR", "batch of 100", "pydantic model"},
    "ingest": {"a message each", "batch 25 x 4 CBOR"},
    "transaction": {"copy", "transaction"},
    "end-to-end": {"gateway", "literal stack", "gateway at 1,000/s"},
    "backlog": {"backlog"},
    "api": {
        "liveness",
        "balance at 100/s",
        "balance at 1000/s",
        "one row at 1000/s",
        "quote",
        "payment",
    },
    "tokens": {"one DES block", "EA07 encode", "EA11 decode"},
    "history": {"1 months, in order", "1 months, late"},
    "storage": {"reading", "debit of a steady reading", "bare table"},
}


@pytest.fixture(scope="module")
def done(runtime: Instance, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("bench")
    ended = subprocess.run(
        [sys.executable, "-m", "prepaid", "bench", "all", *SIZE, "--json", "--out", str(out)],
        cwd=ROOT,
        env=os.environ
        | {
            "PREPAID_DATABASE__URL": runtime.database_url,
            "PREPAID_BROKER__URL": runtime.broker_url,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode in {0, 1}, ended.stderr
    return {
        "status": ended.returncode,
        "reports": {form["bench"]: form for form in json.loads(ended.stdout)},
        "out": out,
        "progress": ended.stderr,
    }


@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_measures_what_is_right(done, name):
    report = done["reports"][name]
    wrong = [
        check for check in report["checks"] if not check["passed"] and TIMED not in check["what"]
    ]
    assert report["checks"]
    assert wrong == []
    assert {each["subject"] for each in report["figures"]} >= SUBJECTS[name]
    assert all(each["min"] <= each["median"] <= each["max"] for each in report["figures"])
    assert f"{name}: begins" in done["progress"]
    assert {"cpus", "python", "postgresql", "timescaledb"} <= set(report["machine"])


def test_the_exit_status_says_whether_every_check_passed(done):
    assert done["status"] == (0 if all(form["passed"] for form in done["reports"].values()) else 1)


def test_reports_are_kept_as_files_and_as_one_table(done):
    kept = {path.stem: json.loads(path.read_text()) for path in done["out"].glob("*.json")}
    assert kept == done["reports"]
    table = (done["out"] / "report.md").read_text()
    assert all(f"| {name} |" in table for name in BENCHES)
