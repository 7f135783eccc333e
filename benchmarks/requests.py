"""Requests at a fixed rate, each timed from the moment at which it was due.

A client that waits for one answer before it asks again would hide the very delays it should see.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

CONNECTIONS = 32
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request, made when it is sent: a signature holds the time."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answered:
    """`latency_ms` from the due time; `body` as parsed JSON, None where it was none."""

    latency_ms: float
    status: int
    body: object


def send(
    base_url: str, count: int, rate: float, make: Callable[[int], Request]
) -> tuple[list[Answered], float]:
    """The answers of requests 0 to `count` - 1 in their order, and the seconds they took."""
    return asyncio.run(_send(base_url, count, rate, make))


async def _send(
    base_url: str, count: int, rate: float, make: Callable[[int], Request]
) -> tuple[list[Answered], float]:
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    async with httpx.AsyncClient(base_url=base_url, limits=limits, timeout=TIMEOUT_S) as client:
        began = time.perf_counter()

        async def one(place: int) -> Answered:
            due = began + place / rate
            await asyncio.sleep(due - time.perf_counter())
            asked = make(place)
            answer = await client.request(
                asked.method, asked.path, headers=dict(asked.headers), content=asked.body
            )
            latency_ms = (time.perf_counter() - due) * 1000
            is_json = answer.headers.get("content-type", "").endswith("json")
            return Answered(latency_ms, answer.status_code, answer.json() if is_json else None)

        answers = await asyncio.gather(*(one(place) for place in range(count)))
        return answers, time.perf_counter() - began
