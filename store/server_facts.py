"""What a database server says of itself, for the check before anything is migrated."""

from dataclasses import dataclass

import psycopg

CONNECT_TIMEOUT_S = 5
MAKE_UTF8 = "make it anew by CREATE DATABASE ... TEMPLATE template0 ENCODING 'UTF8'"


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """`timescaledb_version` is None on a server without the extension."""

    version: str
    timescaledb_version: str | None
    # `apache` or `timescale`; None until the database has the extension, which migrating gives it.
    timescaledb_edition: str | None
    # The server began with its library (shared_preload_libraries, which only a superuser may read).
    timescaledb_is_loaded: bool
    # Of the database: of another encoding names would not be kept as they are written.
    is_utf8: bool


def read_server_facts(url: str) -> ServerFacts:
    """Errors: psycopg.OperationalError if the server cannot be reached."""
    # A database of SQL_ASCII would answer in bytes.
    with psycopg.connect(
        url, connect_timeout=CONNECT_TIMEOUT_S, client_encoding="utf8"
    ) as connection:
        ((version, available, edition, is_loaded),) = connection.execute(
            """
            SELECT current_setting('server_version'),
                   (SELECT default_version FROM pg_available_extensions
                    WHERE name = 'timescaledb'),
                   current_setting('timescaledb.license', true),
                   current_setting('timescaledb.disable_load', true) IS NOT NULL
            """
        ).fetchall()
        return ServerFacts(version, available, edition, is_loaded, is_utf8(connection))


def is_utf8(connection: psycopg.Connection) -> bool:
    row = connection.execute("SELECT getdatabaseencoding() = 'UTF8'").fetchone()
    return row == (True,)
