"""What is typed wrongly is told in one line: what, where, and what to do."""

import os

import pytest

from tests.typed import typed

ENVIRONMENT = {name: each for name, each in os.environ.items() if not name.startswith("PREPAID_")}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["worker", "payments"], "PREPAID_PAYMENTS__FILE"),
        (["worker", "cleaning"], "see `prepaid worker --help`"),
        (["worker"], "see `prepaid worker --help`"),
        (["nothing"], "see `prepaid --help`"),
        (["rate", "--no-such", "x"], "see `prepaid rate --help`"),
        (["gateway", "--batch", "0"], "see `prepaid gateway --help`"),
        (["replay", "/no/such/folder"], "see `prepaid replay --help`"),
        (["token", "decode"], "see `prepaid token decode --help`"),
    ],
)
def test_bad_input_is_one_line_that_says_where_help_is(arguments: list[str], told: str) -> None:
    done = typed(*arguments, environment=ENVIRONMENT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("prepaid: ")
    assert done.stderr.count("\n") == 1
    assert told in done.stderr


@pytest.mark.parametrize(("arguments", "status"), [(["rate", "--help"], 0), ([], 2)])
def test_help_comes_whole(arguments: list[str], status: int) -> None:
    done = typed(*arguments, environment=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (status, "")
    assert "Usage: prepaid" in done.stdout
