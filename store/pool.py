"""Connections for many short requests, and one consistent view for each that only reads."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import Connection
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from store.errors import Unavailable
from store.session import AWAY, NOTICE_SILENCE

# Callers above hold connections and know no driver.
__all__ = ["Connection", "Pool", "borrow", "make_pool", "snapshot", "url_of"]

Pool = ConnectionPool[Connection]

CONNECT_TIMEOUT_S = 5
# A request waits this long for a free connection; then its caller is better told to come again.
WAIT_S = 5
# No answer of ours takes this long; a query that does would keep others from their connection.
STATEMENT_TIMEOUT_MS = 10_000


def make_pool(url: str, *, min_size: int = 1, max_size: int = 10) -> Pool:
    """A pool that is not open yet: its owner opens it when it starts and closes it when it ends."""
    return ConnectionPool(
        url,
        connection_class=Connection,
        kwargs={
            # Each store function opens its own transaction.
            "autocommit": True,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "prepaid-api",
            **NOTICE_SILENCE,
        },
        configure=_limit_statements,
        min_size=min_size,
        max_size=max_size,
        timeout=WAIT_S,
        check=ConnectionPool.check_connection,
        open=False,
        name="api",
    )


def url_of(pool: Pool) -> str:
    """Where a pool's connections lead."""
    assert isinstance(pool.conninfo, str), "make_pool gives a text"
    return pool.conninfo


def _limit_statements(conn: Connection) -> None:
    # Not as a connection option: the address may bring options of its own.
    conn.execute(
        "SELECT set_config('statement_timeout', %s, false)", (f"{STATEMENT_TIMEOUT_MS}ms",)
    )


@contextmanager
def borrow(pool: Pool) -> Iterator[Connection]:
    """One connection until the block ends. Errors: Unavailable, none free or the server away."""
    try:
        with pool.connection() as conn:
            try:
                yield conn
            except psycopg.errors.ReadOnlySqlTransaction:
                # The pool would lend it again: it answers.
                conn.close()
                raise
    except (PoolTimeout, PoolClosed, *AWAY) as error:
        raise Unavailable(str(error).strip() or type(error).__name__) from error


@contextmanager
def snapshot(conn: Connection) -> Iterator[None]:
    """All reads of the block see one instant of the database, so an answer agrees with itself."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield
