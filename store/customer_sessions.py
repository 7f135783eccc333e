"""Customers sign in: a code to the phone, a session for the code; who is known shows nowhere.

A session stands for a person: whoever holds a phone that is a verified contact of a customer, or
that an account was opened to. What it may see follows from both at each request, not from the day
of the sign-in. Sessions, codes and bounds on tries go by real time (`wall_ms`).
"""

import hashlib
import secrets
from dataclasses import dataclass, field

from psycopg import Connection

from schemas.errors import DomainError
from store import attempts, codes
from store.attempts import Bound
from store.codes import Recipient
from store.errors import NotFound, TooManyAttempts
from store.sql import query

MINUTE_MS = 60_000
DAY_MS = 24 * 3600 * 1000
# A phone that is used stays signed in; one that lies in a drawer does not.
IDLE_MS = 30 * DAY_MS
SESSION_MS = 90 * DAY_MS
# How exactly idle time is known: a write for each request would cost more than it tells.
SEEN_EVERY_MS = 5 * MINUTE_MS
# Ended sessions are kept a while for whoever asks what happened.
SESSION_KEPT_MS = 90 * DAY_MS
# What a stolen telephone must not do alone asks for a sign-in as new as this.
FRESH_MS = 15 * MINUTE_MS

CODES_PER_ADDRESS = 30
CODES_PER_PHONE_AT_ONCE = 1
CODES_PER_PHONE = 5
CODES_PER_PHONE_A_DAY = 15
CODES_PER_CUSTOMER_A_DAY = 20
TRIES_PER_ADDRESS = 60
TRIES_PER_PHONE = 15
AT_ONCE_MS = 30_000
WINDOW_MS = 15 * MINUTE_MS


class CodeRefused(DomainError):  # noqa: N818 - a state of the world, as in HTTP
    """One answer for every reason, so that nobody learns whose number is known."""

    def __init__(self) -> None:
        super().__init__(
            "code_refused",
            "Number or code are not right, or the code is too old: correct them, or ask for a "
            "new code.",
        )


@dataclass(frozen=True, slots=True)
class NewSession:
    """`key` is shown this once and goes where an access key goes."""

    key: str = field(repr=False)
    expires_ms: int


@dataclass(frozen=True, slots=True)
class CustomerSession:
    """A session that works; it ends at `expires_ms` when it is not used until then."""

    id: int
    began_ms: int
    seen_ms: int
    expires_ms: int


def ask_code(conn: Connection, phone: str, network: str, wall_ms: int) -> None:
    """A code to a phone (E.164) that somebody may sign in with; else the same work, and no message.

    Errors: TooManyAttempts, by phone and by network, known or not. The bound per customer says
    nothing: beyond it no message goes out.
    """
    for bound in (
        Bound(f"codes from {network}", CODES_PER_ADDRESS, WINDOW_MS),
        Bound(f"codes at once to {phone}", CODES_PER_PHONE_AT_ONCE, AT_ONCE_MS),
        Bound(f"codes to {phone}", CODES_PER_PHONE, WINDOW_MS),
        Bound(f"codes of the day to {phone}", CODES_PER_PHONE_A_DAY, DAY_MS),
    ):
        attempts.count(conn, bound, wall_ms)
    row = conn.execute(query("person_to_sign_in"), {"phone": phone}).fetchone()
    person, language = row or (None, "ar")
    of = {"person": -1 if person is None else person}
    customers = [found for (found,) in conn.execute(query("customers_of_person"), of)]
    within = spend(conn, customers or [f"nobody at {phone}"], wall_ms)
    to = Recipient("phone", phone, language, known=person is not None and within, person_id=person)
    codes.issue(conn, _sign_in(phone), to, wall_ms)
    codes.sweep(conn, wall_ms)


def spend(conn: Connection, customers: list[int] | list[str], wall_ms: int) -> bool:
    """Count a code against each customer; False when one of them has had enough today."""
    for customer in customers:
        bound = Bound(f"codes of customer {customer}", CODES_PER_CUSTOMER_A_DAY, DAY_MS)
        try:
            attempts.count(conn, bound, wall_ms)
        except TooManyAttempts:
            return False
    return True


def sign_in(conn: Connection, phone: str, code: str, network: str, wall_ms: int) -> NewSession:
    """A session for the right code, once. Errors: CodeRefused, the same for every reason;
    TooManyAttempts.
    """
    for bound in (
        Bound(f"code tries from {network}", TRIES_PER_ADDRESS, WINDOW_MS),
        Bound(_tries(phone), TRIES_PER_PHONE, WINDOW_MS),
    ):
        attempts.count(conn, bound, wall_ms)
    session = None
    with conn.transaction():
        used = codes.use(conn, _sign_in(phone), code, wall_ms)
        row = conn.execute(query("person_to_sign_in"), {"phone": phone}).fetchone()
        # A number that changed hands between the two is nobody's any more.
        if used is not None and row is not None and row[0] == used.person_id:
            session = _begin(conn, row[0], wall_ms)
    if session is None:
        raise CodeRefused
    attempts.forget(conn, _tries(phone))
    attempts.sweep(conn, wall_ms)
    conn.execute(query("sweep_customer_sessions"), {"until_ms": wall_ms - SESSION_KEPT_MS})
    return session


def _begin(conn: Connection, person: int, wall_ms: int) -> NewSession:
    session = NewSession(f"cs_{secrets.token_urlsafe(32)}", wall_ms + SESSION_MS)
    conn.execute(
        query("insert_customer_session"),
        {
            "sha256": hashlib.sha256(session.key.encode()).digest(),
            "person": person,
            "wall_ms": wall_ms,
            "expires_ms": session.expires_ms,
        },
    )
    return session


def touch(conn: Connection, session_id: int, seen_ms: int, wall_ms: int) -> None:
    """The session is used now."""
    if wall_ms - seen_ms >= SEEN_EVERY_MS:
        of = {"sessions": [session_id], "wall_ms": wall_ms}
        conn.execute(query("touch_customer_sessions"), of)


def listed(conn: Connection, person_id: int, wall_ms: int) -> list[CustomerSession]:
    """A person's sessions that still work, newest first."""
    of = {"person": person_id, "wall_ms": wall_ms, "idle_ms": IDLE_MS}
    return [CustomerSession(*row) for row in conn.execute(query("customer_sessions"), of)]


def end(conn: Connection, person_id: int, session_id: int, wall_ms: int) -> None:
    """End one session of a person. Errors: NotFound, also for another person's."""
    of = {"person": person_id, "session": session_id, "wall_ms": wall_ms}
    if conn.execute(query("end_customer_sessions"), of).fetchone() is None:
        raise NotFound("A session of yours that still works")


def end_all(conn: Connection, person_id: int, wall_ms: int) -> None:
    """End every session of a person."""
    of = {"person": person_id, "session": None, "wall_ms": wall_ms}
    conn.execute(query("end_customer_sessions"), of)


def _sign_in(phone: str) -> str:
    return f"sign-in {phone}"


def _tries(phone: str) -> str:
    return f"code tries of {phone}"
