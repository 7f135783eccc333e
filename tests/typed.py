"""A command in this process, as a shell would see it: an interpreter for each takes longer than all
that it does. Processes are started where it matters that they are.
"""

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

import pytest
import typer

from prepaid import cli


def typed(
    *arguments: str, environment: Mapping[str, str], keys: str = ""
) -> subprocess.CompletedProcess[str]:
    """`prepaid ARGUMENTS` with this environment and `keys` on standard input."""
    out, err, standard_input = io.StringIO(), io.StringIO(), io.TextIOWrapper(io.BytesIO())
    standard_input.buffer.write(keys.encode())
    standard_input.seek(0)
    with (
        patch.dict(os.environ, environment, clear=True),
        patch.object(sys, "argv", ["prepaid", *arguments]),
        patch.object(sys, "stdin", standard_input),
        patch.object(cli, "app", typer.Typer(callback=cli.prepaid, no_args_is_help=True)),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main()
    status = int(ended.value.code or 0)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())
