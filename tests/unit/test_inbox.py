"""What an inbox hands out, whatever becomes of its connection meanwhile."""

import asyncio
from typing import Any

from meter_gateway.inbox import Delivery, Inbox


def delivery(number: int) -> Delivery:
    nobody: Any = None
    return Delivery("pm/v1/m/37000000017/up/reading", b"{}", None, number, 0, nobody)


async def test_a_connection_lost_while_we_linger_leaves_the_taker_waiting() -> None:
    """An empty batch would be committed, and was: the worker ended of it."""
    inbox = Inbox()
    inbox.add(delivery(1))
    taking = asyncio.create_task(inbox.take(10, 0.01))
    await asyncio.sleep(0)
    inbox.forget()
    await asyncio.wait({taking}, timeout=0.1)
    assert not taking.done()
    again = delivery(1)
    inbox.add(again)
    async with asyncio.timeout(30):
        assert await taking == [again]
