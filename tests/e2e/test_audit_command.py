"""`prepaid audit` as a process: what it prints, where, and its exit status."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

PROGRAM = [sys.executable, "-c", "from prepaid.cli import main; main()", "audit"]


def audit(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *options],
        env={**os.environ, "PREPAID_DATABASE__URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_sound_database_passes_and_progress_stays_off_the_data(database_url: str) -> None:
    result = audit(database_url)
    assert result.returncode == 0, result.stderr
    *laws, last = result.stdout.splitlines()
    assert last == f"{len(laws)} passed, 0 failed"
    assert all(line.startswith("ok ") for line in laws)
    assert "0 accounts, all" in result.stderr


def test_a_broken_law_is_told_and_the_exit_status_is_1(
    database_url: str, as_owner: Callable[[str], str]
) -> None:
    with psycopg.connect(as_owner(database_url), autocommit=True) as conn:
        conn.execute("DROP TRIGGER ledger_transaction_is_append_only ON ledger_posting")
    result = audit(database_url)
    assert result.returncode == 1
    assert "trigger ledger_transaction_is_append_only: expected in force, found missing" in (
        result.stdout
    )
    assert result.stdout.splitlines()[-1].endswith(" passed, 1 failed")
    told = json.loads(audit(database_url, "--json").stdout)
    assert told["failed"] == 1
    assert [check["name"] for check in told["checks"] if not check["passed"]] == [
        "append_only_in_force"
    ]


@pytest.mark.parametrize("trouble", ["away", "not migrated"])
def test_a_database_that_cannot_be_audited_is_exit_status_2_and_one_line(
    database_url: str, as_owner: Callable[[str], str], trouble: str
) -> None:
    url = database_url
    if trouble == "away":
        url = urlunsplit(urlsplit(database_url)._replace(path="/no_such_database"))
    else:
        with psycopg.connect(as_owner(url), autocommit=True) as conn:
            conn.execute("DROP TABLE schema_migration")
    result = audit(url)
    assert (result.returncode, result.stdout) == (2, "")
    [line] = result.stderr.strip().splitlines()
    assert line.startswith("prepaid: ")
    assert ("run prepaid migrate" if trouble == "not migrated" else "is away") in line
