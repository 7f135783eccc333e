"""Requests at instants that no answer delays, over connections that stay, as cheap as they can be.

A client library would cost more than the server that is measured. Requests are bytes made before;
answers are kept as they come and judged afterwards. A C program sends them, or, without a compiler,
Python.
"""

import asyncio
import json
import math
import random
import re
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from struct import Struct
from urllib.parse import urlsplit

from benchmarks.compiled import compiled
from benchmarks.load import LoadError

# More than are ever under way at once while the server keeps up.
CONNECTIONS = 64
# What is not answered so long after the last request was due is lost.
LAST_S = 30.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
# What stands before a request and before an answer in the files of open_loop.c.
_REQUEST, _ANSWER = Struct("<qI"), Struct("<qII")


@dataclass(slots=True)
class Answers:
    """By the place of the request; `latency_ms` counts from the instant at which it was due.
    `cpu_s`: what it took to ask.
    """

    latency_ms: list[float]
    status: list[int]
    body: list[bytes]
    elapsed_s: float = 0.0
    cpu_s: float = 0.0


def get(path: str, host: str, access_key: str | None = None) -> bytes:
    """The bytes of a GET request."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Accept: application/json"]
    if access_key is not None:
        lines.append(f"Authorization: Bearer {access_key}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def instants(count: int, rate: float, seed: int) -> list[float]:
    """Seconds from the beginning: independent callers, `rate` a second on average."""
    chance = random.Random(seed)
    at, found = 0.0, []
    for _ in range(count):
        at += -math.log(1.0 - chance.random()) / rate
        found.append(at)
    return found


class OpenLoop:
    """Asks; `folder` is its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def kind(self) -> str:
        """`C`, or `Python` where no compiler is here."""
        return "C" if self._program is not None else "Python"

    @cached_property
    def _program(self) -> Path | None:
        return compiled("open_loop", self._folder)

    def offer(self, address: str, requests: Sequence[bytes], due_s: Sequence[float]) -> Answers:
        """The answers to requests, each sent at its instant or, when every connection waits for an
        answer, as soon as one is free. Errors: LoadError, some were not answered.
        """
        if self._program is not None:
            return self._run(self._program, address, requests, due_s)
        before_s = time.process_time()
        answers = asyncio.run(_offer(address, requests, due_s))
        answers.cpu_s = time.process_time() - before_s
        return answers

    def _run(
        self, program: Path, address: str, requests: Sequence[bytes], due_s: Sequence[float]
    ) -> Answers:
        url = urlsplit(address)
        asked, answered = self._folder / "requests", self._folder / "answers"
        with asked.open("wb") as file:
            for request, due in zip(requests, due_s, strict=True):
                file.write(_REQUEST.pack(int(due * 1e9), len(request)) + request)
        numbers = [len(requests), min(CONNECTIONS, len(requests)), LAST_S]
        made = subprocess.run(
            [program, str(url.hostname), str(url.port), asked, *map(str, numbers), answered],
            check=False,
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            raise LoadError("not_answered", made.stderr.strip()[-300:])
        said = json.loads(made.stdout)
        if said["missing"]:
            raise LoadError("not_answered", f"{said['missing']} requests were not answered.")
        answers = Answers([], [], [], said["elapsed_s"], said["cpu_s"])
        octets, at = answered.read_bytes(), 0
        for _ in requests:
            took_ns, status, length = _ANSWER.unpack_from(octets, at)
            at += _ANSWER.size + length
            answers.latency_ms.append(took_ns / 1e6)
            answers.status.append(status)
            answers.body.append(octets[at - length : at])
        return answers


async def _offer(address: str, requests: Sequence[bytes], due_s: Sequence[float]) -> Answers:
    loop = asyncio.get_running_loop()
    url = urlsplit(address)
    assert url.hostname is not None, "an address of ours"
    assert url.port is not None, "an address of ours"
    run = _Run(requests, due_s, loop.create_future())
    made = [
        await loop.create_connection(lambda: _Connection(run), url.hostname, url.port)
        for _ in range(min(CONNECTIONS, len(requests)))
    ]
    try:
        run.begin()
        await asyncio.wait_for(run.done, due_s[-1] + LAST_S)
    except TimeoutError:
        raise LoadError("not_answered", f"{run.missing} requests were not answered.") from None
    finally:
        for transport, _ in made:
            transport.close()
    return run.answers


@dataclass(slots=True)
class _Run:
    requests: Sequence[bytes]
    due_s: Sequence[float]
    done: asyncio.Future[None]
    answers: Answers = field(init=False)
    missing: int = field(init=False)
    # The longest idle first: a server ends connections that lie idle.
    _free: deque["_Connection"] = field(default_factory=deque)
    _waiting: deque[int] = field(default_factory=deque)
    _began: float = 0.0
    _next: int = 0

    def __post_init__(self) -> None:
        self.missing = count = len(self.requests)
        self.answers = Answers([0.0] * count, [0] * count, [b""] * count)

    def begin(self) -> None:
        self._began = time.perf_counter()
        self._send_due()

    def _send_due(self) -> None:
        now_s = time.perf_counter() - self._began
        while self._next < len(self.due_s) and self.due_s[self._next] <= now_s:
            if self._free:
                self._free.popleft().send(self._next)
            else:
                self._waiting.append(self._next)
            self._next += 1
        if self._next < len(self.due_s):
            wait_s = self.due_s[self._next] - now_s
            asyncio.get_running_loop().call_later(wait_s, self._send_due)

    def free(self, connection: "_Connection") -> None:
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._free.append(connection)

    def answered(self, place: int, status: int, body: bytes) -> None:
        elapsed_s = time.perf_counter() - self._began
        answers = self.answers
        answers.latency_ms[place] = (elapsed_s - self.due_s[place]) * 1000
        answers.status[place] = status
        answers.body[place] = body
        self.missing -= 1
        if not self.missing and not self.done.done():
            answers.elapsed_s = elapsed_s
            self.done.set_result(None)


class _Connection(asyncio.Protocol):
    """One request at a time; an answer has a length."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._place: int | None = None
        self._taken = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "TCP"
        self._transport = transport
        self._run.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._run.done.done():
            self._run.done.set_exception(LoadError("not_answered", "A connection was closed."))

    def send(self, place: int) -> None:
        self._place = place
        self._transport.write(self._run.requests[place])

    def data_received(self, data: bytes) -> None:
        taken = self._taken = self._taken + data if self._taken else data
        head = taken.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(taken, 0, head)
        if length is None:
            self._transport.abort()
            return
        if len(taken) < head + 4 + int(length[1]):
            return
        self._taken = b""
        assert self._place is not None, "a server answers what it was asked"
        self._run.answered(self._place, int(taken[9:12]), taken[head + 4 :])
        self._run.free(self)
