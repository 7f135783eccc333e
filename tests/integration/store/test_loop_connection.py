"""A connection of an event loop: what a query finds, what it refuses, and how it ends."""

import asyncio
from collections.abc import Callable

import psycopg
import pytest

from store import binary, loop_connection
from store.loop_connection import LoopConnection, numbered

QUERIES = {
    "echo": "SELECT n, %(word)s::text FROM unnest(%(numbers)s::bigint[]) AS n",
    "many": "SELECT repeat('x', 1000) FROM generate_series(1, %(count)s::bigint)",
    "broken": "SELECT 1 / (%(count)s::bigint - 1)",
    "slow": "SELECT pg_sleep(%(count)s::bigint)",
    "own": "SELECT pg_backend_pid()",
    "words": "SELECT w FROM unnest(%(words)s::text[]) AS w",
    "octets": "SELECT w FROM unnest(%(octets)s::bytea[]) AS w",
}
COUNT = binary.bigint


@pytest.fixture(autouse=True)
def queries_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_connection, "query", QUERIES.__getitem__)


async def opened(url: str, timeout_ms: int = 10_000) -> LoopConnection:
    return await LoopConnection.open(url, "test", ["SET enable_seqscan = off"], timeout_ms)


async def test_parameters_and_rows_are_those_of_their_types(database_url: str) -> None:
    conn = await opened(database_url)
    of = {"word": "é%".encode(), "numbers": binary.int8_array([3, -1])}
    assert await conn.rows("echo", of) == [(3, "é%"), (-1, "é%")]
    assert await conn.rows("echo", {**of, "numbers": binary.int8_array([])}) == []
    words, octets = ["", "é", "a'b"], [b"", b"\0\xff"]
    assert await conn.rows("words", {"words": binary.text_array(words)}) == [(w,) for w in words]
    found = await conn.rows("octets", {"octets": binary.bytea_array(octets)})
    assert found == [(each,) for each in octets]
    await conn.close()


async def test_more_than_one_reading_of_the_socket_is_one_answer(database_url: str) -> None:
    conn = await opened(database_url)
    found = await conn.rows("many", {"count": COUNT(5_000)})
    assert len(found) == 5_000
    long = ["x" * 1_000_000] * 20
    assert len(await conn.rows("words", {"words": binary.text_array(long)})) == 20
    await conn.close()


async def test_a_refusal_leaves_the_connection_as_it_was(database_url: str) -> None:
    conn = await opened(database_url, timeout_ms=100)
    with pytest.raises(psycopg.errors.DivisionByZero):
        await conn.rows("broken", {"count": COUNT(1)})
    with pytest.raises(psycopg.errors.QueryCanceled):
        await conn.rows("slow", {"count": COUNT(5)})
    assert await conn.rows("broken", {"count": COUNT(2)}) == [(1,)]
    await conn.close()


async def test_a_connection_that_the_server_ended_says_so(
    database_url: str, as_owner: Callable[[str], str]
) -> None:
    conn = await opened(database_url)
    ((own,),) = await conn.rows("own", {})
    with psycopg.connect(as_owner(database_url), autocommit=True) as other:
        asked = asyncio.ensure_future(conn.rows("slow", {"count": COUNT(5)}))
        await asyncio.sleep(0.1)
        other.execute("SELECT pg_terminate_backend(%s)", (own,))
    with pytest.raises(psycopg.OperationalError):
        await asked
    with pytest.raises(psycopg.OperationalError):
        await conn.rows("own", {})
    await conn.close()


async def test_a_statement_that_was_given_up_ends_the_connection(database_url: str) -> None:
    conn = await opened(database_url)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(conn.rows("slow", {"count": COUNT(5)}), 0.1)
    # Otherwise the next one would be given its answer.
    with pytest.raises(psycopg.OperationalError):
        await conn.rows("own", {})
    await conn.close()


def test_a_parameter_that_is_said_twice_has_one_number() -> None:
    assert numbered("SELECT %(b)s, %(a)s, %(b)s, 7 %% 2") == (
        "SELECT $1, $2, $1, 7 % 2",
        ["b", "a"],
    )
