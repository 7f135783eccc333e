"""What meters report beside readings, as said; the same report twice is one row."""

import hashlib
from collections.abc import Sequence

import orjson
from psycopg import Connection

from store.sql import query


def write(conn: Connection, events: Sequence[tuple[int, str, bytes]], now_ms: int) -> None:
    """Keep (meter, kind, payload) of each report that is not kept already."""
    if not events:
        return
    conn.execute(
        query("insert_events"),
        {
            "now_ms": now_ms,
            "meter_id": [meter for meter, _, _ in events],
            "kind": [kind for _, kind, _ in events],
            "body": [_as_json(payload) for _, _, payload in events],
            "fingerprint": [
                hashlib.sha256(kind.encode() + b"\0" + payload).digest()
                for _, kind, payload in events
            ],
        },
    )


def _as_json(payload: bytes) -> str:
    """The report as JSON text; what came as CBOR is kept as its hexadecimal digits."""
    try:
        return orjson.dumps(orjson.loads(payload)).decode()
    except orjson.JSONDecodeError:
        return orjson.dumps(payload.hex()).decode()
