"""A connection of an event loop that asks named queries, with little between them and the socket.

psycopg's asynchronous cursor takes 250 µs of a core for a statement, three times what libpq and its
socket need: it converts the query anew, and registers the socket and a timer for each wait. Here a
query is prepared once, its parameters come in the server's binary form (`store.binary`), and the
socket is watched as long as the connection is open. One statement at a time.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection, OperationalError, pq
from psycopg.adapt import Transformer
from psycopg.pq import DiagnosticField, ExecStatus

from store.pool import CONNECT_TIMEOUT_S
from store.session import NOTICE_SILENCE
from store.sql import query

_PLACE = re.compile(r"%\((\w+)\)s|%%")


class LoopConnection:
    """Every call comes from the event loop that opened it. Errors: those of psycopg; after an
    OperationalError nothing but `close` is left.
    """

    def __init__(self, conn: AsyncConnection[Any]) -> None:
        self._conn = conn
        self._pgconn = conn.pgconn
        self._loop = asyncio.get_running_loop()
        self._decoder = Transformer(conn)
        # By name: those of its parameters, in the order of their numbers.
        self._prepared: dict[str, Sequence[str]] = {}
        self._found: list[pq.abc.PGresult] = []
        self._answer: asyncio.Future[pq.abc.PGresult] | None = None
        self._lost: OperationalError | None = None
        self._socket = self._pgconn.socket
        self._loop.add_reader(self._socket, self._read)

    @staticmethod
    async def open(
        url: str, name: str, settings: Sequence[LiteralString], timeout_ms: int
    ) -> "LoopConnection":
        """Connect as a program of this name, each statement a transaction of its own that may take
        so long. Errors: psycopg.Error.
        """
        conn = await AsyncConnection.connect(
            url,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name=name,
            **NOTICE_SILENCE,
        )
        try:
            for setting in settings:
                await conn.execute(setting)
            bound = (f"{timeout_ms}ms",)
            await conn.execute("SELECT set_config('statement_timeout', %s, false)", bound)
        except BaseException:
            await conn.close()
            raise
        return LoopConnection(conn)

    async def rows(self, name: str, values: Mapping[str, bytes]) -> list[tuple[Any, ...]]:
        """What a named query finds. `values`: of each parameter, in the form of its type."""
        if self._lost is not None:
            raise self._lost
        order = self._prepared.get(name)
        if order is None:
            text, order = numbered(query(name))
            self._pgconn.send_prepare(name.encode(), text.encode())
            await self._result()
            self._prepared[name] = order
        given = [values[each] for each in order]
        self._pgconn.send_query_prepared(
            name.encode(), given, [pq.Format.BINARY] * len(given), pq.Format.BINARY
        )
        result = await self._result()
        self._decoder.set_pgresult(result)
        return self._decoder.load_rows(0, result.ntuples, tuple)

    async def close(self) -> None:
        self._end(OperationalError("the connection was closed"))
        await self._conn.close()

    async def _result(self) -> pq.abc.PGresult:
        """The answer to what was given to libpq."""
        while self._pgconn.flush():
            await self._writable()
        self._answer = self._loop.create_future()
        try:
            result = await self._answer
        except asyncio.CancelledError:
            # Its answer comes to nobody: nothing more can be asked here.
            self._end(OperationalError("a statement was given up"))
            raise
        finally:
            self._answer = None
        if result.status == ExecStatus.FATAL_ERROR:
            raise _error_of(result)
        return result

    async def _writable(self) -> None:
        """The server takes no more for now: until it does."""
        ready = self._loop.create_future()
        self._loop.add_writer(self._socket, _settle, ready)
        try:
            await ready
        finally:
            self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        """Something came, or the connection ended."""
        try:
            self._pgconn.consume_input()
            # An answer is whole when nothing follows its last result; asked earlier, libpq waits.
            while not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if result is not None:
                    self._found.append(result)
                    continue
                if self._found and self._answer is not None and not self._answer.done():
                    self._answer.set_result(self._found[0])
                self._found.clear()
                return
        except psycopg.OperationalError as error:
            self._end(error)

    def _end(self, error: OperationalError) -> None:
        """Nothing more is to be had: a socket that ended would be readable for ever."""
        if self._lost is None:
            self._lost = error
            self._loop.remove_reader(self._socket)
            self._pgconn.finish()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def numbered(text: str) -> tuple[str, list[str]]:
    """A query with numbers in place of its parameters' names, and these in their order.

    >>> numbered("SELECT %(b)s, %(a)s, %(b)s, 7 %% 2")
    ('SELECT $1, $2, $1, 7 % 2', ['b', 'a'])
    """
    order: list[str] = []

    def number(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "%"
        if name not in order:
            order.append(name)
        return f"${order.index(name) + 1}"

    return _PLACE.sub(number, text), order


def _settle(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


def _error_of(result: pq.abc.PGresult) -> psycopg.Error:
    state = result.error_field(DiagnosticField.SQLSTATE) or b""
    try:
        kind = psycopg.errors.lookup(state.decode())
    except KeyError:
        kind = psycopg.DatabaseError
    return kind(result.get_error_message())
