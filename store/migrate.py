"""Applies the numbered files of `migrations/` in order: forward only, each in a transaction.

A file that has landed never changes: its checksum is kept. A file headed `-- edition: timescale`
waits until the server's licence allows what it does. See docs/adr/0003.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, LiteralString

import psycopg

from store import server_facts
from store.errors import MigrationError
from store.roles import Login, provide

# Any two migrating processes meet at this advisory lock.
LOCK = 0x70_72_65_70

_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migration (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    name: str
    # Read from our own package, never from a caller: that is what LiteralString asks.
    text: LiteralString

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def needs_timescale_licence(self) -> bool:
        return self.text.startswith("-- edition: timescale")


def migrations() -> list[Migration]:
    """The files of this package, in their order."""
    folder = files("store").joinpath("migrations")
    found: list[Migration] = []
    for entry in folder.iterdir():
        if entry.name.endswith(".sql"):
            text: Any = entry.read_text(encoding="utf-8")
            found.append(Migration(entry.name, text))
    return sorted(found, key=lambda migration: migration.name)


def migrate(
    url: str, report: Callable[[str], None] = lambda _: None, login: Login | None = None
) -> list[str]:
    """Bring the database at `url` to the newest schema; returns the names applied now.

    `url` is the owner's. The application's role gets its grants each time, and `login`, who the
    programs connect as, becomes its member (store.roles). Errors: MigrationError.
    """
    applied_now: list[str] = []
    with psycopg.connect(url, autocommit=True) as conn:
        # GREATEST-version notices of the extension are not for our users.
        conn.execute("SET client_min_messages = warning")
        if not server_facts.is_utf8(conn):
            raise MigrationError(f"the database is not of UTF-8: {server_facts.MAKE_UTF8}")
        conn.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        conn.execute(_TABLE)
        known: dict[str, str] = dict(
            conn.execute("SELECT name, sha256 FROM schema_migration").fetchall()
        )
        files_here = migrations()
        unknown = known.keys() - {migration.name for migration in files_here}
        if unknown:
            raise MigrationError(
                f"the database has {sorted(unknown)[0]}, which this version does not know: "
                "start the newer version"
            )
        for migration in files_here:
            if migration.name in known:
                if known[migration.name] != migration.sha256:
                    raise MigrationError(
                        f"{migration.name} was changed after it was applied: restore the file"
                    )
                continue
            if migration.needs_timescale_licence and _licence(conn) != "timescale":
                report(f"{migration.name} waits: the server runs the Apache edition")
                continue
            _apply(conn, migration)
            report(f"{migration.name} applied")
            applied_now.append(migration.name)
        provide(conn, login, report)
    return applied_now


def pending(conn: psycopg.Connection) -> list[str]:
    """Names of the files that this server could apply and has not."""
    known = {row[0] for row in conn.execute("SELECT name FROM schema_migration").fetchall()}
    licence = _licence(conn)
    return [
        migration.name
        for migration in migrations()
        if migration.name not in known
        and not (migration.needs_timescale_licence and licence != "timescale")
    ]


def _apply(conn: psycopg.Connection, migration: Migration) -> None:
    with conn.transaction():
        # The file goes to the server whole; nothing here splits it.
        conn.execute(migration.text)
        conn.execute(
            "INSERT INTO schema_migration (name, sha256) VALUES (%s, %s)",
            (migration.name, migration.sha256),
        )


def _licence(conn: psycopg.Connection) -> str:
    row = conn.execute("SELECT current_setting('timescaledb.license', true)").fetchone()
    return str(row[0]) if row and row[0] else "apache"
