"""One connection for one command of an operator, on a schema that this version knows."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import Connection

from prepaid.settings import Settings
from store.errors import MigrationError, Unavailable
from store.operations import readiness
from store.session import AWAY

CONNECT_TIMEOUT_S = 5


@contextmanager
def connected(settings: Settings) -> Iterator[Connection]:
    """A connection to PREPAID_DATABASE__URL; each store function opens its own transaction.

    Errors: Unavailable; MigrationError; DomainError `not_configured`.
    """
    try:
        with psycopg.connect(
            settings.database_url(), autocommit=True, connect_timeout=CONNECT_TIMEOUT_S
        ) as conn:
            if readiness(conn).pending_migrations:
                raise MigrationError("the database is older than this version: run prepaid migrate")
            yield conn
    except AWAY as error:
        # The driver's second line asks whether the server runs; a refusal is one line.
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise Unavailable(said[0]) from error
