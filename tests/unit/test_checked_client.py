"""Sockets that close between two turns of the loop, under the client that publishes."""

import asyncio
import socket

import pytest

from meter_gateway.checked_client import CheckedClient


@pytest.mark.parametrize("broken", [False, True])
async def test_only_a_socket_that_is_still_open_is_watched_for_writing(broken: bool) -> None:
    client, loop = CheckedClient("localhost"), asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    number = ours.fileno()
    client._on_socket_register_write(client._client, None, ours)
    if broken:
        ours.close()
        ours, spare = socket.socketpair()
        spare.close()
        assert ours.fileno() == number  # the next connection's
    for _ in range(2):
        await asyncio.sleep(0)
    assert loop.remove_writer(number) is not broken
    ours.close()
    theirs.close()
