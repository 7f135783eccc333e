"""One database connection on a thread of its own, for a loop that lives in asyncio.

psycopg runs synchronously on that thread: at these rates it is cheaper than its asyncio twin, and
the event loop goes on decoding while the database works (ADR 0003). A lost connection is opened
again at the next call.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import Connection

from store.errors import Unavailable

_Result = TypeVar("_Result")

CONNECT_TIMEOUT_S = 5
# A server whose machine lost its power says nothing, and TCP alone would wait a quarter of an hour
# for it. A busy server is not meant: its kernel answers.
NOTICE_SILENCE: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds
}
# The server is away, or is one that takes no writes any more, as an old primary after a fail-over:
# who connects anew finds the one that does (docs/replication.md). Deadlocks and full disks are
# among these: all are worth trying again.
AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction)
# Batches join a few thousand keys to large tables: without these the planner, which cannot know
# the size of an array, scans the tables whole.
POINT_LOOKUPS: tuple[LiteralString, ...] = (
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    # A look that finds nothing by its index was parted among processes that had to be started.
    "SET max_parallel_workers_per_gather = 0",
)


class Session:
    """Runs functions of a connection, one at a time, each on the session's own thread."""

    def __init__(self, url: str, name: str, settings: Sequence[LiteralString] = ()) -> None:
        self._url = url
        self._name = name
        self._settings = settings
        self._conn: Connection | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"db-{name}")

    async def run(self, work: Callable[[Connection], _Result]) -> _Result:
        """The result of `work`. Errors: Unavailable, after which the next call connects anew."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    async def close(self) -> None:
        """Let the last work end and close the connection."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._drop)
        self._thread.shutdown(wait=True)

    def _run(self, work: Callable[[Connection], _Result]) -> _Result:
        try:
            return work(self._connection())
        except AWAY as error:
            self._drop()
            raise Unavailable(str(error).strip() or type(error).__name__) from error

    def _connection(self) -> Connection:
        if self._conn is None or self._conn.closed:
            self._conn = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_S,
                application_name=f"prepaid-{self._name}",
                **NOTICE_SILENCE,
            )
            for setting in self._settings:
                self._conn.execute(setting)
        return self._conn

    def _drop(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None


def wait_for_command(conn: Connection, timeout_s: float) -> None:
    """Until a command is queued by anybody, or the time is over."""
    conn.execute("LISTEN command")
    for _ in conn.notifies(timeout=timeout_s, stop_after=1):
        pass
