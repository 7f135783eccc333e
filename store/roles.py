"""Two roles: the owner migrates, the application cannot rewrite what is recorded (ADR 0009).

`prepaid_app` holds the grants and cannot log in; logins are its members. Every table may be read
and added to. Its rows may be changed unless a trigger makes it append-only or `UPDATABLE` names the
only columns that change. A missing grant shows in the tests, which run as this role.
"""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import Connection, sql
from psycopg.errors import DuplicateObject, InsufficientPrivilege, UniqueViolation

from store.sql import query

APPLICATION = "prepaid_app"

# Facts and acts whose money, reason and person stay; these columns say what became of them.
UPDATABLE: dict[str, tuple[str, ...]] = {
    "access_key": ("revoked_at",),
    "idempotency": ("answer",),
    "one_time_code": ("tries", "used_ms"),
    "operator": ("disabled_at",),
    "operator_identity": ("password_hash", "totp_secret", "totp_step"),
    "operator_session": ("ended_ms",),
    "adjustment": ("state", "decided_by", "adjusted_ms"),
    "appeal": (
        "proposed_by",
        "proposed_at",
        "decision",
        "decided_by",
        "decided_at",
        "note",
    ),
    "campaign": (),
    "campaign_meter": ("key_change_id", "refusal"),
    "command": ("state", "sent_at", "answered_at", "answer", "claimed_until_ms", "retry_ms"),
    "account_grant": ("withdrawn_ms", "withdrawn_by"),
    "code_message": ("state", "address", "code", "claimed_until_ms", "attempts"),
    "contact": ("address", "verified_ms", "consent_ms", "wording", "ended_ms"),
    "customer": ("name", "language", "paper_requested_ms"),
    "customer_answer": ("answer",),
    "customer_session": ("seen_ms", "ended_ms"),
    "engineering_token": ("decision", "decided_by", "decided_at", "decision_reason"),
    "hold": ("released_ms", "released_by", "release_reason"),
    "key_change": (
        "entered_at",
        "confirmed_at",
        "confirmed_by",
        "abandoned_at",
        "abandoned_by",
        "abandoned_reason",
    ),
    "payment_attempt": (
        "msisdn",
        "state",
        "order_reference",
        "going_on",
        "lapses_wall_ms",
        "asked_wall_ms",
        "checks",
        "next_check_wall_ms",
        "provider_reference",
        "told_micro",
        "paid_ms",
        "top_up_id",
        "suspect_id",
    ),
    "partner_quote": (),
    "payment_quote": ("equal", "changed"),
    "person": ("phone",),
    "quarantine": (),
    "reading": ("verdict",),
    "reconciliation_item": (
        "class",
        "payment_id",
        "their_micro",
        "our_micro",
        "owner",
        "action",
        "decision",
        "note",
        "closed_by",
        "closed_at",
    ),
    "schema_migration": (),
    "suspect_payment": ("decision", "decided_by", "decided_at", "reason", "top_up_id"),
    "tariff": ("name", "holidays"),
    "tariff_draft": ("state", "decided_by", "decided_at"),
    "token": ("command_id", "result", "answered_at"),
    "top_up": (
        "token_issued_at",
        "delivered_at",
        "accepted_at",
        "on_supply_at",
        "rejected_at",
        "reconnects",
    ),
}
# Stored positions affect cost, never meaning; attempts are counted anew; sessions, codes and quotes
# are over; which device a meter is may have been entered wrongly (the act is in the audit log).
DELETABLE = frozenset(
    {
        "attempt",
        "checkpoint",
        "code_message",
        "credit_base",
        "customer_session",
        "cut_count",
        "foreign_device",
        "one_time_code",
        "operator_session",
        "partner_quote",
    }
)
# What only migrations write.
READ_ONLY = frozenset({"schema_migration"})


@dataclass(frozen=True, slots=True)
class Login:
    """Who the programs connect as, with the password for a login that is made now."""

    name: str
    password: str | None

    def __repr__(self) -> str:
        return f"Login({self.name!r})"

    @staticmethod
    def of(url: str) -> "Login | None":
        """The user of a database's address; None where it names none."""
        parts = urlsplit(url)
        return None if parts.username is None else Login(parts.username, parts.password)


def provide(
    conn: Connection, login: Login | None, report: Callable[[str], None] = lambda _: None
) -> bool:
    """The application's role with its grants in this database, and `login` as its member.

    True when all of it stands; else `report` says what to run. Safe to repeat. `conn` is the
    owner's, in autocommit mode.
    """
    if not _exists(conn, APPLICATION) and not _make(
        conn, sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(APPLICATION))
    ):
        report(
            f"the role {APPLICATION} is missing and this user may not make it: let a superuser run "
            f"CREATE ROLE {APPLICATION} NOLOGIN; then run prepaid migrate again"
        )
        return False
    with conn.transaction():
        _grant(conn)
    return login is None or _admit(conn, login, report)


def as_application(url: str) -> str:
    """The address of a superuser, acting as the application: what tests connect to.

    It parts the grants, not the people: who connects this way can take the owner's role back.
    """
    parts = urlsplit(url)
    options = [*parse_qsl(parts.query), ("options", f"-c role={APPLICATION}")]
    return urlunsplit(parts._replace(query=urlencode(options).replace("+", "%20")))


def _exists(conn: Connection, role: str) -> bool:
    return conn.execute(query("role_exists"), {"role": role}).fetchone() is not None


def _make(conn: Connection, statement: sql.Composed) -> bool:
    """False where this user may not. Another database of the server may be first: that is fine."""
    try:
        conn.execute(statement)
    except InsufficientPrivilege:
        return False
    except (DuplicateObject, UniqueViolation):
        pass
    return True


def _admit(conn: Connection, login: Login, report: Callable[[str], None]) -> bool:
    member = sql.SQL("GRANT {} TO {}").format(
        sql.Identifier(APPLICATION), sql.Identifier(login.name)
    )
    if conn.execute(query("role_covers"), {"login": login.name}).fetchone() is not None:
        return True
    if _exists(conn, login.name):
        made = _make(conn, member)
    elif login.password is None:
        made = False
    else:
        # Sent as SCRAM's verifier: the password itself never stands in a server's log.
        verifier = conn.pgconn.encrypt_password(
            login.password.encode(), login.name.encode(), b"scram-sha-256"
        ).decode()
        made = _make(
            conn,
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}").format(
                sql.Identifier(login.name), sql.Literal(verifier), sql.Identifier(APPLICATION)
            ),
        )
    if not made:
        report(
            f"{login.name} is no member of {APPLICATION}: let a superuser make the login with a "
            f"password and run {member.as_string(conn)}"
        )
    return made


def _grant(conn: Connection) -> None:
    role = sql.Identifier(APPLICATION)
    conn.execute(sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {}").format(role))
    conn.execute(sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(role))
    conn.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(role))
    conn.execute(sql.SQL("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {}").format(role))
    conn.execute(
        sql.SQL("GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {}").format(role)
    )
    for name, append_only in conn.execute(query("tables_to_grant")).fetchall():
        privileges = _privileges(name, append_only=append_only)
        if privileges:
            conn.execute(
                sql.SQL("GRANT {} ON {} TO {}").format(
                    sql.SQL(", ").join(privileges), sql.Identifier(name), role
                )
            )


def _privileges(table: str, *, append_only: bool) -> list[sql.Composable]:
    if table in READ_ONLY:
        return []
    found: list[sql.Composable] = [sql.SQL("INSERT")]
    if table in DELETABLE:
        found.append(sql.SQL("DELETE"))
    columns = UPDATABLE.get(table)
    if columns:
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        found.append(sql.SQL("UPDATE ({})").format(names))
    elif columns is None and not append_only:
        found.append(sql.SQL("UPDATE"))
    return found


@dataclass(frozen=True, slots=True)
class ConnectedAs:
    """Who a connection acts as. `may_rewrite`: it could change what is recorded."""

    name: str
    may_rewrite: bool


def connected_as(url: str, timeout_s: int = 5) -> ConnectedAs:
    """Errors: psycopg.OperationalError if the server cannot be reached."""
    with psycopg.connect(url, connect_timeout=timeout_s) as conn:
        row = conn.execute(query("connected_as")).fetchone()
        assert row is not None, "an aggregate"
        return ConnectedAs(*row)
