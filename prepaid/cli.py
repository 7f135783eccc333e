"""`prepaid`: the one entry point. Data on standard output, progress and logs on standard error."""

import importlib
import sys

import typer
from typer.exceptions import TyperException

from schemas.errors import DomainError

# Command -> its module in prepaid.commands, each with `register(app)`.
COMMANDS = {
    "account": "account",
    "adapter": "adapter",
    "adjustment": "adjustment",
    "api": "api",
    "audit": "audit",
    "bench": "bench",
    "brake": "brake",
    "broker": "broker",
    "centre": "centre",
    "certs": "certs",
    "clock": "clock",
    "contacts": "contacts",
    "device": "device",
    "doctor": "doctor",
    "enrolment": "enrolment",
    "exceptions": "exceptions",
    "explain": "account",
    "export": "files",
    "faults": "faults",
    "flag": "flag",
    "gaps": "gaps",
    "gateway": "gateway",
    "hold": "hold",
    "hsm": "hsm",
    "import": "files",
    "migrate": "migrate",
    "operator": "staff",
    "outbox": "outbox",
    "payment": "payment",
    "payments": "payments",
    "outage": "outage",
    "rate": "rate",
    "replay": "replay",
    "security-module": "security_module",
    "sign": "sign",
    "simulate": "simulate",
    "tariff": "tariff",
    "token": "sts",
    "up": "up",
    "worker": "worker",
}

app = typer.Typer(
    name="prepaid",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def prepaid() -> None:
    """The open backend for smart prepaid meters. Start with: prepaid up."""


def main() -> None:
    """Exit status: 0 done, 1 a check failed, 2 bad input (one line: what, where, what to do)."""
    # Only what was asked for is imported: a command that answers at once should not wait for all.
    asked = [COMMANDS[word] for word in sys.argv[1:2] if word in COMMANDS]
    for name in asked or sorted(set(COMMANDS.values())):
        importlib.import_module(f"prepaid.commands.{name}").register(app)
    try:
        status = app(standalone_mode=False, prog_name="prepaid")
    except DomainError as error:
        sys.stderr.write(f"prepaid: {error}\n")
        sys.exit(2)
    except TyperException as error:
        # Empty where nothing was asked for: the help is printed already.
        if message := " ".join(error.format_message().split()):
            context = getattr(error, "ctx", None)
            where = "prepaid" if context is None else context.command_path
            sys.stderr.write(f"prepaid: {message.removesuffix('.')}: see `{where} --help`\n")
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.stderr.write("prepaid: given up, nothing was done\n")
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
