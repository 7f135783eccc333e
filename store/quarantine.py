"""What the contract refuses, kept with its reason; the same refusal twice is one row."""

import hashlib
from typing import NamedTuple

from psycopg import Connection

from store.sql import query


class Refusal(NamedTuple):
    """One message or row that was not taken. `place` tells two rows of one message apart."""

    reason: str
    detail: str
    topic: str
    row_index: int | None
    payload: bytes
    content_type: str | None
    place: str = ""

    @property
    def fingerprint(self) -> bytes:
        content = (
            self.topic.encode(),
            self.reason.encode(),
            self.place.encode(),
            str(self.row_index).encode(),
            self.payload,
        )
        return hashlib.sha256(b"\0".join(content)).digest()


class Quarantine:
    """The refusals of one batch."""

    def __init__(self) -> None:
        self._refusals: dict[bytes, Refusal] = {}

    def add(self, refusal: Refusal) -> bool:
        """Whether the batch had no such refusal yet."""
        fingerprint = refusal.fingerprint
        new = fingerprint not in self._refusals
        self._refusals[fingerprint] = refusal
        return new

    def write(self, conn: Connection, now_ms: int) -> None:
        """Keep what is not kept already."""
        if not self._refusals:
            return
        refusals = self._refusals.values()
        conn.execute(
            query("insert_quarantine"),
            {
                "now_ms": now_ms,
                "reason": [each.reason for each in refusals],
                "detail": [each.detail for each in refusals],
                # The database's text holds no NUL; the words of a broken client may.
                "topic": [each.topic.replace("\0", "?") for each in refusals],
                "row_index": [each.row_index for each in refusals],
                "payload": [each.payload for each in refusals],
                "content_type": [
                    each.content_type and each.content_type.replace("\0", "?") for each in refusals
                ],
                "fingerprint": list(self._refusals),
            },
        )
