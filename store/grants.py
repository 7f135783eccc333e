"""Parts in another's account: `holder` sees and pays, `payer` pays and sees nothing.

A part is given to a phone; whoever signs in with it has it, whether anybody had that number before
or not, and the answer does not tell. Given and withdrawn by the account's own customer or at a
desk.
"""

from dataclasses import dataclass, field
from typing import Literal

from psycopg import Connection

from schemas.contacts import masked_address
from store import audit_log, contacts
from store.contacts import Actor
from store.errors import Conflict, NotFound
from store.sql import query

GrantRole = Literal["holder", "payer"]
# A family and its neighbours; more is a business, or a mistake.
MOST_PER_ACCOUNT = 20


@dataclass(frozen=True, slots=True)
class Grant:
    """`phone` is None once erased."""

    id: int
    person_id: int
    phone: str | None = field(repr=False)
    role: GrantRole
    given_ms: int
    given_by: str
    withdrawn_ms: int | None
    withdrawn_by: str | None


def of_account(
    conn: Connection, account_id: int, *, before_id: int | None, limit: int
) -> list[Grant]:
    """Newest first, those withdrawn included; one more than `limit` when there is a next page."""
    return _found(conn, account_id, before=before_id, limit=limit + 1)


def give(
    conn: Connection, account_id: int, phone: str, role: GrantRole, *, by: Actor, now_ms: int
) -> Grant:
    """A part for whoever has this phone (E.164); another role replaces the one before, the same
    again changes nothing. Errors: Conflict `too_many_grants`.
    """
    with conn.transaction():
        conn.execute(query("lock_account_row"), {"account": account_id})
        person = contacts.person_of_phone(conn, phone, now_ms)
        before = None
        for known in _found(conn, account_id, person=person):
            if known.role == role:
                return known
            before = known.role
            _withdraw(conn, known, by, now_ms)
        live = [each for each in _found(conn, account_id, limit=500) if each.withdrawn_ms is None]
        if len(live) >= MOST_PER_ACCOUNT:
            raise Conflict(
                "too_many_grants",
                f"{MOST_PER_ACCOUNT} people have a part in this account: withdraw one first",
            )
        of = {"account": account_id, "person": person, "role": role, "now_ms": now_ms}
        row = conn.execute(query("insert_grant"), of | {"by": by.who}).fetchone()
        assert row is not None, "an insert returns its row"
        _audit(conn, account_id, "grant.give", by, now_ms, phone, before=before, after=role)
        return one(conn, account_id, row[0])


def withdraw(conn: Connection, account_id: int, grant_id: int, *, by: Actor, now_ms: int) -> Grant:
    """The part is over from now on; a repeat changes nothing. Errors: NotFound."""
    with conn.transaction():
        conn.execute(query("lock_account_row"), {"account": account_id})
        known = one(conn, account_id, grant_id)
        if known.withdrawn_ms is None:
            _withdraw(conn, known, by, now_ms)
            _audit(conn, account_id, "grant.withdraw", by, now_ms, known.phone, before=known.role)
        return one(conn, account_id, grant_id)


def one(conn: Connection, account_id: int, grant_id: int) -> Grant:
    """One grant of an account. Errors: NotFound."""
    found = _found(conn, account_id, grant=grant_id)
    if not found:
        raise NotFound("The grant")
    return found[0]


def _found(
    conn: Connection,
    account_id: int,
    *,
    grant: int | None = None,
    person: int | None = None,
    before: int | None = None,
    limit: int = 1,
) -> list[Grant]:
    of = {
        "account": account_id,
        "grant": grant,
        "person": person,
        "before": before,
        "limit": limit,
    }
    return [Grant(*row) for row in conn.execute(query("grants_of_account"), of)]


def _withdraw(conn: Connection, known: Grant, by: Actor, now_ms: int) -> None:
    of = {"grant": known.id, "now_ms": now_ms, "by": by.who}
    conn.execute(query("withdraw_grant"), of)


def _audit(
    conn: Connection,
    account_id: int,
    action: str,
    by: Actor,
    now_ms: int,
    phone: str | None,
    *,
    before: GrantRole | None = None,
    after: GrantRole | None = None,
) -> None:
    if by.is_operator:
        of = {"phone": None if phone is None else masked_address(phone)}
        audit_log.record(
            conn,
            by.who,
            action,
            audit_log.account_subject(conn, account_id),
            now_ms,
            reason=by.reason,
            before=None if before is None else {**of, "role": before},
            after=None if after is None else {**of, "role": after},
            account=account_id,
        )
