"""A wire to a server that can be cut, dropped or held: what happens between two machines."""

import asyncio
import contextlib

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 65_536


class Wire:
    """Forwards TCP connections from a port of its own to `host`:`port`.

    `open` listens, at the second time on the same port; `drop` ends all connections without a word;
    `cut` drops and listens no more; between `hold` and `release` nothing goes up to the server, and
    with `both` nothing comes down, and neither end is told: half-open. What is on its way takes
    `delay_s` longer, each way.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._forwarding: set[asyncio.Task[None]] = set()
        # One for what goes up to the server, one for what comes down.
        self._flowing = {True: asyncio.Event(), False: asyncio.Event()}
        self.release()
        self.delay_s = 0.0
        self.port = 0
        self.held_bytes = 0

    async def open(self) -> None:
        """Errors: OSError, when somebody took the port meanwhile."""
        if self._server is None:
            self._server = await asyncio.start_server(self._forward, LOOPBACK, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    def drop(self) -> None:
        """Both ends see the connection end, as when a cable is pulled."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def cut(self) -> None:
        """As `drop`, and whoever comes is refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drop()

    def hold(self, *, both: bool = False) -> None:
        """What is sent to the server waits here; what it sends goes through, unless `both`."""
        self._flowing[True].clear()
        if both:
            self._flowing[False].clear()
        self.held_bytes = 0

    def release(self) -> None:
        """What waits goes on."""
        for flowing in self._flowing.values():
            flowing.set()

    async def close(self) -> None:
        """Cut for good; its connections have ended when this returns."""
        self.cut()
        self.release()
        if self._forwarding:
            await asyncio.wait(self._forwarding)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "the server runs each connection as a task"
        self._forwarding.add(task)
        mine = {writer}
        self._writers |= mine
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            mine.add(far_writer)
            self._writers |= mine
            await asyncio.gather(
                self._pump(reader, far_writer, up=True), self._pump(far_reader, writer, up=False)
            )
        except OSError:
            # Nobody listens there: the one who came sees the end of his connection.
            writer.transport.abort()
        finally:
            self._writers -= mine
            self._forwarding.discard(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        # A connection that was dropped has nothing more to say: that is what the wire is for.
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if not self._flowing[up].is_set():
                    self.held_bytes += len(data)
                    await self._flowing[up].wait()
                writer.write(data)
                await writer.drain()
        writer.close()
