"""`prepaid token add-key`: vending keys of a key management centre into a sealed key file."""

import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from prepaid.secrets_files import load_vending_keys, read_secret, write_secret
from prepaid.settings import Settings
from schemas.errors import DomainError
from tokens import key_file
from tokens.keys import DUTK, KeyAttributes, VendingKey


def register(app: typer.Typer) -> None:
    app.command("add-key")(add_key)


def add_key(
    path: Annotated[Path, typer.Argument(help="Sealed key file; made if there is none.")],
    key: Annotated[
        Path, typer.Option(help="File with the vending key in hex, or - for standard input.")
    ],
    sgc: Annotated[str, typer.Option(help="Supply group code, six digits.")],
    krn: Annotated[int, typer.Option(help="Key revision number, 1 to 9.")],
    ken: Annotated[int, typer.Option(help="Key expiry number; 255 does not expire.")],
    base_date: Annotated[int, typer.Option(help="1993, 2014 or 2035.")],
    dkga: Annotated[int, typer.Option(help="2 (8-byte key) or 4 (20-byte key).")],
) -> None:
    """Add a vending key to a sealed key file, and print its check value to compare.

    SGC, KRN, KEN and base date are those that came with the key. The passphrase
    is PREPAID_STS__KEY_PASSPHRASE. A key that is there already stays.
    """
    passphrase = Settings().sts.key_passphrase
    if passphrase is None:
        raise DomainError(
            "passphrase_missing",
            "Set PREPAID_STS__KEY_PASSPHRASE to the passphrase of the key file.",
        )
    KeyAttributes(sgc, krn, DUTK, ken, "00", base_date, 7, dkga)  # refuses what no meter could hold
    new = VendingKey(_octets(key), ken=ken, base_date=base_date)
    if new.dkga != dkga:
        raise DomainError("key_invalid", f"The key is one for DKGA{new.dkga:02}; correct --dkga.")
    known = load_vending_keys(path, passphrase) if path.exists() else {}
    if (sgc, krn) in known:
        raise DomainError(
            "key_exists",
            f"{path} has a key for SGC {sgc}, KRN {krn}, check value "
            f"{known[sgc, krn].check_value}; a newer one has another KRN.",
        )
    sealed = key_file.seal(
        known | {(sgc, krn): new},
        passphrase.get_secret_value(),
        secrets.token_bytes(key_file.RANDOM_OCTETS),
    )
    try:
        write_secret(path, sealed)
    except OSError as error:
        raise DomainError("file_unwritable", f"{path}: {error.strerror}; name another.") from None
    typer.echo(f"{path}: SGC {sgc}, KRN {krn}, key check value {new.check_value}")


def _octets(file: Path) -> bytes:
    raw = sys.stdin.buffer.read() if str(file) == "-" else read_secret(file)
    try:
        return bytes.fromhex(raw.decode("ascii"))
    except ValueError:
        # Without the cause: it could quote the key.
        raise DomainError("key_invalid", "The key is no row of hex digits.") from None
