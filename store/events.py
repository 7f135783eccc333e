"""What devices report beside readings, kept as they said it; the same report twice is one."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import orjson
from psycopg import Connection

from store.sql import query


class Reported(NamedTuple):
    """One report of a registered meter, or of a gateway about itself."""

    meter_id: int | None
    kind: str
    payload: bytes
    gateway_id: int | None = None


def write(conn: Connection, reported: Sequence[Reported], now_ms: int) -> None:
    """Keep the reports of a batch."""
    if not reported:
        return
    conn.execute(
        query("insert_events"),
        {
            "now_ms": now_ms,
            "meter_id": [each.meter_id for each in reported],
            "gateway_id": [each.gateway_id for each in reported],
            "kind": [each.kind for each in reported],
            "body": [_as_json(each.payload) for each in reported],
            "fingerprint": [
                hashlib.sha256(each.kind.encode() + b"\0" + each.payload).digest()
                for each in reported
            ],
        },
    )


def _as_json(payload: bytes) -> str:
    """The report as JSON text; as its hexadecimal digits what came as CBOR, or what no database
    JSON can hold: it must not cost the batch its commit.
    """
    try:
        octets = orjson.dumps(orjson.loads(payload))
    except orjson.JSONDecodeError:
        octets = b"\\u0000"
    return (orjson.dumps(payload.hex()) if b"\\u0000" in octets else octets).decode()
