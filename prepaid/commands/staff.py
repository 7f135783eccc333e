"""`prepaid operator`: who may use the API as an operator, in which role and for which centres.

The module is not called operator.py because the standard library has one.
"""

import getpass
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from prepaid.database import connected
from prepaid.secrets_files import read_secret
from prepaid.settings import Settings
from schemas.errors import DomainError
from schemas.quantities import format_instant
from store import operators, passwords
from store.operators import ROLES, Operator

# Where a password is read from; never from an argument, which others on this machine can see.
STANDARD_INPUT = "-"

Name = Annotated[str, typer.Argument(help="Small letters and digits, as fatima or f.diallo.")]
PasswordFile = Annotated[
    str | None,
    typer.Option(help="A file with the password that only you can read, or - for standard input."),
]
SecondFactor = Annotated[
    bool, typer.Option("--second-factor", help="Also ask for a code of a telephone (TOTP).")
]

app = typer.Typer(no_args_is_help=True, help="Operators of the API: add, list, disable, reset.")


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="operator")


@app.command()
def add(
    name: Name,
    role: Annotated[str, typer.Option(help=f"One of {', '.join(ROLES)}.")],
    centre: Annotated[
        list[str] | None, typer.Option(help="Code of a centre; may be repeated. None: every one.")
    ] = None,
    password_file: PasswordFile = None,
    second_factor: SecondFactor = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="For a program, which gets a key instead.")
    ] = False,
) -> None:
    """Add an operator and ask for a password.

    With --second-factor it prints an otpauth address: show it to the
    operator's telephone once, as a QR code, and keep it nowhere.
    """
    if role not in ROLES:
        raise DomainError("bad_role", f"--role: give one of {', '.join(ROLES)}")
    password = None if no_password else _password(password_file)
    with connected(Settings()) as conn, conn.transaction():
        operators.add(conn, name, role, centre or (), who=_who(), now_ms=_wall_ms())
        if password is not None:
            _reset(conn, name, password, second_factor=second_factor)
    sys.stderr.write(f"prepaid: operator {name} added as {role}\n")


@app.command()
def reset(
    name: Name, password_file: PasswordFile = None, second_factor: SecondFactor = False
) -> None:
    """Give an operator another password; every session of theirs ends.

    A second factor is kept by giving --second-factor again: it is a new one.
    """
    password = _password(password_file)
    with connected(Settings()) as conn:
        _reset(conn, name, password, second_factor=second_factor)
    sys.stderr.write(f"prepaid: operator {name} has a new password\n")


@app.command()
def disable(name: Name) -> None:
    """From now on nothing of this operator works: password, sessions, keys."""
    with connected(Settings()) as conn:
        done = operators.disable(conn, name, who=_who(), wall_ms=_wall_ms())
    sys.stdout.write("disabled\n" if done else "was disabled before\n")


@app.command()
def enable(name: Name) -> None:
    """Take a disabled operator back, with password and keys as they were."""
    with connected(Settings()) as conn:
        done = operators.enable(conn, name, who=_who(), wall_ms=_wall_ms())
    sys.stdout.write("enabled\n" if done else "was enabled already\n")


@app.command("list")
def list_operators(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show every operator with role, centres, and the beginnings of their programs' keys."""
    with connected(Settings()) as conn:
        found = operators.listed(conn)
    for each in found:
        form = _form(each)
        line = json.dumps(form) if as_json else _line(form)
        sys.stdout.write(line + "\n")


@app.command("add-key")
def add_key(
    name: Name, label: Annotated[str, typer.Option(help="The program that will use it.")]
) -> None:
    """Make an access key for a program of this operator; it is printed this once."""
    with connected(Settings()) as conn:
        key = operators.add_access_key(conn, name, label, who=_who(), now_ms=_wall_ms())
    sys.stdout.write(f"{key}\n")


@app.command("revoke-key")
def revoke_key(
    prefix: Annotated[str, typer.Argument(help="Its beginning, as `prepaid operator list` says.")],
) -> None:
    """End an access key of a program."""
    with connected(Settings()) as conn:
        operators.revoke_access_key(conn, prefix, who=_who(), now_ms=_wall_ms())
    sys.stdout.write("revoked\n")


def _reset(conn: Any, name: str, password: str, *, second_factor: bool) -> None:
    secret = operators.reset(
        conn, name, password, second_factor=second_factor, who=_who(), wall_ms=_wall_ms()
    )
    if secret is not None:
        sys.stdout.write(f"{passwords.provisioning_uri(secret, name)}\n")


def _password(file: str | None) -> str:
    if file is None:
        if not sys.stdin.isatty():
            raise DomainError(
                "password_missing", "nobody can be asked here: give --password-file, or - for stdin"
            )
        first = getpass.getpass("Password: ")
        if first != getpass.getpass("Once more: "):
            raise DomainError("password_refused", "the two were not the same: try again")
        return first
    raw = sys.stdin.buffer.read() if file == STANDARD_INPUT else read_secret(Path(file))
    try:
        return raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise DomainError("password_refused", "the password is no UTF-8 text") from None


def _who() -> str:
    """Nobody signs in at a command line: the machine's own account has done it."""
    return f"shell:{getpass.getuser()}"


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _form(operator: Operator) -> dict[str, Any]:
    return {
        "name": operator.name,
        "role": operator.role,
        "centres": None if operator.centres is None else list(operator.centre_codes or ()),
        "password": operator.has_password,
        "second_factor": operator.has_second_factor,
        "keys": list(operator.key_prefixes or ()),
        "created_at": format_instant(operator.created_ms),
        "disabled_at": None
        if operator.disabled_ms is None
        else format_instant(operator.disabled_ms),
    }


def _line(form: dict[str, Any]) -> str:
    centres = "every centre" if form["centres"] is None else " ".join(form["centres"])
    ways = [word for word in ("password", "second_factor") if form[word]]
    state = "disabled" if form["disabled_at"] else "works"
    return "\t".join(
        (form["name"], form["role"], centres, state, ",".join((*ways, *form["keys"])) or "-")
    )
