"""Operators: who they are, what they sign in with, their sessions and their programs' keys.

An identity is the subject of an issuer. The only issuer so far is `password`; a directory (OIDC)
becomes another one, whose sign-in ends where `_begin` is called here. Sessions, second factors and
bounds on tries go by real time (`wall_ms`), not by the system's clock, which may be simulated.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from psycopg import Connection

from schemas.errors import DomainError
from store import attempts, audit_log, passwords, registry
from store.attempts import Bound
from store.errors import Conflict, NotFound
from store.sql import query

OperatorRole = Literal["desk", "supervisor", "finance", "field", "auditor", "admin"]
ROLES: tuple[OperatorRole, ...] = get_args(OperatorRole)
NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{1,63}")
# A shift: after it a stolen session is worth nothing.
SESSION_MS = 10 * 3600 * 1000
# Ended sessions are kept a while for whoever asks what happened.
SESSION_KEPT_MS = 90 * 24 * 3600 * 1000
WINDOW_MS = 15 * 60 * 1000
TRIES_PER_NAME = 10
TRIES_PER_ADDRESS = 60
# Characters of a program's key that are shown for ever, to know it by.
PREFIX_CHARACTERS = 8


class SignInRefused(DomainError):  # noqa: N818 - a state of the world, as in HTTP
    """One answer for every reason, so that nobody learns who exists."""

    def __init__(self) -> None:
        super().__init__(
            "sign_in_refused", "Name, password or code are not right: correct them and try again."
        )


@dataclass(frozen=True, slots=True)
class Operator:
    """`centres`: ids, None for every centre; `centre_codes` are the same for people."""

    id: int
    name: str
    role: OperatorRole
    centres: Sequence[int] | None
    centre_codes: Sequence[str] | None
    created_ms: int
    disabled_ms: int | None
    has_password: bool
    has_second_factor: bool
    key_prefixes: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Session:
    """`key` is shown this once and goes where an access key goes."""

    key: str = field(repr=False)
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Passed:
    """What somebody gave to sign in."""

    name: str
    password: str = field(repr=False)
    code: str | None = field(repr=False)
    address: str


def add(
    conn: Connection,
    name: str,
    role: OperatorRole,
    centres: Sequence[str] = (),
    *,
    who: str,
    now_ms: int,
) -> int:
    """A new operator of these centres (by code; none: every centre), who cannot sign in yet.

    Errors: DomainError `bad_name`; NotFound (centre); Conflict `operator_exists`.
    """
    if NAME.fullmatch(name) is None:
        raise DomainError(
            "bad_name", "name an operator in small letters, digits, . _ @ or -, 2 to 64 of them"
        )
    with conn.transaction():
        ids = [registry.find_centre(conn, code) for code in centres]
        row = conn.execute(
            query("insert_operator"),
            {"name": name, "role": role, "centres": ids or None, "now_ms": now_ms},
        ).fetchone()
        if row is None:
            raise Conflict("operator_exists", f"operator {name} is there already: choose another")
        after = {"role": role, "centres": list(centres) or None}
        audit_log.record(conn, who, "operator.add", f"operator:{name}", now_ms, after=after)
        return int(row[0])


def listed(conn: Connection) -> list[Operator]:
    """Every operator, by name."""
    return [Operator(*row) for row in conn.execute(query("operators_by_name"), {"name": None})]


def find(conn: Connection, name: str) -> Operator:
    """One operator. Errors: NotFound."""
    row = conn.execute(query("operators_by_name"), {"name": name}).fetchone()
    if row is None:
        raise NotFound(f"Operator {name}")
    return Operator(*row)


def reset(
    conn: Connection, name: str, password: str, *, second_factor: bool, who: str, wall_ms: int
) -> str | None:
    """Give an operator a password, and with `second_factor` a new TOTP secret, which is returned.

    Every session ends. Errors: NotFound; DomainError `password_refused`.
    """
    password_hash = passwords.hashed(password)
    secret = passwords.new_totp_secret() if second_factor else None
    with conn.transaction():
        found = find(conn, name)
        conn.execute(query("lock_operator"), {"name": name})
        conn.execute(
            query("set_password"),
            {
                "name": name,
                "operator": found.id,
                "password_hash": password_hash,
                "totp_secret": secret,
            },
        )
        of = {"operator": found.id, "wall_ms": wall_ms}
        conn.execute(query("end_operator_sessions"), of)
        audit_log.record(
            conn,
            who,
            "operator.reset",
            f"operator:{name}",
            wall_ms,
            before={"password": found.has_password, "second_factor": found.has_second_factor},
            after={"password": True, "second_factor": second_factor},
        )
    attempts.forget(conn, _by_name(name))
    return secret


def disable(conn: Connection, name: str, *, who: str, wall_ms: int) -> bool:
    """From now on nothing of this operator works, keys included; False when it was so before.

    Errors: NotFound.
    """
    with conn.transaction():
        found = find(conn, name)
        of = {"operator": found.id, "now_ms": wall_ms, "wall_ms": wall_ms}
        if conn.execute(query("disable_operator"), of).fetchone() is None:
            return False
        conn.execute(query("end_operator_sessions"), of)
        audit_log.record(conn, who, "operator.disable", f"operator:{name}", wall_ms)
        return True


def enable(conn: Connection, name: str, *, who: str, wall_ms: int) -> bool:
    """Back again, with password and keys as they were; False when never gone. Errors: NotFound."""
    with conn.transaction():
        found = find(conn, name)
        if conn.execute(query("enable_operator"), {"operator": found.id}).fetchone() is None:
            return False
        audit_log.record(conn, who, "operator.enable", f"operator:{name}", wall_ms)
        return True


def add_access_key(conn: Connection, name: str, label: str, *, who: str, now_ms: int) -> str:
    """A key for a program of this operator, shown once; it can do what the operator can.

    Errors: NotFound; Conflict `operator_disabled`.
    """
    prefix = f"op_{secrets.token_hex(PREFIX_CHARACTERS // 2)}"
    key = f"{prefix}_{secrets.token_urlsafe(32)}"
    with conn.transaction():
        found = find(conn, name)
        if found.disabled_ms is not None:
            raise Conflict("operator_disabled", f"operator {name} is disabled: enable it first")
        conn.execute(
            query("add_operator_key"),
            {
                "sha256": digest(key),
                "operator": found.id,
                "prefix": prefix,
                "label": label,
                "now_ms": now_ms,
            },
        )
        after = {"prefix": prefix, "label": label}
        audit_log.record(conn, who, "access_key.add", f"operator:{name}", now_ms, after=after)
    return key


def revoke_access_key(conn: Connection, prefix: str, *, who: str, now_ms: int) -> None:
    """End a program's key. Errors: NotFound."""
    with conn.transaction():
        of = {"prefix": prefix, "now_ms": now_ms}
        if conn.execute(query("revoke_operator_key"), of).fetchone() is None:
            raise NotFound(f"A key {prefix} that still works")
        audit_log.record(conn, who, "access_key.revoke", f"access_key:{prefix}", now_ms)


