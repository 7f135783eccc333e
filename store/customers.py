"""Customers as people: whom a caller may see, language, paper; and a centre's share of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg import Connection

from schemas.contacts import Language
from store import audit_log, contacts
from store.contacts import Actor
from store.errors import NotFound
from store.reads import Principal
from store.sql import like_text, query


@dataclass(frozen=True, slots=True)
class Customer:
    """`paper_requested_ms`: since when paper was asked for, None where not. `gets_paper`: whether
    it goes out, by the request or because a centre of theirs still sends it to everybody.
    """

    id: int
    name: str
    language: Language
    paper_requested_ms: int | None
    accounts: Sequence[str]
    centres: Sequence[str]
    gets_paper: bool


@dataclass(frozen=True, slots=True)
class CentreReport:
    """A centre with its people. `registered`: customers with a verified contact whose consent
    stands. `paper_ended_ms`: None while paper goes to everybody.
    """

    code: str
    name: str
    accounts: int
    meters: int
    customers: int
    registered: int
    paper_requested: int
    paper_ended_ms: int | None

    @property
    def registered_ppm(self) -> int:
        """The share of them, in parts per million, rounded down; of nobody it is 0."""
        return self.registered * 1_000_000 // self.customers if self.customers else 0


def seen(
    conn: Connection,
    caller: Principal,
    *,
    after_id: int | None,
    limit: int,
    address: str | None = None,
    name: str | None = None,
    centre: str | None = None,
) -> list[Customer]:
    """The customers that a caller is, or an operator has; one more than `limit` for a next page.

    `address`: only those reached at it now. `name`: a part of it. `centre`: with an account there.
    """
    of = {
        "address": address,
        "like": like_text(name),
        "centre": centre,
        "after": after_id,
        "limit": limit + 1,
    }
    return _rows(conn, _own(conn, caller), caller, of)


def one(conn: Connection, caller: Principal, customer_id: int) -> Customer:
    """One of them. Errors: NotFound, also for another's."""
    own = _own(conn, caller)
    ids = [customer_id] if own is None or customer_id in own else []
    of = {"address": None, "like": None, "centre": None, "after": None, "limit": 1}
    found = _rows(conn, ids, caller, of)
    if not found:
        raise NotFound("The customer")
    return found[0]


def _own(conn: Connection, caller: Principal) -> list[int] | None:
    """The customers that a caller is; None for an operator, who is none."""
    if caller.is_operator:
        return None
    if caller.person_id is None:
        assert caller.customer_id is not None, "of an access key of a customer"
        return [caller.customer_id]
    of = {"person": caller.person_id}
    return [customer for (customer,) in conn.execute(query("customers_of_person"), of)]


def _rows(
    conn: Connection, ids: Sequence[int] | None, caller: Principal, of: Mapping[str, object]
) -> list[Customer]:
    scope = {
        "ids": None if ids is None else list(ids),
        "centres": None if caller.centres is None else list(caller.centres),
    }
    return [Customer(*row) for row in conn.execute(query("customers_seen"), {**of, **scope})]


def set_language(
    conn: Connection, customer_id: int, language: Language, *, by: Actor, now_ms: int
) -> None:
    """What a customer is written to in from now on. Errors: NotFound."""
    with conn.transaction():
        _, _, before, _ = contacts.lock_customer(conn, customer_id)
        if before == language:
            return
        conn.execute(query("set_language"), {"customer": customer_id, "language": language})
        contacts.audit(conn, by, "customer.language", customer_id, now_ms,
                       before={"language": before}, after={"language": language})  # fmt: skip


def request_paper(
    conn: Connection, customer_id: int, *, wanted: bool, by: Actor, now_ms: int
) -> None:
    """Paper for a customer, whatever the centre does, or no more. Errors: NotFound."""
    with conn.transaction():
        _, _, _, since_ms = contacts.lock_customer(conn, customer_id)
        if (since_ms is not None) == wanted:
            return
        of = {"customer": customer_id, "wanted": wanted, "now_ms": now_ms}
        conn.execute(query("request_paper"), of)
        contacts.audit(conn, by, "customer.paper", customer_id, now_ms,
                       before={"wanted": not wanted}, after={"wanted": wanted})  # fmt: skip


def centres(
    conn: Connection, scope: Sequence[int] | None, code: str | None = None
) -> list[CentreReport]:
    """Every centre, or those of an operator, by code; with `code` that one."""
    of = {"centres": None if scope is None else list(scope), "code": code}
    return [CentreReport(*row) for row in conn.execute(query("centres_with_people"), of)]


def centre(conn: Connection, scope: Sequence[int] | None, code: str) -> CentreReport:
    """One centre. Errors: NotFound, also for another operator's."""
    found = centres(conn, scope, code)
    if not found:
        raise NotFound(f"Centre {code}")
    return found[0]


def end_paper(
    conn: Connection,
    scope: Sequence[int] | None,
    code: str,
    *,
    ended: bool,
    reason: str,
    who: str,
    now_ms: int,
) -> CentreReport:
    """From now on paper goes only to those of a centre who asked for it; or to all again.

    A repeat changes nothing. Errors: NotFound.
    """
    with conn.transaction():
        conn.execute(query("lock_centre_of_code"), {"code": code})
        before = centre(conn, scope, code)
        if (before.paper_ended_ms is not None) == ended:
            return before
        conn.execute(query("end_paper"), {"code": code, "ended": ended, "now_ms": now_ms})
        audit_log.record(
            conn,
            who,
            "centre.paper",
            f"centre:{code}",
            now_ms,
            reason=reason,
            before={"paper_ended": not ended},
            after={
                "paper_ended": ended,
                "customers": before.customers,
                "registered": before.registered,
            },
        )
        return centre(conn, scope, code)
