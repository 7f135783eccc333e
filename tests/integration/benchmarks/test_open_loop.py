"""The generator of requests: every answer at its place, whatever the order and the pieces."""

import asyncio
from threading import Thread

import pytest

from benchmarks import open_loop
from benchmarks.load import LoadError
from benchmarks.open_loop import get, instants, offer


class Server:
    """Answers with the path, in pieces; `/close` closes the connection instead."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever)

    def __enter__(self) -> str:
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        )
        host, port = started.result().sockets[0].getsockname()
        return f"http://{host}:{port}"

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            path = head.split()[1]
            if path == b"/close":
                writer.close()
                return
            status = b"404 Not Found" if path == b"/nothing" else b"200 OK"
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: ")
            await asyncio.sleep(0.001)
            writer.write(b"%d\r\n\r\n" % len(path))
            await asyncio.sleep(0.001)
            writer.write(path)


def test_every_answer_stands_at_the_place_of_its_request(monkeypatch):
    monkeypatch.setattr(open_loop, "CONNECTIONS", 3)
    paths = ["/nothing" if place == 5 else f"/{'x' * place}" for place in range(40)]
    with Server() as address:
        answers = offer(address, [get(path, "h", "key") for path in paths], [0.0] * 40)
    assert answers.body == [path.encode() for path in paths]
    assert [place for place, status in enumerate(answers.status) if status != 200] == [5]
    assert 0 < min(answers.latency_ms) <= max(answers.latency_ms) <= answers.elapsed_s * 1000


def test_a_connection_that_closes_is_no_result():
    with Server() as address, pytest.raises(LoadError, match="closed"):
        offer(address, [get("/close", "h")], [0.0])


def test_instants_come_at_the_rate_on_average_and_the_same_from_a_seed():
    due_s = instants(10_000, 500, seed=1)
    assert due_s == sorted(due_s) == instants(10_000, 500, seed=1)
    assert 19 < due_s[-1] < 21
