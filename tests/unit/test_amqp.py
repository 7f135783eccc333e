"""The AMQP source without a broker: names, addresses, and what an acknowledgement may say."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter_gateway.amqp import AmqpAddress, _Connection, to_routing_key, to_topic
from schemas.topics import KINDS, UP_FILTER, Topic, build, parse

DEVICES = {"m": ("37000000017", "3700000001753", "600727000000000009"), "g": ("GW-77", "a_B-9")}


@pytest.mark.parametrize(
    "topic",
    [
        Topic(side, device, direction, kind)
        for (side, direction), kinds in KINDS.items()
        for kind in kinds
        for device in DEVICES[side]
    ],
    ids="-".join,
)
def test_every_topic_of_the_contract_comes_back_as_it_was(topic: Topic) -> None:
    text = build(topic)
    assert to_topic(to_routing_key(text)) == text
    assert parse(to_topic(to_routing_key(text))) == topic


def test_the_binding_is_the_filter_of_the_other_source() -> None:
    assert to_routing_key(UP_FILTER) == "pm.v1.*.*.up.#"


@pytest.mark.parametrize(
    ("url", "hosts", "virtual_host"),
    [
        ("amqp://u:p@a", (("a", 5672),), "/"),
        ("amqps://u:p@a", (("a", 5671),), "/"),
        ("amqp://u:p@a:1,b:2,c", (("a", 1), ("b", 2), ("c", 5672)), "/"),
        ("amqp://u:p@a:1/meters", (("a", 1),), "meters"),
        ("amqp://u:p@a:1/%2Fmeters", (("a", 1),), "/meters"),
    ],
)
def test_an_address_names_every_node(url, hosts, virtual_host) -> None:
    address = AmqpAddress.parse(url)
    assert (address.hosts, address.virtual_host) == (hosts, virtual_host)
    assert (address.username, address.password) == ("u", "p")
    assert (address.tls is not None) == url.startswith("amqps")


def test_a_password_may_hold_any_letter_and_is_not_shown() -> None:
    password = "s%40lt%3A%2C"
    address = AmqpAddress.parse(f"amqp://u:{password}@a:1,b:2")
    assert address.password == "s@lt:,"
    assert "s@lt" not in repr(address)


@pytest.mark.parametrize("url", ["mqtt://hidden@a", "amqp://", "amqp://u:hidden@a:x", "amqp:a"])
def test_a_bad_address_is_refused_without_being_repeated(url) -> None:
    with pytest.raises(ValueError, match="broker's URL") as refusal:
        AmqpAddress.parse(url)
    assert "hidden" not in str(refusal.value)


class Channel:
    """The broker's side of acknowledging, as RabbitMQ has it: an unknown tag ends the channel."""

    def __init__(self, delivered: int) -> None:
        self.waiting = set(range(1, delivered + 1))
        self.frames = 0

    async def get_underlay_channel(self) -> "Channel":
        return self

    async def basic_ack(self, tag: int, *, multiple: bool) -> None:
        assert tag in self.waiting, "unknown delivery tag"
        self.frames += 1
        self.waiting -= {each for each in self.waiting if each == tag or (multiple and each < tag)}


@given(st.data())
def test_nothing_is_acknowledged_that_was_not_committed(data) -> None:
    """In whatever order batches are committed, the broker forgets exactly what they held."""
    tags = data.draw(st.permutations(range(1, data.draw(st.integers(1, 30)) + 1)))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(tags)))) | {len(tags)})

    async def acknowledge() -> None:
        channel = Channel(len(tags))
        connection = _Connection(None, channel)  # type: ignore[arg-type]
        committed: set[int] = set()
        begin = 0
        for end in cuts:
            batch = tags[begin:end]
            begin = end
            connection.acknowledge(batch)
            await connection.close()
            connection.lost.clear()
            committed |= set(batch)
            assert channel.waiting == set(range(1, len(tags) + 1)) - committed

    asyncio.run(acknowledge())


async def test_a_batch_in_order_is_one_frame() -> None:
    channel = Channel(8000)
    connection = _Connection(None, channel)  # type: ignore[arg-type]
    connection.acknowledge(range(1, 4001))
    connection.acknowledge(range(4001, 8001))
    await connection.close()
    assert (channel.frames, channel.waiting) == (2, set())
