"""Who sends a request: Standard Webhooks, symmetric keys, version `v1`.

The signature covers `webhook-id.webhook-timestamp.` and the raw bytes of the body.
"""

import base64
import binascii
import hmac
from collections.abc import Sequence

from partner_client.errors import Unusable

PREFIX = "whsec_"
# Standard Webhooks asks for 24 to 64 bytes.
KEY_OCTETS = range(24, 65)
# The new key and the old one, while they change.
MAX_KEYS = 4


class Keys:
    """The signing secrets of one partner, decoded; shown nowhere. Errors: Unusable."""

    def __init__(self, secrets: Sequence[str]) -> None:
        if not 1 <= len(secrets) <= MAX_KEYS:
            raise Unusable(f"give 1 to {MAX_KEYS} keys: one, and its successor while they change")
        self._keys = tuple(_decoded(secret) for secret in secrets)

    def __repr__(self) -> str:
        return f"<Keys, {len(self._keys)}>"

    def signature(self, message_id: str, timestamp_s: int, body: bytes) -> str:
        """The value of `webhook-signature`: one signature for each key."""
        signed = f"{message_id}.{timestamp_s}.".encode() + body
        return " ".join(
            f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}"
            for key in self._keys
        )


def _decoded(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in KEY_OCTETS:
        # Without the text: it may be a key with a slip of the hand.
        raise Unusable(f"a key is not {PREFIX} and the base64 of 24 to 64 bytes")
    return key
