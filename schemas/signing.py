"""Ed25519 over what a meter is told (MQTT contract, clause 3): who runs the broker opens no relay.

A signature covers the canonical bytes of the payload without `sig`. It always covers the meter's
number too, so that an order to one meter is none to another. Signing is deterministic (RFC 8032);
the 32 octets of a new key are an argument.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from schemas.commands import Command, CommandError, SignedCommand, canonical
from schemas.errors import DomainError

KEY_OCTETS = 32
# The old and the new one, while a roll-over lasts.
MAX_KEYS = 2
# 43 base64url digits hold 32 octets.
VERIFICATION_KEY = r"^[A-Za-z0-9_-]{43}$"


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """The public half, as a meter holds it; `text` is base64url without padding."""

    text: str

    def __post_init__(self) -> None:
        self._public()

    def _public(self) -> Ed25519PublicKey:
        try:
            return Ed25519PublicKey.from_public_bytes(_unpadded(self.text))
        except (ValueError, binascii.Error):
            raise DomainError(
                "bad_verification_key", "Write a verification key as 43 base64url digits."
            ) from None

    def accepts(self, message: bytes, signature: str) -> bool:
        """Whether the private half signed exactly this message."""
        try:
            self._public().verify(_unpadded(signature), message)
        except (InvalidSignature, ValueError, binascii.Error):
            return False
        return True


class SigningKey:
    """The private half, behind a repr that shows nothing of it."""

    __slots__ = ("_key",)

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def from_octets(cls, octets: bytes) -> Self:
        """A new key from 32 random octets. Raises DomainError `bad_signing_key`."""
        if len(octets) != KEY_OCTETS:
            raise DomainError("bad_signing_key", "Make a signing key from 32 random octets.")
        return cls(Ed25519PrivateKey.from_private_bytes(octets))

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """The key of a PKCS #8 file. Raises DomainError `bad_signing_key`."""
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise DomainError(
                "bad_signing_key",
                "This is no Ed25519 key: make one with `prepaid certs signing-key`.",
            )
        return cls(key)

    def pem(self) -> bytes:
        """PKCS #8, unencrypted: for a file that only its owner can read."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @property
    def verification_key(self) -> VerificationKey:
        return VerificationKey(_text(self._key.public_key().public_bytes_raw()))

    def sign(self, message: bytes) -> str:
        """base64url without padding, 86 digits."""
        return _text(self._key.sign(message))

    def sign_command(self, command: Command, meter: str) -> SignedCommand:
        """The command as it is sent: it names its meter, and the signature covers that."""
        addressed = replace(command, meter=meter)
        return SignedCommand(addressed, self.sign(canonical(addressed)))

    def __repr__(self) -> str:
        return f"<SigningKey for {self.verification_key.text}>"


def verify_command(signed: SignedCommand, meter: str, keys: Sequence[VerificationKey]) -> Command:
    """The command, if one of `keys` signed it for this meter.

    Raises CommandError `unsigned`, `bad_signature`, `other_meter`.
    """
    command, signature = signed
    if signature is None:
        raise CommandError("unsigned", "Sign the command: this meter takes no other.", command.cmd)
    message = canonical(command)
    if not any(key.accepts(message, signature) for key in keys):
        raise CommandError(
            "bad_signature", "Sign with the key that this meter was given.", command.cmd
        )
    if command.meter != meter:
        raise CommandError("other_meter", "Send a command to the meter it names.", command.cmd)
    return command


def _text(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _unpadded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
