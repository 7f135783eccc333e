"""Streams without a server: what wakes them, what they do while the database is away, their end."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from itertools import count

import pytest

from api.errors import TooManyStreams
from api.streams import EventStream, Stream, Streams
from store.account_events import Event, Page, Place, ReadingTaken
from store.errors import Unavailable


class Account:
    """An account to which readings happen; and a database that may be away."""

    def __init__(self) -> None:
        self.readings: list[int] = []
        self.away = False
        self.allowed = True

    def mark(self) -> Place:
        return Place(1, 0, 0, len(self.readings), "", ())

    def marks(self, accounts: Sequence[int]) -> Mapping[int, Place]:
        if self.away:
            raise Unavailable("for this test")
        return {account: self.mark() for account in accounts}

    def look(self, place: Place | None) -> Page | None:
        if self.away:
            raise Unavailable("for this test")
        if not self.allowed:
            return None
        told = 0 if place is None else place.reading_ms
        events = [
            Event(Place(1, 0, 0, at, "", ()), ReadingTaken("m", at, wh))
            for at, wh in zip(count(told + 1), self.readings[told:], strict=False)
        ]
        return Page(events, self.mark(), self.mark(), more=False)


def written(event: Event) -> bytes:
    assert isinstance(event.happened, ReadingTaken)
    return f"{event.happened.wh};".encode()


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def streams(account: Account) -> Streams:
    return Streams(account.marks, most=2, per_caller=2, poll_s=0.01, heartbeat_s=0.05)


class Reader:
    """Keeps what a stream says but its signs of life."""

    def __init__(self, streams: Streams, account: Account) -> None:
        self.stream: Stream = streams.admit("customer:1", 1, account.mark())
        self.said = b""
        self.comments: set[bytes] = set()
        self.task = asyncio.create_task(self._read(streams, account))
        self._streams = streams

    async def _read(self, streams: Streams, account: Account) -> None:
        async for chunk in streams.told(self.stream, account.look, written):
            if chunk.startswith((b":", b"retry")):
                self.comments.add(chunk.strip())
            else:
                self.said += chunk
        streams.leave(self.stream)

    async def until(self, said: bytes) -> None:
        while self.said != said:
            assert said.startswith(self.said)
            await asyncio.sleep(0.01)


async def test_what_happens_wakes_a_reader_and_comes_once(
    streams: Streams, account: Account
) -> None:
    reader = Reader(streams, account)
    account.readings += [1, 2]
    await reader.until(b"1;2;")
    account.readings.append(3)
    await reader.until(b"1;2;3;")
    streams.end()
    await reader.task


async def test_while_the_database_is_away_a_reader_keeps_his_place(
    streams: Streams, account: Account
) -> None:
    reader = Reader(streams, account)
    account.readings.append(1)
    await reader.until(b"1;")
    account.away = True
    account.readings.append(2)
    while b": the database is away" not in reader.comments:
        await asyncio.sleep(0.01)
    account.away = False
    await reader.until(b"1;2;")
    streams.end()
    await reader.task


async def test_a_reader_who_may_not_any_more_is_let_go_without_news(
    streams: Streams, account: Account
) -> None:
    reader = Reader(streams, account)
    account.allowed = False
    account.readings.append(1)
    await reader.task
    assert reader.said == b""
    assert streams.count == 0


async def test_the_end_of_the_server_ends_every_stream(streams: Streams, account: Account) -> None:
    readers = [Reader(streams, account) for _ in range(2)]
    await asyncio.sleep(0.02)
    streams.end()
    await asyncio.gather(*(reader.task for reader in readers))
    assert streams.count == 0


async def test_a_place_is_free_once_its_response_ended_even_unread(
    streams: Streams, account: Account
) -> None:
    held = [streams.admit("customer:1", 1, None) for _ in range(2)]
    for caller in ("customer:1", "customer:2"):
        with pytest.raises(TooManyStreams):
            streams.admit(caller, 1, None)

    async def gone(message: object) -> None:
        raise OSError("the reader left before the first byte")

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    for stream in held:
        content = streams.told(stream, account.look, written)
        response = EventStream(content, lambda stream=stream: streams.leave(stream))
        scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
        try:
            await response(scope, receive, gone)
        except* OSError:
            pass
    assert streams.count == 0
    again: Iterator[Stream] = (streams.admit("customer:1", 1, None) for _ in range(2))
    assert len(list(again)) == 2
    streams.end()
