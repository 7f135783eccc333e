"""What is kept about a person: shown whole, and erased where it is no longer needed.

Addresses stand in two places: `contact` and, of phones, `person`. Names stand in `customer`. All
else (history, grants, sessions, ledger) knows people by number, so it stays, and is a pseudonym's
once the three are erased. The phone that a payer gave to a bank is the bank's word on a payment,
and stays.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from psycopg import Connection

from schemas.contacts import CHANNELS
from schemas.quantities import format_instant, format_micro
from store import contacts
from store.contacts import Actor
from store.customers import Customer
from store.pool import snapshot
from store.sql import query

# Of one transaction of a sweep.
BATCH = 500
SWEEPER = Actor("retention", is_operator=False, place="")


def export(conn: Connection, customer: Customer, *, by: Actor, now_ms: int) -> dict[str, Any]:
    """All that is kept about a customer, in the words of the API; entries by the address of their
    pages, since a year has thousands. An operator who takes it is in the audit log.
    """
    of = {"customer": customer.id}
    with snapshot(conn):
        known = contacts.of_customer(conn, customer.id, ended=True)
        events = contacts.history(conn, customer.id, before_id=None, limit=10_000)
        accounts = conn.execute(query("export_accounts"), of).fetchall()
        paid = conn.execute(query("export_top_ups"), of).fetchall()
        grants = conn.execute(query("export_grants"), of).fetchall()
        sessions = conn.execute(query("export_sessions"), of).fetchall()
    contacts.audit(conn, by, "customer.export", customer.id, now_ms)
    return {
        "as_of": format_instant(now_ms),
        "customer": {
            "id": str(customer.id),
            "name": customer.name,
            "language": customer.language,
            "paper_requested_at": _instant(customer.paper_requested_ms),
        },
        "contacts": [
            {
                "channel": each.channel,
                "address": each.address,
                "registered_at": _instant(each.registered_ms),
                "verified_at": _instant(each.verified_ms),
                "consent_at": _instant(each.consent_ms),
                "wording": each.wording,
                "ended_at": _instant(each.ended_ms),
            }
            for each in known
        ],
        "contact_history": [
            {
                "channel": each.channel,
                "kind": each.kind,
                "at": _instant(each.at_ms),
                "by": each.by,
                "wording": each.wording,
                "place": each.place,
                "note": each.note,
            }
            for each in events
        ],
        "accounts": [_account(*row) for row in accounts],
        "top_ups": _rows(paid, ("account", "receipt_number", "channel", "amount", "currency",
                                "paid_at", "msisdn")),
        "grants": _rows(grants, ("direction", "account", "role", "given_at", "given_by",
                                 "withdrawn_at", "withdrawn_by")),
        "sessions": _rows(sessions, ("began_at", "seen_at", "expires_at", "ended_at")),
    }  # fmt: skip


def _account(
    number: str, opened_ms: int, centre: str, tariff: str, balance: int, debt: int, currency: str
) -> dict[str, object]:
    return {
        "account": number,
        "opened_at": _instant(opened_ms),
        "centre": centre,
        "tariff": tariff,
        "balance": format_micro(balance),
        "debt": format_micro(debt),
        "currency": currency,
        "entries": f"/v1/accounts/{number}/entries",
        "consumption": f"/v1/accounts/{number}/consumption",
    }


def _rows(rows: Iterable[Sequence[Any]], names: Sequence[str]) -> list[dict[str, object]]:
    return [
        {name: _word(name, value) for name, value in zip(names, row, strict=True)} for row in rows
    ]


def _word(name: str, value: Any) -> object:
    if value is None:
        return None
    if name.endswith("_at"):
        return format_instant(value)
    return format_micro(value) if name == "amount" else str(value)


def _instant(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_instant(at_ms)


def erase(
    conn: Connection,
    customer_id: int,
    *,
    name: bool,
    reason: str,
    by: Actor,
    now_ms: int,
    wall_ms: int,
) -> int:
    """End every contact and erase every address of a customer, and with `name` the name; returns
    how many addresses. Errors: NotFound.
    """
    with conn.transaction():
        contacts.lock_customer(conn, customer_id)
        known = contacts.of_customer(conn, customer_id, ended=True)
        by = replace(by, reason=reason)
        used = {each.channel for each in known if each.ended_ms is None}
        for channel in CHANNELS:
            if channel not in used:
                continue
            contacts.remove(conn, customer_id, channel, by=by, now_ms=now_ms, wall_ms=wall_ms)
        erased = 0
        while batch := _erase_ended(conn, customer_id, now_ms, by, now_ms):
            erased += batch
        addresses = [each.address for each in known if each.address is not None]
        conn.execute(query("recall_code_messages"), {"addresses": addresses})
        _forget_people(conn, addresses, now_ms, wall_ms)
        if name:
            conn.execute(query("erase_name"), {"customer": customer_id})
        after = {"addresses": erased, "name": name}
        contacts.audit(conn, by, "customer.erase", customer_id, now_ms, reason=reason,
                       after=after)  # fmt: skip
    return erased


def sweep(conn: Connection, until_ms: int, now_ms: int, wall_ms: int) -> int:
    """Erase the addresses of contacts that ended up to an instant, and people whom nothing names
    since; returns how many addresses. Safe to repeat and to run twice at once.
    """
    erased = 0
    while True:
        with conn.transaction():
            batch = _erase_ended(conn, None, until_ms, SWEEPER, now_ms)
        erased += batch
        if batch < BATCH:
            break
    _forget_people(conn, None, until_ms, wall_ms)
    return erased


def _erase_ended(
    conn: Connection, customer_id: int | None, until_ms: int, by: Actor, now_ms: int
) -> int:
    of = {"customer": customer_id, "until_ms": until_ms, "limit": BATCH}
    found = conn.execute(query("contacts_to_erase"), of).fetchall()
    for contact, customer, channel in found:
        conn.execute(query("erase_contact"), {"contact": contact})
        conn.execute(
            query("insert_contact_event"),
            {
                "contact": contact,
                "customer": customer,
                "channel": channel,
                "kind": "erased",
                "now_ms": now_ms,
                "by": by.who,
                "wording": None,
                "place": by.place,
                "note": None,
            },
        )
    return len(found)


def _forget_people(
    conn: Connection, phones: Sequence[str] | None, until_ms: int, wall_ms: int
) -> None:
    of = {"phones": None if phones is None else list(phones), "until_ms": until_ms}
    conn.execute(query("forget_people"), of | {"wall_ms": wall_ms})
