"""What receiving and acknowledging costs, beside the client that the rest of the system uses.

The messages come from a stub of a broker in another process, so the figure is the subscriber's CPU
alone. Ours acknowledges by batch after it was told to; aiomqtt acknowledges each on arrival.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine

import aiomqtt

from benchmarks import population
from benchmarks.measure import Cost, rate_ratios, rotated
from benchmarks.report import Asked, Report, Servers
from meter_gateway.inbox import RECEIVE_MAX
from meter_gateway.ingest import BATCH_MAX, LINGER_S
from meter_gateway.receiver import BrokerAddress, Receiver

# Messages of a repetition, by fleet size: aiomqtt is given less, so that it takes as long.
OURS, THEIRS = 5, 1
HOST = "127.0.0.1"

Subject = Callable[[int, int], Coroutine[None, None, float]]


async def receive(port: int, count: int) -> float:
    """Ours: CPU seconds from the subscription to the last acknowledgement."""
    address = BrokerAddress(HOST, port, tls=None, username=None, password=None)
    receiver = Receiver(address, "bench", "$share/bench/pm/v1/+/+/up/#", 0)
    receiving = asyncio.create_task(receiver.run())
    await receiver.connected.wait()
    began = time.process_time()
    while count:
        taken = await receiver.take(BATCH_MAX, LINGER_S)
        receiver.acknowledge(taken)
        count -= len(taken)
    spent = time.process_time() - began
    await receiver.close()
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    return spent


async def receive_with_aiomqtt(port: int, count: int) -> float:
    """The same with aiomqtt as it comes."""
    client = aiomqtt.Client(HOST, port, protocol=aiomqtt.ProtocolVersion.V5)
    async with client:
        await client.subscribe("pm/v1/+/+/up/#", qos=1)
        began = time.process_time()
        async for _ in client.messages:
            count -= 1
            if count == 0:
                break
        return time.process_time() - began


def run(servers: Servers, asked: Asked) -> Report:
    """CPU of each, and their ratio."""
    subjects: list[tuple[str, int, Subject]] = [
        ("receiver", OURS * asked.meters, receive),
        ("aiomqtt", THEIRS * asked.meters, receive_with_aiomqtt),
    ]
    costs: dict[str, list[Cost]] = {name: [] for name, _, _ in subjects}
    wrong: list[str] = []
    for repetition in range(asked.repetitions):
        for name, count, subject in rotated(subjects, repetition):
            cost, acknowledged = _measure(count, subject)
            costs[name].append(cost)
            if acknowledged != count:
                wrong.append(f"{name}: {acknowledged} of {count}")
            asked.progress(f"{name}: {cost.cpu_us('worker'):.1f} µs ({repetition + 1})")
    report = Report("receiver", {"messages": OURS * asked.meters, "window": RECEIVE_MAX})
    for name, found in costs.items():
        report.add_costs(name, found, "message")
    report.add_ratio("receiver", "aiomqtt", rate_ratios(costs["receiver"], costs["aiomqtt"]))
    report.check("every message was received and acknowledged", wrong)
    return report


def _measure(count: int, subject: Subject) -> tuple[Cost, int]:
    """Cost in CPU time, and how many acknowledgements the stub saw."""
    payload = population.payload(population.FIRST_SLOT + 1).decode()
    stub = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.broker_stub", str(count), str(RECEIVE_MAX), payload],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    with stub:
        assert stub.stdout is not None
        try:
            port = int(stub.stdout.readline())
            spent = asyncio.run(subject(port, count))
            return Cost(count, spent, {"worker": spent}), int(stub.stdout.readline() or 0)
        finally:
            stub.terminate()
