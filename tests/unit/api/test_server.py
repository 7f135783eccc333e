"""How the server listens and writes."""

import asyncio
from typing import Any, cast

import pytest

from api.server import _Gathered, address, listen


def port_of(listener: Any) -> int:
    return int(address(listener).rpartition(":")[2])


def test_a_port_is_shared_by_those_alone_who_say_so() -> None:
    with (
        listen("127.0.0.1", 0, shared=True) as first,
        listen("127.0.0.1", port_of(first), shared=True) as second,
    ):
        assert address(first) == address(second)
        with pytest.raises(OSError, match="in use"):
            listen("127.0.0.1", port_of(first))
    with listen("127.0.0.1", 0) as alone, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", port_of(alone), shared=True)


class Noting:
    """What a transport was told."""

    def __init__(self) -> None:
        self.told: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def close(self) -> None:
        self.told.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.told


def gathered() -> tuple[Noting, _Gathered]:
    noting = Noting()
    return noting, _Gathered(cast(asyncio.Transport, noting), asyncio.get_running_loop())


async def test_what_is_written_in_one_turn_is_written_at_once() -> None:
    noting, transport = gathered()
    transport.write(b"head ")
    transport.write(b"body")
    assert noting.told == []
    await asyncio.sleep(0)
    transport.write(b"next")
    await asyncio.sleep(0)
    assert noting.told == [b"head body", b"next"]


async def test_a_transport_closes_after_what_was_written() -> None:
    noting, transport = gathered()
    transport.write(b"last")
    transport.close()
    assert noting.told == [b"last", "closed"]
    await asyncio.sleep(0)
    assert noting.told == [b"last", "closed"]
    assert transport.is_closing()
