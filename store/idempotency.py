"""The first answer to an operator's request, kept with its effect in one transaction.

A request that moves money or issues a token carries a key of the caller's. The same key with the
same request is given the first answer; two at once wait for each other at the key's row.
"""

from collections.abc import Callable, Mapping
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from store.errors import Conflict
from store.sql import query


def once(
    conn: Connection,
    operator_id: int,
    key: str,
    request_sha256: bytes,
    now_ms: int,
    work: Callable[[], Mapping[str, Any]],
) -> Mapping[str, Any]:
    """What `work` returned the first time; it runs in the transaction that keeps its answer.

    A refusal is not kept: the request may come again. Errors: Conflict `idempotency_conflict`, the
    key was used for another request; whatever `work` raises.
    """
    of = {"operator": operator_id, "key": key}
    with conn.transaction():
        claimed = conn.execute(
            query("claim_idempotency_key"),
            of | {"request_sha256": request_sha256, "now_ms": now_ms},
        ).fetchone()
        if claimed is None:
            row = conn.execute(query("first_answer"), of).fetchone()
            assert row is not None, "rows are never deleted"
            if bytes(row[0]) != request_sha256:
                raise Conflict(
                    "idempotency_conflict",
                    "this Idempotency-Key was used for another request: send a new one",
                )
            first: Mapping[str, Any] = row[1]
            return first
        answer = work()
        conn.execute(query("keep_first_answer"), of | {"answer": Jsonb(dict(answer))})
        return answer
