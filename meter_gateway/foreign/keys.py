"""The global keys of one DLMS/COSEM meter, and their form at rest.

Sealed: version (1) | nonce (12) | AES-256-GCM of encryption key and authentication key, with the
profile and the device's name as associated data, so that a row copied to another device does not
open. The key that seals is the adapter's own file; the database never holds it.
"""

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.errors import DomainError
from tokens.keys import Key

VERSION = b"\x01"
NONCE_OCTETS = 12
# Security suites 0 and 1 of IEC 62056-5-3: AES-128.
KEY_OCTETS = 16
SEALING_KEY_OCTETS = 32


class SealingKey(Key):
    """What meters' keys are sealed under."""

    __slots__ = ()
    what = "sealing key"

    def __init__(self, octets: bytes) -> None:
        if len(octets) != SEALING_KEY_OCTETS:
            raise DomainError("bad_key", f"A sealing key has {SEALING_KEY_OCTETS} bytes.")
        super().__init__(octets)


class GlobalKey(Key):
    """A global unicast encryption key (GUEK) or authentication key (GAK) of a meter."""

    __slots__ = ()
    what = "global key"

    def __init__(self, octets: bytes) -> None:
        if len(octets) != KEY_OCTETS:
            raise DomainError("bad_key", f"A global key has {KEY_OCTETS} bytes, 32 hex digits.")
        super().__init__(octets)


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """Both keys of one meter; neither shows itself."""

    encryption: GlobalKey
    authentication: GlobalKey


def seal(keys: DeviceKeys, sealing: SealingKey, place: tuple[str, str], nonce: bytes) -> bytes:
    """The form at rest. `place` is (profile, device); `nonce` are 12 fresh random bytes."""
    if len(nonce) != NONCE_OCTETS:
        raise DomainError("bad_key", f"Sealing takes {NONCE_OCTETS} random bytes.")
    clear = keys.encryption.reveal() + keys.authentication.reveal()
    return VERSION + nonce + AESGCM(sealing.reveal()).encrypt(nonce, clear, _bound(place))


def unseal(sealed: bytes, sealing: SealingKey, place: tuple[str, str]) -> DeviceKeys:
    """The keys of a device. Errors: DomainError `sealed_keys` (another key, device, or damage)."""
    nonce, cipher = sealed[1 : 1 + NONCE_OCTETS], sealed[1 + NONCE_OCTETS :]
    try:
        if sealed[:1] != VERSION or len(nonce) != NONCE_OCTETS:
            raise InvalidTag
        clear = AESGCM(sealing.reveal()).decrypt(nonce, cipher, _bound(place))
    except InvalidTag:
        raise DomainError(
            "sealed_keys",
            f"The keys of {place[1]} do not open: give the sealing key that they were sealed with.",
        ) from None
    return DeviceKeys(GlobalKey(clear[:KEY_OCTETS]), GlobalKey(clear[KEY_OCTETS:]))


def _bound(place: tuple[str, str]) -> bytes:
    return "\0".join(place).encode()
