"""Vending keys sealed under a passphrase: bytes in, keys out. Reading the file is the shell's job.

Layout: magic (8) | salt (16) | nonce (12) | AES-256-GCM of a JSON list, with the header as
associated data. The file key is scrypt of the passphrase and the salt.
"""

import hashlib
import json
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tokens.errors import TokenError
from tokens.keys import VendingKey

MAGIC = b"STSKEYS1"
SALT_OCTETS = 16
NONCE_OCTETS = 12
RANDOM_OCTETS = SALT_OCTETS + NONCE_OCTETS
HEADER_OCTETS = len(MAGIC) + RANDOM_OCTETS
PASSPHRASE_MIN = 8
# 32 MiB and about a tenth of a second per try: slow for a guesser, fine once per start.
SCRYPT_COST, SCRYPT_BLOCK, SCRYPT_LANES = 2**15, 8, 1
SCRYPT_MEMORY = 64 * 1024 * 1024


def seal(
    vending_keys: Mapping[tuple[str, int], VendingKey], passphrase: str, random_octets: bytes
) -> bytes:
    """The file for `vending_keys` by (SGC, KRN); `random_octets` are 28 fresh ones, used once."""
    if len(random_octets) != RANDOM_OCTETS:
        raise TokenError("key_file_invalid", f"Sealing takes {RANDOM_OCTETS} random bytes.")
    if len(passphrase) < PASSPHRASE_MIN:
        raise TokenError(
            "key_file_invalid", f"Use a passphrase of at least {PASSPHRASE_MIN} characters."
        )
    rows = [
        {
            "sgc": sgc,
            "krn": krn,
            "key": key.reveal().hex(),
            "ken": key.ken,
            "base_date": key.base_date,
        }
        for (sgc, krn), key in sorted(vending_keys.items())
    ]
    header = MAGIC + random_octets
    return header + _cipher(passphrase, header).encrypt(
        header[-NONCE_OCTETS:], json.dumps(rows).encode(), header
    )


def unseal(document: bytes, passphrase: str) -> dict[tuple[str, int], VendingKey]:
    """The vending keys of a key file by (SGC, KRN)."""
    header = document[:HEADER_OCTETS]
    if not header.startswith(MAGIC) or len(header) < HEADER_OCTETS:
        raise TokenError("key_file_invalid", "This is no key file; name the one that was sealed.")
    try:
        clear = _cipher(passphrase, header).decrypt(
            header[-NONCE_OCTETS:], document[HEADER_OCTETS:], header
        )
    except InvalidTag:
        raise TokenError(
            "key_file_invalid",
            "The key file does not open: the passphrase is another one, or the file is damaged.",
        ) from None
    return {
        (row["sgc"], row["krn"]): VendingKey(
            bytes.fromhex(row["key"]), ken=row["ken"], base_date=row["base_date"]
        )
        for row in json.loads(clear)
    }


def _cipher(passphrase: str, header: bytes) -> AESGCM:
    salt = header[len(MAGIC) : len(MAGIC) + SALT_OCTETS]
    return AESGCM(
        hashlib.scrypt(
            passphrase.encode(),
            salt=salt,
            n=SCRYPT_COST,
            r=SCRYPT_BLOCK,
            p=SCRYPT_LANES,
            maxmem=SCRYPT_MEMORY,
            dklen=32,
        )
    )
