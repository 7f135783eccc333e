"""Workers of one mosquitto that join and leave under load: in order, by force, and for good."""

import asyncio
import json
import os
import signal
import socket

import aiomqtt
import pytest

from meter_gateway.overtaking import session_names
from meter_gateway.receiver import BrokerAddress

GROUP = f"workers-{os.getpid()}"


@pytest.fixture
def share_is_kept(session_is_kept):
    """Whether the broker has any session of a worker."""

    async def look(worker: str) -> bool:
        names = session_names(f"{GROUP}-{worker}")
        return any([await session_is_kept(name) for name in names])

    return look


@pytest.fixture
def make_worker(make_gateway, database_url, broker_url):
    variables = {"PREPAID_DATABASE__URL": database_url, "PREPAID_BROKER__URL": broker_url}

    def make(worker: str, *options: str):
        return make_gateway(f"{GROUP}-{worker}", GROUP, variables, *options)

    return make


@pytest.mark.timeout(240)
async def test_nothing_is_lost_while_workers_come_and_go(
    database_url, broker_url, make_town, make_worker, share_is_kept
) -> None:
    town = make_town(meters=20, readings=120)
    town.found(database_url)
    stays = make_worker("stays")
    assert await stays.line() == "ready"
    turns = asyncio.Semaphore(0)
    speaking = asyncio.create_task(town.speak([broker_url], turns, pause_s=0.03))

    def go_on(places: int) -> None:
        for _ in range(places):
            turns.release()

    # Two join.
    go_on(town.readings // 4)
    leaves, killed = make_worker("leaves", "--ephemeral"), make_worker("killed")
    assert [await leaves.line(), await killed.line()] == ["ready", "ready"]
    # One leaves in order, while more comes.
    go_on(town.readings // 4)
    leaves.process.send_signal(signal.SIGTERM)
    assert await leaves.line() == "left"
    assert not await share_is_kept("leaves")
    # One is killed; it keeps its share, and what it had not acknowledged, until it is back.
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait()
    go_on(town.readings // 4)
    await asyncio.sleep(0.5)
    back = make_worker("killed")
    assert await back.line() == "ready"
    # It is killed again and will not come back: somebody empties its session under its name.
    back.process.send_signal(signal.SIGKILL)
    back.process.wait()
    go_on(town.readings)
    await speaking
    assert await share_is_kept("killed")
    emptying = make_worker("killed", "--leave")
    assert await emptying.line() == "left"
    assert not await share_is_kept("killed")
    await town.until_stored(database_url, town.all)
    town.check(database_url)


@pytest.mark.timeout(120)
async def test_leaving_waits_for_the_database(
    database_url, broker_url, make_town, make_gateway
) -> None:
    """A share is given up when all of it is committed, not when all of it was received."""
    town = make_town(meters=5, readings=20)
    town.found(database_url)
    worker = f"{GROUP}-patient"
    nowhere = database_url.rpartition("/")[0] + "/not_there_yet"
    broker = {"PREPAID_BROKER__URL": broker_url}
    away = {"PREPAID_DATABASE__URL": nowhere, **broker}
    first = make_gateway(worker, worker, away, "--ephemeral")
    assert await first.line() == "ready"
    await town.speak([broker_url])
    first.process.send_signal(signal.SIGTERM)
    line = asyncio.create_task(first.line())
    done, _ = await asyncio.wait({line}, timeout=3)
    assert not done, "it left with messages that are stored nowhere"
    first.process.kill()
    await line
    second = make_gateway(
        worker, worker, {"PREPAID_DATABASE__URL": database_url, **broker}, "--leave"
    )
    assert await second.line() == "left"
    town.check(database_url)


@pytest.mark.timeout(60)
async def test_the_next_node_is_asked_when_one_does_not_answer(
    database_url, broker_url, make_town, make_gateway
) -> None:
    """Both sides: a reading is taken, and its receipt sent, through the node that is there."""
    town = make_town(meters=1, readings=1)
    town.found(database_url)
    broker = BrokerAddress.parse(broker_url)
    nobody = socket.create_server(("127.0.0.1", 0))
    there = f"{broker.host}:{broker.port}"
    urls = f"mqtt://127.0.0.1:{nobody.getsockname()[1]},{there}"
    nobody.close()
    worker = f"{GROUP}-nodes"
    variables = {"PREPAID_DATABASE__URL": database_url, "PREPAID_BROKER__URL": urls}
    process = make_gateway(worker, worker, variables)
    assert await process.line() == "ready"
    number = town.numbers[0]
    topic, payload = town.message(number, 1)
    wants = json.dumps(json.loads(payload) | {"rcpt": True})
    async with aiomqtt.Client(broker.host, broker.port) as client:
        await client.subscribe(f"pm/v1/m/{number}/dn/receipt", qos=1)
        await client.publish(topic, wants, qos=1)
        answer = await anext(aiter(client.messages))
    assert json.loads(bytes(answer.payload))["seq"] == 1


async def test_a_worker_that_never_was_leaves_at_once(make_worker, share_is_kept) -> None:
    worker = make_worker("unknown", "--leave")
    assert await worker.line() == "left"
    assert not await share_is_kept("unknown")
