"""Serves the application until it is told to stop; requests under way are answered first."""

import asyncio
import gc
import signal
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from api.dependencies import Surroundings
from api.edge import WHOLE

# Longer than the longest statement of the database; then the process ends all the same.
GRACE_S = 12
BACKLOG = 1024
# A request's objects go with it; what stays, terms and routes, is many and need not be looked
# through for them at every turn: all of it at once takes longer than ten answers.
COLLECT = (50_000, 50, 100)


def run(
    app: FastAPI,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    announce: Callable[[str], None],
    trusted_proxies: str = "",
    share_port: bool = False,
) -> None:
    """Listen on `host` and `port` (0: any free one) and `announce` the address; returns after
    SIGTERM or SIGINT, once the requests under way are answered. `trusted_proxies`: addresses, by
    commas, whose X-Forwarded-For names the caller. `share_port`: with other processes that say so.
    Errors: OSError, the port is taken.
    """
    serving = server(app, trusted_proxies)

    def end(_number: int, _frame: FrameType | None) -> None:
        # Heard before uvicorn listens for it, and once more when all is closed: it says so again.
        serving.should_exit = True

    before = {each: signal.signal(each, end) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        with listen(host, port, shared=share_port) as listener:
            gc.freeze()
            gc.set_threshold(*COLLECT)
            announce(address(listener))
            serving.run(sockets=[listener])
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A listening socket: from here on callers wait instead of being refused.

    `shared`: the kernel deals out connections among all who listen on the port so; only processes
    of one account of the operating system can.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=shared)


def address(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server(app: FastAPI, trusted_proxies: str = "") -> uvicorn.Server:
    """A server that stops when its `should_exit` is set or, in a main thread, by a signal."""
    return _Server(
        uvicorn.Config(
            app,
            # The loop and the parser that are written in C: with the others the bytes of a request
            # cost more than its answer.
            loop="auto",
            http=_OneWrite,
            # One log line per request is ours, with its id and without paths.
            access_log=False,
            log_config=None,
            # Anybody can write X-Forwarded-For: only a proxy that is named here is believed.
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=trusted_proxies or "",
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
    )


class _OneWrite(HttpToolsProtocol):
    """Head and body of an answer in one write: each costs the caller's wakening, too."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        gathered = _Gathered(cast(asyncio.Transport, transport), self.loop)
        super().connection_made(cast(asyncio.Transport, gathered))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cast(dict[str, Any], cycle.scope)["extensions"] = {WHOLE: partial(_send_whole, cycle)}
        super()._start_asgi_task(cycle, app)


def _send_whole(cycle: RequestResponseCycle, head: bytes, body: bytes) -> bool:
    """Answer 200 in one piece; what `RequestResponseCycle.send` does for head and body, without
    looking through headers that are ours. `head`: lines of headers. False: not now.
    """
    if cycle.response_started or cycle.flow.write_paused:
        return False
    if cycle.disconnected:
        return True
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    parts = [STATUS_LINE[200]]
    for name, value in cycle.default_headers:
        parts += (name, b": ", value, b"\r\n")
    if not cycle.keep_alive:
        parts.append(b"connection: close\r\n")
    parts += (head, b"content-length: %d\r\n\r\n" % len(body), body)
    cast(_Gathered, cycle.transport).write_now(b"".join(parts))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


class _Gathered:
    """A transport that writes what it is given within one turn of the event loop at its end."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def write_now(self, data: bytes) -> None:
        self._flush()
        self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Server(uvicorn.Server):
    """Ends event streams as it ends: they would keep it waiting for as long as it is patient."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self.config.app
        assert isinstance(app, FastAPI), "given by server()"
        around = app.state.surroundings
        assert isinstance(around, Surroundings), "create_app puts it there"
        around.streams.end()
        await super().shutdown(sockets)
