"""Event streams of this process: how many may be open, who wakes them, and how they end.

One task asks the database once a second for the marks of every account that is watched, with one
connection for one query, and wakes the streams whose account moved. A stream borrows a connection
for as long as it reads what happened and has given it back before it sends: a slow reader holds
none. Why a poll and no NOTIFY: ADR 0016.

Pressure: bounds on streams, of the process and of each caller, refuse the next one; a reader that
takes nothing for SEND_S is left; a stream ends after LIFE_S, and its reader comes again where he
was.
All of it runs in the event loop's thread, so nothing is locked.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from api.errors import TooManyStreams
from store.account_events import Event, Page, Place
from store.errors import Unavailable

# A reader that comes again is at another process, or behind a balancer that was changed meanwhile.
LIFE_S = 3600
SEND_S = 30
RETRY_AFTER_S = 30
# What a reader waits before it comes again when the connection breaks.
RECONNECT_MS = 3000

_log = structlog.stdlib.get_logger("api")


@dataclass(eq=False, slots=True)
class Stream:
    """One reader of one account."""

    caller: str
    account_id: int
    place: Place | None
    mark: Place | None = None
    moved: asyncio.Event = field(default_factory=asyncio.Event)


class Streams:
    """The streams of one application; `marks` reads how far accounts are."""

    def __init__(
        self,
        marks: Callable[[Sequence[int]], Mapping[int, Place]],
        *,
        most: int,
        per_caller: int,
        poll_s: float,
        heartbeat_s: float,
    ) -> None:
        self._marks = marks
        self._most = most
        self._per_caller = per_caller
        self._poll_s = poll_s
        self._heartbeat_s = heartbeat_s
        self._open: set[Stream] = set()
        self._callers: Counter[str] = Counter()
        self._watch: asyncio.Task[None] | None = None
        self._ended = False

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    def admit(self, caller: str, account_id: int, place: Place | None) -> Stream:
        """A place for one more reader. Errors: TooManyStreams."""
        if self._callers[caller] >= self._per_caller:
            raise TooManyStreams(RETRY_AFTER_S, f"You have {self._per_caller} streams open")
        if len(self._open) >= self._most:
            raise TooManyStreams(RETRY_AFTER_S, "All streams of this server are in use")
        stream = Stream(caller, account_id, place)
        self._open.add(stream)
        self._callers[caller] += 1
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watching(), name="account_marks")
        return stream

    def end(self) -> None:
        """The server ends: every stream does, as soon as it looks up."""
        self._ended = True
        for stream in self._open:
            stream.moved.set()

    async def told(
        self,
        stream: Stream,
        look: Callable[[Place | None], Page | None],
        written: Callable[[Event], bytes],
    ) -> AsyncIterator[bytes]:
        """What a reader is sent. `look` gives what happened beyond a place, None once the reader
        may not see it any more: then the stream ends.
        """
        ends_s = time.monotonic() + LIFE_S
        yield f"retry: {RECONNECT_MS}\n\n".encode()
        while not self._ended and time.monotonic() < ends_s:
            stream.moved.clear()
            try:
                page = await run_in_threadpool(look, stream.place)
            except Unavailable:
                # The reader keeps his place: what happens meanwhile is told when it is back.
                await self._quiet(stream)
                yield b": the database is away\n\n"
                continue
            if page is None:
                return
            if page.events:
                yield b"".join(map(written, page.events))
            stream.place, stream.mark = page.place, page.mark
            if not page.more and not await self._quiet(stream):
                yield b": alive\n\n"

    async def _quiet(self, stream: Stream) -> bool:
        """Wait for news, at most a heartbeat; whether there are any."""
        if self._ended:
            return True
        try:
            async with asyncio.timeout(self._heartbeat_s):
                await stream.moved.wait()
        except TimeoutError:
            return False
        return True

    def leave(self, stream: Stream) -> None:
        """Its reader is gone; a repeat changes nothing."""
        if stream not in self._open:
            return
        self._open.remove(stream)
        self._callers[stream.caller] -= 1
        if not self._callers[stream.caller]:
            del self._callers[stream.caller]

    async def _watching(self) -> None:
        """Wakes streams whose account moved; ends with the last of them."""
        away = False
        while self._open and not self._ended:
            accounts = sorted({stream.account_id for stream in self._open})
            try:
                found = await run_in_threadpool(self._marks, accounts)
            except Unavailable as error:
                if not away:
                    _log.warning("streams_wait", cause=str(error))
                away = True
            except Exception:
                # A defect must not leave every reader without news for ever: it is tried again.
                _log.exception("streams_failed")
                away = True
            else:
                away = False
                for stream in self._open:
                    mark = found.get(stream.account_id)
                    if stream.mark is not None and mark != stream.mark:
                        stream.moved.set()
            await asyncio.sleep(self._poll_s)


class EventStream(StreamingResponse):
    """Server-sent events; a reader that takes nothing for SEND_S is left. `ended` is told once the
    reader is gone, however he went.
    """

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[bytes], ended: Callable[[], None]) -> None:
        super().__init__(content)
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()

    async def stream_response(self, send: Send) -> None:
        async def patiently(message: Message) -> None:
            async with asyncio.timeout(SEND_S):
                await send(message)

        try:
            await super().stream_response(patiently)
        except TimeoutError:
            _log.info("stream_left", seconds=SEND_S)
