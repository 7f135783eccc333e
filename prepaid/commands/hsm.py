"""`prepaid hsm`: vending keys under a PKCS#11 token's own key."""

import json
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from prepaid.hsm import WrappedSecurityModule, wrap
from prepaid.runtime import Folders
from prepaid.runtime.softhsm import resolve_softhsm
from prepaid.security_modules import ea07_tables, open_own_security_module, told, wrapping_key
from prepaid.settings import Settings
from schemas.errors import DomainError
from tokens.key_file import unseal

OWNER_ONLY = 0o600
TRIAL_LABEL = "desk"

app = typer.Typer(
    no_args_is_help=True,
    help="""Keep vending keys wrapped by a key that never leaves a PKCS#11 token.

    The token is named by PREPAID_STS__PKCS11_LIBRARY, PREPAID_STS__PKCS11_TOKEN
    and PREPAID_STS__PKCS11_PIN.
    """,
)


@app.command("wrap")
def wrap_keys(
    key_file: Annotated[Path, typer.Argument(help="Sealed key file.")],
    target: Annotated[Path, typer.Argument(help="The file to create; an existing one is kept.")],
    create: Annotated[
        bool, typer.Option("--create", help="Make the wrapping key in the token first.")
    ] = False,
) -> None:
    """Wrap the keys of a sealed key file; its passphrase is PREPAID_STS__KEY_PASSPHRASE.

    Afterwards set PREPAID_STS__WRAPPED_KEYS to the new file, try `prepaid hsm check`, and keep the
    sealed key file off this machine: it is the backup.
    """
    sts = Settings().sts
    if sts.key_passphrase is None:
        raise DomainError(
            "passphrase_missing",
            "Set PREPAID_STS__KEY_PASSPHRASE to the passphrase of the key file.",
        )
    wrapping = wrapping_key(sts)
    try:
        vending_keys = unseal(key_file.read_bytes(), sts.key_passphrase.get_secret_value())
        if create:
            wrapping.create()
        document = wrap(vending_keys, wrapping)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(document)
    except OSError as error:
        raise DomainError(
            "file_unwritable", f"{error.filename}: {error.strerror}; name another."
        ) from None
    typer.echo(f"{target}: {len(vending_keys)} vending keys wrapped")


@app.command()
def check(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Open every wrapped key as the desk would, and print check values to compare."""
    sts = Settings().sts
    module = open_own_security_module(sts)
    if not isinstance(module, WrappedSecurityModule):
        raise DomainError("not_configured", "Set PREPAID_STS__WRAPPED_KEYS to the wrapped keys.")
    found = [
        {"sgc": sgc, "krn": krn, "check_value": module.key_check_value(sgc, krn)}
        for sgc, krn in module.slots
    ]
    if as_json:
        typer.echo(json.dumps({"keys": found, "ea07_tables": told(ea07_tables(sts))}))
        return
    for each in found:
        typer.echo("SGC {sgc}, KRN {krn}: check value {check_value}".format(**each))
    typer.echo(f"EA07 tables: {told(ea07_tables(sts))}")


@app.command("try")
def try_out(
    folder: Annotated[Path, typer.Argument(help="A folder for the token; made if missing.")],
) -> None:
    """Make a token in software (SoftHSM2) to try this with, and print the settings for it.

    Takes the host's SoftHSM2 or fetches Debian's into the cache, without root. The PIN is that of
    PREPAID_STS__PKCS11_PIN. Such a token is files on a disk: it protects nothing.
    """
    pin = Settings().sts.pkcs11_pin
    if pin is None:
        raise DomainError("not_configured", "set PREPAID_STS__PKCS11_PIN to a PIN for the token")
    environ = dict(os.environ)
    softhsm = resolve_softhsm(
        Folders.choose(environ).cache, environ, lambda text: typer.echo(text, err=True)
    )
    folder = folder.absolute()
    configuration = softhsm.make_token(folder, TRIAL_LABEL, pin.get_secret_value())
    typer.echo(f"export SOFTHSM2_CONF={shlex.quote(str(configuration))}")
    typer.echo(f"export PREPAID_STS__PKCS11_LIBRARY={shlex.quote(str(softhsm.library))}")
    typer.echo(f"export PREPAID_STS__PKCS11_TOKEN={TRIAL_LABEL}")


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="hsm")
