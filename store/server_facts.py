"""What a database server says of itself, for the check before anything is migrated."""

from dataclasses import dataclass

import psycopg

CONNECT_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """`timescaledb_version` is None on a server without the extension."""

    version: str
    timescaledb_version: str | None
    # `apache` or `timescale`; None until the extension's library is loaded.
    timescaledb_edition: str | None


def read_server_facts(url: str) -> ServerFacts:
    """Errors: psycopg.OperationalError if the server cannot be reached."""
    with psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S) as connection:
        (row,) = connection.execute(
            """
            SELECT current_setting('server_version'),
                   (SELECT default_version FROM pg_available_extensions
                    WHERE name = 'timescaledb'),
                   current_setting('timescaledb.license', true)
            """
        ).fetchall()
    return ServerFacts(*row)
