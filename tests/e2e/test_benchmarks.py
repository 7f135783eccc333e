import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_token_rates_are_taken_from_tokens_that_are_right():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_tokens", "--tokens", "60", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    assert (report["tokens"], report["wrong"]) == (60, 0)
    rates = [name for name in report if name.endswith("_per_s")]
    assert len(rates) == 5
    assert all(report[name] > 0 for name in rates)


def test_the_transaction_is_measured_on_balances_that_are_right(database_url, as_owner):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.bench_transaction",
            *("--meters", "30", "--batch", "20", "--repetitions", "2", "--json"),
        ],
        cwd=ROOT,
        env=os.environ | {"PREPAID_DATABASE__URL": as_owner(database_url)},
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    assert report["checks"] == {"accounts_rated_again": 30, "failures": []}
    assert set(report["subjects"]) == {"copy", "transaction"}
    assert report["transaction_over_copy"]["median"] > 0
