"""The generator of requests: every answer at its place, whatever the order and the pieces."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks import compiled, open_loop
from benchmarks.load import LoadError
from benchmarks.open_loop import OpenLoop, get, instants


@pytest.fixture(params=[compiled.COMPILERS, ()], ids=["C", "Python"])
def asking(request, tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "COMPILERS", request.param)
    return OpenLoop(tmp_path)


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


async def test_every_answer_stands_at_the_place_of_its_request(asking, monkeypatch):
    monkeypatch.setattr(open_loop, "CONNECTIONS", 3)
    paths = ["/nothing" if place == 5 else f"/{'x' * place}" for place in range(40)]
    requests = [get(path, "h", "key") for path in paths]
    async with server() as address:
        answers = await asyncio.to_thread(asking.offer, address, requests, [0.0] * 40)
    assert answers.body == [path.encode() for path in paths]
    assert [place for place, status in enumerate(answers.status) if status != 200] == [5]
    # The whole is told to the microsecond.
    assert 0 < min(answers.latency_ms) <= max(answers.latency_ms) <= answers.elapsed_s * 1e3 + 1e-3


async def test_a_connection_that_closes_is_no_result(asking):
    async with server() as address:
        with pytest.raises(LoadError, match="closed"):
            await asyncio.to_thread(asking.offer, address, [get("/close", "h")], [0.0])


async def test_a_request_without_an_answer_is_no_result(asking, monkeypatch):
    monkeypatch.setattr(open_loop, "LAST_S", 0.2)
    async with server() as address:
        requests = [get("/", "h"), get("/x", "h").removesuffix(b"\r\n")]
        with pytest.raises(LoadError, match="1 requests were not answered"):
            await asyncio.to_thread(asking.offer, address, requests, [0.0, 0.0])


async def test_no_request_goes_out_before_its_instant(asking):
    async with server() as address:
        requests = [get("/x", "h")] * 20
        due_s = [place / 100 for place in range(20)]
        answers = await asyncio.to_thread(asking.offer, address, requests, due_s)
    assert answers.elapsed_s > due_s[-1]
    assert min(answers.latency_ms) > 0


def test_instants_come_at_the_rate_on_average_and_the_same_from_a_seed():
    due_s = instants(10_000, 500, seed=1)
    assert due_s == sorted(due_s) == instants(10_000, 500, seed=1)
    assert 19 < due_s[-1] < 21
