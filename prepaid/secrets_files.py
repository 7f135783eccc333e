"""Files that hold secrets: written for us alone, and refused when others can read them."""

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from pydantic import SecretStr

from api.settings import Partner
from meter_gateway.foreign.keys import SealingKey
from schemas.errors import DomainError
from tokens.key_file import unseal
from tokens.keys import VendingKey


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    draft = path.with_suffix(".draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    draft.replace(path)


def read_secret(path: Path) -> bytes:
    """Errors: DomainError `secret_file`: missing, or open to others."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise DomainError("secret_file", f"{path} is open to others: run chmod 600 {path}")
        return path.read_bytes()
    except OSError as error:
        raise DomainError("secret_file", f"cannot read {path}: {error.strerror}") from None


def load_vending_keys(path: Path, passphrase: SecretStr) -> dict[tuple[str, int], VendingKey]:
    """The vending keys of a sealed key file, by SGC and KRN."""
    return unseal(read_secret(path), passphrase.get_secret_value())


def read_sealing_key(path: Path) -> SealingKey:
    """The adapter's key (`prepaid device new-key`). Errors: DomainError `secret_file`."""
    try:
        return SealingKey(bytes.fromhex(read_secret(path).decode("ascii").strip()))
    except (ValueError, DomainError):
        raise DomainError(
            "secret_file",
            f"{path} is no sealing key of ours: make one with `prepaid device new-key`",
        ) from None


def load_partners(path: Path) -> Sequence[Partner]:
    """`[{"code": ..., "name": ..., "keys": ["whsec_..."]}]`. Errors: DomainError `secret_file`."""
    try:
        return [
            Partner(form["code"], form["name"], tuple(SecretStr(key) for key in form["keys"]))
            for form in json.loads(read_secret(path))
        ]
    except (ValueError, KeyError, TypeError):
        raise DomainError(
            "secret_file", f'{path} is not a list of {{"code", "name", "keys"}}'
        ) from None
