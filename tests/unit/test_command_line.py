"""What is typed wrongly is told in one line: what, where, and what to do."""

import sys

import pytest
import typer

from prepaid import cli


@pytest.fixture(autouse=True)
def an_empty_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", typer.Typer(name="prepaid", no_args_is_help=True))
    cli.app.callback()(cli.prepaid)
    monkeypatch.delenv("PREPAID_PAYMENTS__FILE", raising=False)


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
def test_bad_input_is_one_line_that_says_where_help_is(
    arguments: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["prepaid", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capfd.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert said.err.startswith("prepaid: ")
    assert said.err.count("\n") == 1
    assert told in said.err


@pytest.mark.parametrize(("arguments", "status"), [(["rate", "--help"], 0), ([], 2)])
def test_help_comes_whole(
    arguments: list[str],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["prepaid", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capfd.readouterr()
    assert (ended.value.code, said.err) == (status, "")
    assert "Usage: prepaid" in said.out
