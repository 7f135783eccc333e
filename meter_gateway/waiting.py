"""Waiting for one thing unless another comes first."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

_Result = TypeVar("_Result")


async def unless(
    event: asyncio.Event, work: Awaitable[_Result], beside: Sequence["asyncio.Task[None]"] = ()
) -> _Result | None:
    """The result of `work`, or None where the event comes first. Errors: those of `beside`, at
    once: with nothing new coming, nobody would look at them again.
    """
    working = asyncio.ensure_future(work)
    stop = asyncio.create_task(event.wait())
    waited: set[asyncio.Future[Any]] = {working, stop, *beside}
    try:
        while not (working.done() or stop.done()):
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for each in [task for task in beside if task in waited and task.done()]:
                waited.discard(each)
                each.result()
    finally:
        stop.cancel()
        if not working.done():
            working.cancel()
    return working.result() if working.done() else None
