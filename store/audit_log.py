"""What operators did: who, when, why, before and after, in the transaction of the write itself.

The log is append-only by trigger. `who` is the operator's name, or `shell:NAME` and what somebody
named with `--by` at the server's own command line, where nobody signs in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from store.sql import query


@dataclass(frozen=True, slots=True)
class LoggedAct:
    """One act. `subject` names the thing by kind and number (`account:A-1`); `role`: of now."""

    id: int
    at_ms: int
    who: str
    role: str | None
    action: str
    subject: str
    centre: str | None
    reason: str | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


def record(
    conn: Connection,
    who: str,
    action: str,
    subject: str,
    now_ms: int,
    *,
    reason: str | None = None,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
    account: int | None = None,
    meter: str | None = None,
) -> None:
    """Add one act to the caller's transaction; `account` (id) or `meter` (number) give its centre.

    Secrets and token digits have no place in `before` and `after`.
    """
    conn.execute(
        query("record_act"),
        {
            "now_ms": now_ms,
            "who": who,
            "action": action,
            "subject": subject,
            "reason": reason,
            "before": None if before is None else Jsonb(dict(before)),
            "after": None if after is None else Jsonb(dict(after)),
            "account": account,
            "meter": meter,
        },
    )


def account_subject(conn: Connection, account_id: int) -> str:
    """`account:NUMBER` of an account by its id."""
    row = conn.execute(query("number_of_account"), {"account": account_id}).fetchone()
    assert row is not None, "the caller holds its lock"
    return f"account:{row[0]}"


def newest(
    conn: Connection,
    *,
    who: str | None = None,
    action: str | None = None,
    subject: str | None = None,
    centres: Sequence[int] | None = None,
    before_id: int | None = None,
    limit: int,
) -> list[LoggedAct]:
    """Newest first; one more than `limit` when there is a next page. `centres`: only theirs."""
    of = {
        "who": who,
        "action": action,
        "subject": subject,
        "centres": None if centres is None else list(centres),
        "before": before_id,
        "limit": limit + 1,
    }
    return [LoggedAct(*row) for row in conn.execute(query("acts_newest"), of)]
