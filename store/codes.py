"""One-time codes: made, kept as a hash, sent through an outbox, tried a few times, used once.

Codes live by real time. The outbox row holds address and code until it left or is too late; who
delivers it is the business of whoever claims it (`claim`), after the commit that queued it.
"""

import hashlib
import secrets
from dataclasses import dataclass, field

from psycopg import Connection

from schemas.contacts import Channel, Language, parse_code
from store import passwords
from store.sql import query

DIGITS = 6
# As long as a message may take and a person needs to type it.
LIFE_MS = 5 * 60 * 1000
# Of a million codes: a guesser is right once in 200 000 codes.
TRIES = 5
# Rows of codes and messages are of no use after this.
KEPT_MS = 24 * 3600 * 1000
# A deliverer that died gives its messages back after this.
CLAIM_MS = 30_000


@dataclass(frozen=True, slots=True)
class Recipient:
    """Where a code goes, and what it is for. `known` False: nobody has that address; the code is
    made all the same and sent nowhere.
    """

    channel: Channel
    address: str = field(repr=False)
    language: Language
    known: bool = True
    person_id: int | None = None
    contact_id: int | None = None


@dataclass(frozen=True, slots=True)
class Used:
    """What a right code was made for."""

    person_id: int | None
    contact_id: int | None


@dataclass(frozen=True, slots=True)
class CodeMessage:
    """A code on its way to a person; neither address nor code shows in a repr."""

    id: int
    channel: Channel
    address: str = field(repr=False)
    code: str = field(repr=False)
    language: Language
    expires_ms: int


def issue(conn: Connection, purpose: str, to: Recipient, wall_ms: int) -> None:
    """A new code for a purpose (`sign-in +222...`); the one before serves no more."""
    code = f"{secrets.randbelow(10**DIGITS):0{DIGITS}d}"
    conn.execute(
        query("queue_code"),
        {
            "subject": _digest(purpose),
            "code_hash": passwords.hashed_code(code),
            "person": to.person_id,
            "contact": to.contact_id,
            "expires_ms": wall_ms + LIFE_MS,
            "wall_ms": wall_ms,
            "channel": to.channel,
            "address": to.address if to.known else None,
            "code": code if to.known else None,
            "language": to.language,
            "state": "queued" if to.known else "void",
        },
    )


def use(conn: Connection, purpose: str, given: str, wall_ms: int) -> Used | None:
    """Try a code in the caller's transaction, which keeps the try also when it was wrong.

    None: wrong, used, too old, tried too often, made for nobody, or never made; the same work is
    done for each.
    """
    row = conn.execute(query("newest_code"), {"subject": _digest(purpose)}).fetchone()
    right = passwords.matches(None if row is None else row[1], parse_code(given))
    if row is None:
        return None
    code, _, person, contact, expires_ms, tries, used_ms = row
    if used_ms is not None or expires_ms <= wall_ms or tries >= TRIES:
        return None
    right = right and (person is not None or contact is not None)
    conn.execute(query("count_code_try"), {"code": code, "right": right, "wall_ms": wall_ms})
    return Used(person, contact) if right else None


def claim(conn: Connection, wall_ms: int, limit: int = 20) -> list[CodeMessage]:
    """Messages to deliver now, oldest first; one that is not `sent` soon comes again."""
    conn.execute(query("code_messages_late"), {"wall_ms": wall_ms})
    of = {"wall_ms": wall_ms, "until_ms": wall_ms + CLAIM_MS, "limit": limit}
    rows = conn.execute(query("claim_code_messages"), of)
    return sorted((CodeMessage(*row) for row in rows), key=lambda message: message.id)


def sent(conn: Connection, message_id: int) -> None:
    """It left: address and code are forgotten."""
    conn.execute(query("code_message_sent"), {"message": message_id})


def sweep(conn: Connection, wall_ms: int) -> None:
    """Drop codes and messages of long ago, and what late messages said."""
    conn.execute(query("code_messages_late"), {"wall_ms": wall_ms})
    conn.execute(query("sweep_code_messages"), {"until_ms": wall_ms - KEPT_MS})
    conn.execute(query("sweep_codes"), {"until_ms": wall_ms - KEPT_MS})


def _digest(purpose: str) -> bytes:
    return hashlib.sha256(purpose.encode()).digest()
