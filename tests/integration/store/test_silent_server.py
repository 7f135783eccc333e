"""A server that vanished, or takes no writes any more, is noticed by loops and by the API."""

import os
import socket

import pytest

from store.errors import Unavailable
from store.pool import borrow, make_pool
from store.session import NOTICE_SILENCE, Session

WANTED = {
    socket.TCP_KEEPIDLE: NOTICE_SILENCE["keepalives_idle"],
    socket.TCP_KEEPINTVL: NOTICE_SILENCE["keepalives_interval"],
    socket.TCP_KEEPCNT: NOTICE_SILENCE["keepalives_count"],
    socket.TCP_USER_TIMEOUT: NOTICE_SILENCE["tcp_user_timeout"],
}


def options(conn) -> dict[int, int]:
    """What the kernel does for the socket of a connection."""
    with socket.socket(fileno=os.dup(conn.fileno())) as used:
        assert used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        return {option: used.getsockopt(socket.IPPROTO_TCP, option) for option in WANTED}


async def test_a_loops_connection_watches_its_server(database_url):
    session = Session(database_url, "test")
    assert await session.run(options) == WANTED
    await session.close()


def test_the_apis_connections_watch_their_server(database_url):
    pool = make_pool(database_url)
    pool.open()
    try:
        with borrow(pool) as conn:
            assert options(conn) == WANTED
    finally:
        pool.close()


READ_ONLY = "SELECT set_config('default_transaction_read_only', 'on', false)"
WRITE = "UPDATE centre SET name = name"


async def test_a_loop_leaves_a_server_that_takes_no_writes_any_more(database_url):
    session = Session(database_url, "test")
    # As an old primary after a fail-over: it is there, and the URL finds another one.
    first = await session.run(lambda conn: conn.execute(READ_ONLY) and conn.info.backend_pid)
    with pytest.raises(Unavailable):
        await session.run(lambda conn: conn.execute(WRITE))
    assert await session.run(lambda conn: conn.info.backend_pid) != first
    await session.run(lambda conn: conn.execute(WRITE))
    await session.close()


def test_the_api_leaves_a_server_that_takes_no_writes_any_more(database_url):
    pool = make_pool(database_url, min_size=1, max_size=1)
    pool.open()
    try:
        with borrow(pool) as conn:
            conn.execute(READ_ONLY)
        with pytest.raises(Unavailable), borrow(pool) as conn:
            conn.execute(WRITE)
        with borrow(pool) as conn:
            conn.execute(WRITE)
    finally:
        pool.close()


@pytest.mark.parametrize("option", sorted(WANTED))
def test_the_kernels_own_limits_are_longer(option):
    """Otherwise the settings above would be for nothing, and could be left out."""
    with socket.socket() as plain:
        usual = plain.getsockopt(socket.IPPROTO_TCP, option)
    assert usual == 0 or usual > WANTED[option]
