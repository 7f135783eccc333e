"""Who signed a partner's request: Standard Webhooks, symmetric keys, version `v1`.

The signature covers `webhook-id.webhook-timestamp.` and the raw bytes of the body. The header
`webhook-partner` may name the partner, so that only its own keys are tried; a client that knows the
standard alone is whoever has the key.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import NamedTuple

from api.errors import Unauthorized
from api.settings import Partner

# Of real time, both ways: a captured request is worth nothing after it.
TOLERANCE_S = 5 * 60
PREFIX = "whsec_"
# Standard Webhooks asks for 24 to 64 bytes.
KEY_OCTETS = range(24, 65)
# Several during rotation; more is not a rotation.
MAX_SIGNATURES = 8


class Envelope(NamedTuple):
    """The headers `webhook-...` of a signed request, None where one is missing."""

    partner: str | None
    id: str | None
    timestamp: str | None
    signature: str | None

    def check(self, wall_s: float) -> None:
        """Whether it is worth reading what was signed.

        Errors: Unauthorized `signature_missing`, `signature_expired`.
        """
        if not (self.id and self.timestamp and self.signature):
            raise Unauthorized(
                "signature_missing", "Send webhook-id, webhook-timestamp and webhook-signature."
            )
        stamp = self.timestamp
        if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12) or (
            abs(wall_s - int(stamp)) > TOLERANCE_S
        ):
            raise Unauthorized(
                "signature_expired",
                "Send webhook-timestamp as seconds since 1970, within 5 minutes of the time.",
            )


class Signers:
    """The partners with their keys, decoded once. Errors: ValueError for a key that is none."""

    def __init__(self, partners: Sequence[Partner]) -> None:
        self._partners: dict[str, tuple[Partner | None, tuple[bytes, ...]]] = {}
        for partner in partners:
            if partner.code in self._partners:
                raise ValueError(f"partner {partner.code} stands twice: keep one")
            keys = tuple(_key(partner.code, key.get_secret_value()) for key in partner.keys)
            self._partners[partner.code] = (partner, keys)

    def __repr__(self) -> str:
        return f"<Signers, {len(self._partners)} partners>"

    def verify(self, envelope: Envelope, body: bytes, wall_s: float) -> Partner:
        """The partner whose key signed these bytes.

        Errors: as Envelope.check; Unauthorized `signature_mismatch`, also for an unknown partner,
        so that nobody learns who is one.
        """
        envelope.check(wall_s)
        signed = f"{envelope.id}.{envelope.timestamp}.".encode() + body
        parts = (envelope.signature or "").split(" ")[:MAX_SIGNATURES]
        given = [each for part in parts if (each := _signature(part))]
        tried = list(self._partners.values())
        if envelope.partner:
            # An unknown partner costs the same work as a known one.
            tried = [self._partners.get(envelope.partner, (None, (bytes(32),)))]
        # Each key of each is compared with each signature, so that the time tells nothing.
        found = [partner for partner, keys in tried if _matches(keys, signed, given)]
        # A key that two have says which of them only with his name.
        if len(found) != 1 or found[0] is None:
            raise Unauthorized(
                "signature_mismatch",
                "Sign webhook-id.webhook-timestamp.body with your key; webhook-partner, where you "
                "send it, is your code.",
            )
        return found[0]


def _matches(keys: Sequence[bytes], signed: bytes, given: Sequence[bytes]) -> bool:
    wanted = [hmac.digest(key, signed, "sha256") for key in keys]
    matches = [hmac.compare_digest(one, other) for one in wanted for other in given]
    return any(matches)


def sign(key: str, message_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of `webhook-signature` for these bytes: what a partner's program does."""
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    digest = hmac.new(_key("", key), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _key(code: str, text: str) -> bytes:
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in KEY_OCTETS:
        raise ValueError(
            f"a key of partner {code} is not {PREFIX} and the base64 of 24 to 64 bytes"
        )
    return key


def _signature(part: str) -> bytes:
    version, _, value = part.partition(",")
    if version != "v1":
        return b""
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return b""
