"""The generator of requests: every answer at its place, whatever the order and the pieces."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks import open_loop
from benchmarks.load import LoadError
from benchmarks.open_loop import get, instants, offer


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with the path, in pieces; `/close` closes the connection instead."""
    with contextlib.suppress(asyncio.IncompleteReadError), contextlib.closing(writer):
        while (path := (await reader.readuntil(b"\r\n\r\n")).split()[1]) != b"/close":
            status = b"404 Not Found" if path == b"/nothing" else b"200 OK"
            for piece in (
                b"HTTP/1.1 " + status + b"\r\nContent-Length: ",
                b"%d\r\n\r\n" % len(path),
                path,
            ):
                writer.write(piece)
                await asyncio.sleep(0.001)


@asynccontextmanager
async def server() -> AsyncIterator[str]:
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        host, port = listening.sockets[0].getsockname()
        yield f"http://{host}:{port}"


async def test_every_answer_stands_at_the_place_of_its_request(monkeypatch):
    monkeypatch.setattr(open_loop, "CONNECTIONS", 3)
    paths = ["/nothing" if place == 5 else f"/{'x' * place}" for place in range(40)]
    requests = [get(path, "h", "key") for path in paths]
    async with server() as address:
        answers = await asyncio.to_thread(offer, address, requests, [0.0] * 40)
    assert answers.body == [path.encode() for path in paths]
    assert [place for place, status in enumerate(answers.status) if status != 200] == [5]
    assert 0 < min(answers.latency_ms) <= max(answers.latency_ms) <= answers.elapsed_s * 1000


async def test_a_connection_that_closes_is_no_result():
    async with server() as address:
        with pytest.raises(LoadError, match="closed"):
            await asyncio.to_thread(offer, address, [get("/close", "h")], [0.0])


def test_instants_come_at_the_rate_on_average_and_the_same_from_a_seed():
    due_s = instants(10_000, 500, seed=1)
    assert due_s == sorted(due_s) == instants(10_000, 500, seed=1)
    assert 19 < due_s[-1] < 21
