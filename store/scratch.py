"""A database of a run's own beside the given one, dropped at the end."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from store.migrate import migrate


@contextmanager
def scratch_database(url: str) -> Iterator[str]:
    """The URL of an empty, migrated database on the same server."""
    name = f"prepaid_scratch_{secrets.token_hex(6)}"
    # A connection for each end: the server may be restarted in between.
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        scratch = urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
        migrate(scratch)
        yield scratch
    finally:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )
