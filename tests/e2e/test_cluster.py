"""A RabbitMQ cluster of three nodes: what a device was told is kept is kept, whoever is killed."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aio_pika
import aiomqtt
import mqtt5
import pytest
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from meter_gateway.amqp import AmqpAddress, AmqpReceiver
from meter_gateway.receiver import BrokerAddress
from prepaid.runtime import Account, Folders, RuntimeUnavailableError
from prepaid.runtime.rabbitmq import RabbitCluster
from prepaid.runtime.rabbitmq_packages import resolve_rabbitmq

# The package cannot be had here: the one reason to leave these tests out.
UNAVAILABLE = {"no_debian_tools", "no_debian_mirror", "no_archive_keyring", "apt_failed"}
TOPIC = "pm/v1/m/37000000017/up/{}"
pytestmark = [pytest.mark.timeout(240), pytest.mark.long]


@pytest.fixture(scope="module")
def cluster(open_folder) -> Iterator[RabbitCluster]:
    try:
        binaries = resolve_rabbitmq(Folders.choose(os.environ).cache, os.environ, lambda _: None)
    except RuntimeUnavailableError as error:
        if error.code not in UNAVAILABLE:
            raise
        pytest.skip(f"Debian's rabbitmq-server cannot be had here: {error}")
    folder = open_folder / "rabbitmq"
    folder.mkdir()
    with RabbitCluster(binaries, folder, Account.choose()) as running:
        yield running


@asynccontextmanager
async def consuming(cluster: RabbitCluster, queue: str) -> AsyncIterator[AmqpReceiver]:
    receiver = AmqpReceiver(AmqpAddress.parse(cluster.amqp_url), "test", queue)
    running = asyncio.create_task(receiver.run())
    try:
        await receiver.connected.wait()
        yield receiver
    finally:
        await receiver.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def device(
    cluster: RabbitCluster, place: int = 0, **options
) -> AsyncIterator[aiomqtt.Client]:
    address = BrokerAddress.parse(cluster.mqtt_url_of(place))
    async with aiomqtt.Client(
        address.host, address.port, username=address.username, password=address.password, **options
    ) as client:
        yield client


async def emptied(receiver: AmqpReceiver, count: int) -> list:
    found: list = []
    while len(found) < count:
        taken = await receiver.take(1000, 0.05)
        receiver.acknowledge(taken)
        found += taken
    return found


async def test_what_a_device_says_arrives_as_it_was_said(cluster) -> None:
    cbor = Properties(PacketTypes.PUBLISH)
    cbor.ContentType = "application/cbor"
    async with consuming(cluster, "prepaid.as-said") as receiver:
        async with device(cluster, protocol=aiomqtt.ProtocolVersion.V5) as client:
            await client.publish(TOPIC.format("reading"), b"{}", qos=1)
            await client.publish(TOPIC.format("hello"), b"\xa0", qos=1, properties=cbor)
            await client.publish(TOPIC.format("state"), b"online", qos=1, retain=True)
        async with device(cluster, 1, protocol=aiomqtt.ProtocolVersion.V311) as client:
            await client.publish("pm/v1/g/GW-77/up/batch", b"[]", qos=1)
        found = await emptied(receiver, 4)
    said = {(each.topic, each.payload, each.content_type) for each in found}
    assert said == {
        (TOPIC.format("reading"), b"{}", None),
        (TOPIC.format("hello"), b"\xa0", "application/cbor"),
        (TOPIC.format("state"), b"online", None),
        ("pm/v1/g/GW-77/up/batch", b"[]", None),
    }
    # The flag does not come through AMQP; nothing that is kept is handed out either.
    assert not any(each.retained for each in found)


async def test_a_retained_message_is_not_handed_to_a_later_worker(cluster) -> None:
    async with consuming(cluster, "prepaid.later") as receiver, device(cluster) as client:
        # A marker behind it, so that its absence shows.
        await client.publish(TOPIC.format("event"), b"marker", qos=1)
        found = await emptied(receiver, 1)
    assert [each.payload for each in found] == [b"marker"]


async def test_only_what_the_queue_did_not_hold_back_is_prompt(cluster) -> None:
    queue = "prepaid.prompt"
    async with consuming(cluster, queue):
        pass
    async with device(cluster) as client:
        await client.publish(TOPIC.format("time"), b"old", qos=0)
        await client.publish(TOPIC.format("reading"), b"old", qos=1)
        async with consuming(cluster, queue) as receiver:
            found = await emptied(receiver, 1)
            # Wait until it is quiet: whatever comes then was said just now.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(receiver.take(1, 0), 1.0)
            await client.publish(TOPIC.format("time"), b"new", qos=0)
            found += await emptied(receiver, 1)
    # The old request for the time was dropped, as a broker of MQTT does.
    assert [(each.payload, each.prompt) for each in found] == [(b"old", False), (b"new", True)]


async def test_the_device_is_answered_after_most_nodes_have_its_message(cluster) -> None:
    async with consuming(cluster, "prepaid.most"), device(cluster, 0, timeout=60) as client:
        await client.publish(TOPIC.format("reading"), b"all three", qos=1)
        for node in cluster.nodes[1:]:
            node.freeze()
        try:
            asked = asyncio.create_task(client.publish(TOPIC.format("reading"), b"1", qos=1))
            done, _ = await asyncio.wait({asked}, timeout=3)
            assert not done, "answered, with the message on one node of three"
        finally:
            for node in cluster.nodes[1:]:
                node.thaw()
        await asked


async def test_a_topic_that_no_queue_takes_says_so(cluster) -> None:
    """Before the first worker was there, PUBACK is no promise; MQTT 5 tells the device."""
    address = BrokerAddress.parse(cluster.mqtt_url_of(0))
    reader, writer = await asyncio.open_connection(address.host, address.port)
    password = (address.password or "").encode()
    hello = mqtt5.ConnectPacket("early", username=address.username, password=password)
    said = mqtt5.PublishPacket(
        "nobody/asks", payload=b"1", qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=1
    )
    answers = []
    for packet in (hello, said):
        writer.write(packet.write())
        answers.append(mqtt5.read(memoryview(await reader.read(1000)))[0])
    writer.close()
    await writer.wait_closed()
    assert answers[1].reason_code == mqtt5.PubAckReasonCode.NO_MATCHING_SUBSCRIBERS


async def test_a_message_that_came_back_often_is_not_thrown_away(cluster) -> None:
    """RabbitMQ's own limit is 20; a worker that dies of something else must cost nothing."""
    queue = "prepaid.often"
    async with consuming(cluster, queue), device(cluster) as client:
        await client.publish(TOPIC.format("reading"), b"dear", qos=1)
    for _ in range(22):
        async with consuming(cluster, queue) as receiver:
            assert [each.payload for each in await receiver.take(1, 0)] == [b"dear"]
    async with consuming(cluster, queue) as receiver:
        assert [each.payload for each in await emptied(receiver, 1)] == [b"dear"]


async def test_a_channel_that_the_broker_closes_is_opened_again(cluster) -> None:
    """As after half an hour without an acknowledgement: what was taken comes back."""
    async with consuming(cluster, "prepaid.closed") as receiver, device(cluster) as client:
        await client.publish(TOPIC.format("reading"), b"kept", qos=1)
        first = await receiver.take(1, 0)
        # No such tag: the broker closes the channel, not the connection.
        first[0].connection.acknowledge([5])
        again = await receiver.take(1, 0)
        assert [(each.payload, each.prompt) for each in again] == [(b"kept", False)]
        receiver.acknowledge([*first, *again])


async def test_a_queue_that_was_deleted_is_made_again(cluster) -> None:
    queue = "prepaid.deleted"
    async with consuming(cluster, queue) as receiver, device(cluster) as client:
        opened = await aio_pika.connect(cluster.amqp_url.partition(",")[0])
        async with opened:
            channel = await opened.channel()
            await channel.queue_delete(queue)
            while receiver.connected.is_set():
                await asyncio.sleep(0.01)
        await receiver.connected.wait()
        await client.publish(TOPIC.format("reading"), b"new", qos=1)
        assert [each.payload for each in await emptied(receiver, 1)] == [b"new"]


async def test_a_wrong_password_is_told_and_not_repeated(cluster) -> None:
    node = cluster.nodes[0].ports["amqp"]
    address = AmqpAddress.parse(f"amqp://nobody:password@127.0.0.1:{node}")
    receiver = AmqpReceiver(address, "test", "prepaid.refused")
    with structlog.testing.capture_logs() as said:
        running = asyncio.create_task(receiver.run())
        while not said:
            await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert said[0]["event"] == "broker_unreachable"
    assert ":password@" not in str(said)


async def test_nothing_is_lost_when_nodes_are_killed_under_load(
    cluster, database_url, make_town, make_gateway
) -> None:
    town = make_town(meters=30, readings=80)
    town.found(database_url)
    urls = [cluster.mqtt_url_of(place) for place in range(len(cluster.nodes))]
    workers = [
        make_gateway(
            f"w{place}",
            "killed",
            {
                "PREPAID_DATABASE__URL": database_url,
                "PREPAID_BROKER__URL": cluster.mqtt_url,
                "PREPAID_BROKER__INGEST_URL": cluster.amqp_url,
            },
        )
        for place in range(2)
    ]
    assert [await worker.line() for worker in workers] == ["ready", "ready"]
    turns = asyncio.Semaphore(0)
    began_s = time.monotonic()
    speaking = asyncio.create_task(town.speak(urls, turns))
    # The first node has the queue's leader and both workers' connections.
    for node in cluster.nodes[:2]:
        for _ in range(town.readings // 4):
            turns.release()
        await town.until_stored(database_url, len(town.acknowledged) // 2)
        node.kill()
        killed_s = time.monotonic()
        for _ in range(town.readings // 4):
            turns.release()
        before = len(town.acknowledged)
        while len(town.acknowledged) <= before:
            await asyncio.sleep(0.05)
        print(
            f"\n{node.name}: devices are answered again after {time.monotonic() - killed_s:.1f} s"
        )
        await asyncio.to_thread(node.start)
        print(f"{node.name}: back after {time.monotonic() - killed_s:.1f} s")
    for _ in range(town.readings):
        turns.release()
    await speaking
    await town.until_stored(database_url, town.all)
    elapsed_s = time.monotonic() - began_s
    print(f"{town.all} readings in {elapsed_s:.1f} s, {town.sent_again} connections begun anew")
    town.check(database_url)
    for worker in workers:
        worker.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.process.wait) == 0
