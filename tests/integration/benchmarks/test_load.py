"""Both load generators: every message arrives as prepared, is counted and stamped."""

import asyncio
import secrets
import time

import aiomqtt
import pytest

from benchmarks import compiled
from benchmarks.load import Load, LoadError
from meter_gateway.receiver import BrokerAddress


@pytest.mark.parametrize("compilers", [compiled.COMPILERS, ()], ids=["C", "Python"])
@pytest.mark.parametrize("rate", [0, 400], ids=["flat out", "paced"])
async def test_every_message_arrives_as_prepared(
    broker_url, tmp_path, monkeypatch, compilers, rate
):
    monkeypatch.setattr(compiled, "COMPILERS", compilers)
    prefix = f"bench/{secrets.token_hex(4)}"
    messages = [(f"{prefix}/{n}", b"x" * (n * 7)) for n in range(80)]
    address = BrokerAddress.parse(broker_url)
    async with aiomqtt.Client(address.host, address.port) as client:
        await client.subscribe(f"{prefix}/#", qos=1)
        began_ns = time.time_ns()
        generator = Load(broker_url, tmp_path)
        publishing = generator.publish(generator.prepare(messages), len(messages), rate=rate)
        sent = await asyncio.to_thread(publishing.finish)
        arrived = {}
        async with asyncio.timeout(10):
            async for message in client.messages:
                arrived[message.topic.value] = message.payload
                if len(arrived) == len(messages):
                    break
    assert arrived == dict(messages)
    assert (sent.messages, len(sent.stamps_ns)) == (80, 80)
    assert sorted(sent.stamps_ns) == list(sent.stamps_ns)
    assert began_ns < sent.stamps_ns[0] <= sent.stamps_ns[-1] < time.time_ns()
    if rate:
        assert sent.elapsed_s >= 79 / rate


@pytest.mark.parametrize("compilers", [compiled.COMPILERS, ()], ids=["C", "Python"])
def test_a_load_that_cannot_be_made_says_why(tmp_path, monkeypatch, compilers):
    monkeypatch.setattr(compiled, "COMPILERS", compilers)
    generator = Load("mqtt://127.0.0.1:1", tmp_path)
    publishing = generator.publish(generator.prepare([("t", b"x")]), 1)
    with pytest.raises(LoadError, match=r"(?i)refused"):
        publishing.finish()