def digest(key: str) -> bytes:
    """What is kept of a session or an access key."""
    return hashlib.sha256(key.encode()).digest()


def sign_in(conn: Connection, passed: Passed, wall_ms: int) -> Session:
    """A session for the right name, password and, where there is one, second factor.

    Each try counts against the name and the address before it is judged. Errors: SignInRefused,
    the same for every reason; TooManyAttempts.
    """
    name = passed.name.strip().lower()
    for bound in (
        Bound(f"sign-in from {passed.address}", TRIES_PER_ADDRESS, WINDOW_MS),
        Bound(_by_name(name), TRIES_PER_NAME, WINDOW_MS),
    ):
        attempts.count(conn, bound, wall_ms)
    row = conn.execute(query("identity_to_sign_in"), {"name": name}).fetchone()
    password_hash, totp_secret = row or (None, None)
    right = passwords.matches(password_hash, passed.password)
    with conn.transaction():
        if password_hash is None or not right:
            raise SignInRefused
        if not _second_factor(conn, name, totp_secret, passed.code, wall_ms):
            raise SignInRefused
        session = _begin(conn, name, password_hash, wall_ms)
        after = {"address": passed.address, "second_factor": totp_secret is not None}
        audit_log.record(conn, name, "sign_in", f"operator:{name}", wall_ms, after=after)
    attempts.forget(conn, _by_name(name))
    attempts.sweep(conn, wall_ms)
    conn.execute(query("sweep_operator_sessions"), {"until_ms": wall_ms - SESSION_KEPT_MS})
    return session


def _by_name(name: str) -> str:
    return f"sign-in as {name}"


def _second_factor(
    conn: Connection, name: str, secret: str | None, code: str | None, wall_ms: int
) -> bool:
    if secret is None:
        return True
    step = None if code is None else passwords.totp_step(secret, code, wall_ms)
    if step is None:
        return False
    used = conn.execute(query("use_totp_step"), {"name": name, "step": step}).fetchone()
    return used is not None


def _begin(conn: Connection, name: str, password_hash: str, wall_ms: int) -> Session:
    session = Session(f"os_{secrets.token_urlsafe(32)}", wall_ms + SESSION_MS)
    began = conn.execute(
        query("insert_operator_session"),
        {
            "sha256": digest(session.key),
            "name": name,
            "password_hash": password_hash,
            "wall_ms": wall_ms,
            "expires_ms": session.expires_ms,
        },
    ).fetchone()
    if began is None:
        raise SignInRefused
    return session


def sign_out(conn: Connection, key: str, wall_ms: int) -> None:
    """End a session; an access key stays."""
    conn.execute(query("end_operator_session"), {"sha256": digest(key), "wall_ms": wall_ms})
