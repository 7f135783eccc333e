"""Who signed a partner's request: Standard Webhooks, symmetric keys, version `v1`.

The signature covers `webhook-id.webhook-timestamp.` and the raw bytes of the body. The header
`webhook-partner` names the partner, so that only its own keys are tried.
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
    """The headers of a signed request, None where one is missing."""

    partner: str | None
    message_id: str | None
    timestamp: str | None
    signature: str | None


class Signers:
    """The partners with their keys, decoded once. Errors: ValueError for a key that is none."""

    def __init__(self, partners: Sequence[Partner]) -> None:
        self._partners: dict[str, tuple[Partner, tuple[bytes, ...]]] = {}
        for partner in partners:
            if partner.code in self._partners:
                raise ValueError(f"partner {partner.code} stands twice: keep one")
            keys = tuple(_key(partner.code, key.get_secret_value()) for key in partner.keys)
            self._partners[partner.code] = (partner, keys)

    def __repr__(self) -> str:
        return f"<Signers, {len(self._partners)} partners>"

    def verify(self, envelope: Envelope, body: bytes, wall_s: float) -> Partner:
        """The partner whose key signed these bytes.

        Errors: Unauthorized `signature_missing`, `signature_expired`, `signature_mismatch`: the
        last also for an unknown partner, so that nobody learns who is one.
        """
        code, message_id, timestamp, signatures = envelope
        if not (code and message_id and timestamp and signatures):
            raise Unauthorized(
                "signature_missing",
                "Send webhook-partner, webhook-id, webhook-timestamp and webhook-signature.",
            )
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12) or (
            abs(wall_s - int(timestamp)) > TOLERANCE_S
        ):
            raise Unauthorized(
                "signature_expired",
                "Send webhook-timestamp as seconds since 1970, within 5 minutes of the time.",
            )
        partner, keys = self._partners.get(code, (None, ()))
        signed = f"{message_id}.{timestamp}.".encode() + body
        # An unknown partner costs the same work as a known one.
        wanted = [hmac.digest(key, signed, "sha256") for key in keys or (bytes(32),)]
        given = [_signature(part) for part in signatures.split(" ")[:MAX_SIGNATURES]]
        # Each is compared with each, so that the time tells nothing.
        matches = [hmac.compare_digest(one, other) for one in wanted for other in given if other]
        if partner is None or not any(matches):
            raise Unauthorized(
                "signature_mismatch",
                "Sign webhook-id.webhook-timestamp.body with a key of webhook-partner.",
            )
        return partner


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
