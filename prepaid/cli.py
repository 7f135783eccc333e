"""`prepaid`: the one entry point. Data on standard output, progress and logs on standard error."""

import importlib
import sys

import typer

from schemas.errors import DomainError

# One module per command, each with `register(app)`. Imported when the command line starts.
COMMANDS = (
    "api",
    "doctor",
    "gateway",
    "hsm",
    "migrate",
    "rate",
    "replay",
    "simulate",
    "sts",
    "up",
)

app = typer.Typer(
    name="prepaid",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The open backend for smart prepaid meters. Start with: prepaid up",
)


def main() -> None:
    """Exit status: 0 done, 1 a check failed, 2 bad input (one line: what, where, what to do)."""
    for name in COMMANDS:
        importlib.import_module(f"prepaid.commands.{name}").register(app)
    try:
        app()
    except DomainError as error:
        sys.stderr.write(f"prepaid: {error}\n")
        sys.exit(2)
