"""A worker that cannot give its share up says so: its session would wait for nobody."""

import asyncio
import time

import pytest

from meter_gateway import gateway
from meter_gateway.gateway import Gateway, GatewaySettings
from schemas.errors import DomainError


def settings(**changed) -> GatewaySettings:
    return GatewaySettings(
        **{
            "database_url": "postgresql://127.0.0.1:1/nobody",
            "broker_url": "mqtt://127.0.0.1:1",
            "name": "gone",
            "now_ms": lambda: time.time_ns() // 1_000_000,
        }
        | changed
    )


async def test_a_share_that_could_not_be_emptied_is_told_with_what_to_do(monkeypatch):
    monkeypatch.setattr(gateway, "LEAVE_DEADLINE_S", 0.5)
    stopping = asyncio.Event()
    stopping.set()
    with pytest.raises(DomainError, match="prepaid gateway --name gone --leave") as refusal:
        await Gateway(settings(ephemeral=True, leaving=True)).run(stopping)
    assert refusal.value.code == "share_left_behind"


async def test_a_worker_that_keeps_its_share_ends_without_the_broker():
    stopping = asyncio.Event()
    stopping.set()
    await Gateway(settings()).run(stopping)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "amqp:", "mqtt:"])
async def test_an_address_of_no_known_kind_ends_the_start(url):
    with pytest.raises(ValueError, match="URL is"):
        await Gateway(settings(ingest_url=url)).run(asyncio.Event())
