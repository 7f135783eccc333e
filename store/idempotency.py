"""The first answer to an operator's or a customer's request, kept in the transaction of its effect.

A request that moves money or issues a token carries a key of the caller's. The same key with the
same request is given the first answer; two at once wait for each other at the key's row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg import Connection
from psycopg.types.json import Jsonb

from store.errors import Conflict
from store.sql import query


@dataclass(frozen=True, slots=True)
class Claim:
    """Who uses a key, for what: an operator by his id; a customer, a person or a partner by
    `caller`, the name that the audit log has.
    """

    operator_id: int | None
    caller: str
    key: str
    request_sha256: bytes


def claim(conn: Connection, wanted: Claim, now_ms: int) -> bool:
    """Takes a key in the caller's transaction, for an effect that is answered with the state of
    now; False for a repeat. Errors: Conflict `idempotency_conflict`.
    """
    names = _OF_CUSTOMER if wanted.operator_id is None else _OF_OPERATOR
    of = {"operator": wanted.operator_id, "caller": wanted.caller, "key": wanted.key}
    return _claim(conn, names, of, wanted.request_sha256, now_ms) is None


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
    return _once(conn, _OF_OPERATOR, of, request_sha256, now_ms, work)


def once_of_customer(
    conn: Connection,
    caller: str,
    key: str,
    request_sha256: bytes,
    now_ms: int,
    work: Callable[[], Mapping[str, Any]],
) -> Mapping[str, Any]:
    """As `once`, under the key of a customer or a person, by the name that the audit log has."""
    of = {"caller": caller, "key": key}
    return _once(conn, _OF_CUSTOMER, of, request_sha256, now_ms, work)


class _Queries(NamedTuple):
    claim: str
    first: str
    keep: str


_OF_OPERATOR = _Queries("claim_idempotency_key", "first_answer", "keep_first_answer")
_OF_CUSTOMER = _Queries("claim_customer_key", "first_customer_answer", "keep_customer_answer")


def _once(
    conn: Connection,
    names: _Queries,
    of: Mapping[str, object],
    request_sha256: bytes,
    now_ms: int,
    work: Callable[[], Mapping[str, Any]],
) -> Mapping[str, Any]:
    with conn.transaction():
        known = _claim(conn, names, of, request_sha256, now_ms)
        if known is not None:
            first: Mapping[str, Any] = known.answer
            return first
        answer = work()
        conn.execute(query(names.keep), {**of, "answer": Jsonb(dict(answer))})
        return answer


class _Known(NamedTuple):
    answer: Any


def _claim(
    conn: Connection,
    names: _Queries,
    of: Mapping[str, object],
    request_sha256: bytes,
    now_ms: int,
) -> _Known | None:
    """None for the first request under a key; else what was answered to it."""
    values = {**of, "request_sha256": request_sha256, "now_ms": now_ms}
    if conn.execute(query(names.claim), values).fetchone() is not None:
        return None
    row = conn.execute(query(names.first), of).fetchone()
    assert row is not None, "rows are never deleted"
    if bytes(row[0]) != request_sha256:
        raise Conflict(
            "idempotency_conflict",
            "this Idempotency-Key was used for another request: send a new one",
        )
    return _Known(row[1])
