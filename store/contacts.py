"""How customers are reached: contacts with consent and verification, and what happened to them.

A new contact waits beside the one that it will replace until somebody shows that it is the
customer's: with a code that was sent to it, or at a desk. The history is append-only and holds no
address; addresses can be erased. What an operator does is in the audit log, with addresses masked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from psycopg import Connection

from schemas.contacts import Channel, Language, masked_address
from schemas.errors import DomainError
from store import attempts, audit_log, codes, customer_sessions
from store.attempts import Bound
from store.codes import Recipient
from store.errors import NotFound, TooManyAttempts
from store.sql import query

EventKind = Literal[
    "registered",
    "verified_by_code",
    "verified_at_desk",
    "consent_given",
    "consent_withdrawn",
    "replaced",
    "removed",
    "erased",
]
ONLINE = "online"
CODES_PER_CONTACT = 5
TRIES_PER_CONTACT = 15


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does it: an operator by name, else `person:ID` or `customer:ID`. `place`: a centre's code
    where an operator sits, or online. `reason`: why an operator does it, for the audit log.
    """

    who: str
    is_operator: bool
    place: str = ONLINE
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Contact:
    """`address` is None once erased; `verified_ms` None: it waits. `consent_ms` and `wording` are
    those of the newest consent, None where none stands.
    """

    id: int
    customer_id: int
    channel: Channel
    address: str | None = field(repr=False)
    registered_ms: int
    verified_ms: int | None
    consent_ms: int | None
    wording: str | None
    ended_ms: int | None


@dataclass(frozen=True, slots=True)
class ContactEvent:
    """One row of the history."""

    id: int
    channel: Channel
    kind: EventKind
    at_ms: int
    by: str
    wording: str | None
    place: str | None
    note: str | None


def of_customer(conn: Connection, customer_id: int, *, ended: bool = False) -> list[Contact]:
    """The contacts that are used or wait, by channel; with `ended` also those that were."""
    of = {"customer": customer_id, "all": ended}
    return [Contact(*row) for row in conn.execute(query("contacts_of_customer"), of)]


def history(
    conn: Connection, customer_id: int, *, before_id: int | None, limit: int
) -> list[ContactEvent]:
    """What happened to a customer's contacts, newest first; one more than `limit` for more."""
    of = {"customer": customer_id, "before": before_id, "limit": limit + 1}
    return [ContactEvent(*row) for row in conn.execute(query("contact_events"), of)]


def register(
    conn: Connection,
    customer_id: int,
    channel: Channel,
    address: str,
    *,
    wording: str | None,
    by: Actor,
    now_ms: int,
) -> Contact:
    """A contact that waits for verification, with the consent to these words; the same address
    again is the same contact. `address` is parsed (schemas.contacts). Errors: NotFound.
    """
    with conn.transaction():
        lock_customer(conn, customer_id)
        there = [each for each in of_customer(conn, customer_id) if each.channel == channel]
        known = next((each for each in there if each.address == address), None)
        if known is None:
            for each in there:
                if each.verified_ms is None:
                    _end(conn, each, "replaced", by, now_ms)
            of = {"customer": customer_id, "channel": channel, "address": address}
            row = conn.execute(query("insert_contact"), of | {"now_ms": now_ms}).fetchone()
            assert row is not None, "an insert returns its row"
            known = Contact(*row)
            _record(conn, known, "registered", by, now_ms)
            after = {"channel": channel, "address": masked_address(address)}
            audit(conn, by, "contact.register", customer_id, now_ms, after=after)
        if wording is not None and known.wording != wording:
            _consent(conn, known, wording, by, now_ms)
        return _again(conn, known)


def send_code(
    conn: Connection, customer_id: int, channel: Channel, language: Language, wall_ms: int
) -> None:
    """Send a code to the contact that waits. Errors: NotFound, nothing waits; TooManyAttempts."""
    waiting = _waiting(conn, customer_id, channel)
    assert waiting.address is not None, "what is not ended has its address"
    for bound in (
        # By the number, too: whoever registers it for many customers sends no more.
        Bound(f"codes to {waiting.address}", CODES_PER_CONTACT, customer_sessions.WINDOW_MS),
        Bound(f"codes at once to contact {waiting.id}", 1, customer_sessions.AT_ONCE_MS),
    ):
        attempts.count(conn, bound, wall_ms)
    if not customer_sessions.spend(conn, [customer_id], wall_ms):
        raise TooManyAttempts(customer_sessions.DAY_MS // 1000)
    to = Recipient(channel, waiting.address, language, contact_id=waiting.id)
    codes.issue(conn, _purpose(waiting), to, wall_ms)
    codes.sweep(conn, wall_ms)


def verify_by_code(
    conn: Connection,
    customer_id: int,
    channel: Channel,
    code: str,
    *,
    by: Actor,
    now_ms: int,
    wall_ms: int,
) -> Contact:
    """The contact that waits takes its place. Errors: NotFound, nothing waits; DomainError
    `contact_code_refused`; TooManyAttempts.
    """
    waiting = _waiting(conn, customer_id, channel)
    bound = Bound(
        f"code tries of contact {waiting.id}", TRIES_PER_CONTACT, customer_sessions.WINDOW_MS
    )
    attempts.count(conn, bound, wall_ms)
    verified = None
    with conn.transaction():
        lock_customer(conn, customer_id)
        used = codes.use(conn, _purpose(waiting), code, wall_ms)
        if used is not None and used.contact_id == waiting.id:
            waiting = _waiting(conn, customer_id, channel)
            verified = _verify(conn, waiting, "verified_by_code", by, None, now_ms, wall_ms)
    if verified is None:
        raise DomainError(
            "contact_code_refused",
            "The code is not right or too old: correct it, or send a new one.",
        )
    return verified


def verify_at_desk(
    conn: Connection,
    customer_id: int,
    channel: Channel,
    note: str,
    *,
    by: Actor,
    now_ms: int,
    wall_ms: int,
) -> Contact:
    """An operator has seen that it is the customer's, and says how. Errors: NotFound."""
    with conn.transaction():
        lock_customer(conn, customer_id)
        waiting = _waiting(conn, customer_id, channel)
        return _verify(conn, waiting, "verified_at_desk", by, note, now_ms, wall_ms)


def _verify(
    conn: Connection,
    waiting: Contact,
    kind: EventKind,
    by: Actor,
    note: str | None,
    now_ms: int,
    wall_ms: int,
) -> Contact:
    """In the caller's transaction, which holds the customer."""
    for each in of_customer(conn, waiting.customer_id):
        if each.channel == waiting.channel and each.id != waiting.id:
            _end(conn, each, "replaced", by, now_ms)
            _end_sessions(conn, each, wall_ms)
    conn.execute(query("verify_contact"), {"contact": waiting.id, "now_ms": now_ms})
    _record(conn, waiting, kind, by, now_ms, note=note)
    if waiting.channel == "phone":
        assert waiting.address is not None, "what is not ended has its address"
        person_of_phone(conn, waiting.address, now_ms)
    audit(conn, by, "contact.verify", waiting.customer_id, now_ms, reason=note,
          after={"channel": waiting.channel, "kind": kind})  # fmt: skip
    return _again(conn, waiting)


def set_consent(
    conn: Connection,
    customer_id: int,
    channel: Channel,
    wording: str | None,
    *,
    by: Actor,
    now_ms: int,
) -> list[Contact]:
    """Consent to these words on a channel, or with None its withdrawal; a repeat changes nothing.

    Errors: NotFound, no contact there.
    """
    with conn.transaction():
        lock_customer(conn, customer_id)
        there = [each for each in of_customer(conn, customer_id) if each.channel == channel]
        if not there:
            raise NotFound(f"A contact by {channel}")
        for each in there:
            if each.wording != wording:
                _consent(conn, each, wording, by, now_ms)
        return [_again(conn, each) for each in there]


def remove(
    conn: Connection, customer_id: int, channel: Channel, *, by: Actor, now_ms: int, wall_ms: int
) -> None:
    """The channel is used no more; whoever signed in with that phone is signed out.

    Errors: NotFound, no contact there.
    """
    with conn.transaction():
        lock_customer(conn, customer_id)
        there = [each for each in of_customer(conn, customer_id) if each.channel == channel]
        if not there:
            raise NotFound(f"A contact by {channel}")
        for each in there:
            _end(conn, each, "removed", by, now_ms)
            if each.verified_ms is not None:
                _end_sessions(conn, each, wall_ms)
        audit(conn, by, "contact.remove", customer_id, now_ms, before={"channel": channel})


def person_of_phone(conn: Connection, phone: str, now_ms: int) -> int:
    """The person with this phone, made where there was none."""
    row = conn.execute(query("person_of_phone"), {"phone": phone, "now_ms": now_ms}).fetchone()
    if row is None:
        # Another transaction made it meanwhile: it is there at a second look.
        row = conn.execute(query("person_of_phone"), {"phone": phone, "now_ms": now_ms}).fetchone()
    assert row is not None, "made above, or by another"
    return int(row[0])


def lock_customer(conn: Connection, customer_id: int) -> tuple[int, str, Language, int | None]:
    """(id, name, language, paper requested at). Errors: NotFound."""
    row = conn.execute(query("lock_customer"), {"customer": customer_id}).fetchone()
    if row is None:
        raise NotFound("The customer")
    return row


def audit(
    conn: Connection,
    by: Actor,
    action: str,
    customer_id: int,
    now_ms: int,
    *,
    reason: str | None = None,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    """An act on a customer, where an operator did it; the centre is that of the first account."""
    if not by.is_operator:
        return
    row = conn.execute(query("first_account_of_customer"), {"customer": customer_id}).fetchone()
    audit_log.record(
        conn,
        by.who,
        action,
        f"customer:{customer_id}",
        now_ms,
        reason=by.reason if reason is None else reason,
        before=before,
        after=after,
        account=None if row is None else row[0],
    )


def _waiting(conn: Connection, customer_id: int, channel: Channel) -> Contact:
    found = of_customer(conn, customer_id)
    waiting = [each for each in found if each.channel == channel and each.verified_ms is None]
    if not waiting:
        raise NotFound(f"A contact by {channel} that waits for verification")
    return waiting[0]


def _consent(
    conn: Connection, contact: Contact, wording: str | None, by: Actor, now_ms: int
) -> None:
    given = None if wording is None else now_ms
    changed = {"contact": contact.id, "consent_ms": given, "wording": wording}
    conn.execute(query("set_consent"), changed)
    kind: EventKind = "consent_withdrawn" if wording is None else "consent_given"
    _record(conn, contact, kind, by, now_ms, wording=wording)
    of = {"channel": contact.channel}
    audit(conn, by, "contact.consent", contact.customer_id, now_ms,
          before=None if contact.wording is None else {**of, "wording": contact.wording},
          after={**of, "wording": wording})  # fmt: skip


def _end(conn: Connection, contact: Contact, kind: EventKind, by: Actor, now_ms: int) -> None:
    conn.execute(query("end_contact"), {"contact": contact.id, "now_ms": now_ms})
    _record(conn, contact, kind, by, now_ms)


def _end_sessions(conn: Connection, contact: Contact, wall_ms: int) -> None:
    if contact.channel == "phone":
        of = {"phone": contact.address, "wall_ms": wall_ms}
        conn.execute(query("end_sessions_of_phone"), of)


def _record(
    conn: Connection,
    contact: Contact,
    kind: EventKind,
    by: Actor,
    now_ms: int,
    *,
    wording: str | None = None,
    note: str | None = None,
) -> None:
    conn.execute(
        query("insert_contact_event"),
        {
            "contact": contact.id,
            "customer": contact.customer_id,
            "channel": contact.channel,
            "kind": kind,
            "now_ms": now_ms,
            "by": by.who,
            "wording": wording,
            "place": by.place,
            "note": note,
        },
    )


def _again(conn: Connection, contact: Contact) -> Contact:
    found: Sequence[Contact] = of_customer(conn, contact.customer_id, ended=True)
    return next(each for each in found if each.id == contact.id)


def _purpose(contact: Contact) -> str:
    return f"verify contact {contact.id}"
