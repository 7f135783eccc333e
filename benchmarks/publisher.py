"""load_generator.c in Python, for hosts without a compiler and brokers that ask for a name or TLS.

`python -m benchmarks.publisher`, with the same arguments and output; the broker is that of
PREPAID_BROKER__URL. It costs some ten times as much, which its own CPU figure shows.
"""

import array
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import mqtt5

from meter_gateway.receiver import BrokerAddress

TICK_S = 0.001
GIVE_UP_S = 120.0
READ_OCTETS = 1 << 16


def read_messages(path: Path, first: int, count: int) -> list[tuple[str, bytes]]:
    """Records as load_generator.c describes them."""
    data = path.read_bytes()
    found: list[tuple[str, bytes]] = []
    at = 0
    while at < len(data) and len(found) < first + count:
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        topic = data[at + 2 : end].decode()
        at = end + 4 + int.from_bytes(data[end : end + 4], "big")
        found.append((topic, data[end + 4 : at]))
    return found[first:]


class Connection:
    """One connection with its window."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._packet_id = 0
        self.unacknowledged = 0
        self.acknowledged = 0

    @classmethod
    async def open(cls, address: BrokerAddress, name: str) -> "Connection":
        context = None if address.tls is None else address.tls.context()
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
        password = None if address.password is None else address.password.encode()
        hello = mqtt5.ConnectPacket(
            name, username=address.username, password=password, clean_start=True, keep_alive=600
        )
        writer.write(hello.write())
        answer, _ = mqtt5.read(memoryview(await reader.read(READ_OCTETS)))
        assert isinstance(answer, mqtt5.ConnAckPacket), answer
        assert answer.reason_code == mqtt5.ConnAckReasonCode.SUCCESS, answer
        return cls(reader, writer)

    def send(self, topic: str, payload: bytes) -> None:
        self._packet_id = self._packet_id % 65535 + 1
        packet = mqtt5.PublishPacket(
            topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=self._packet_id
        )
        self.writer.write(packet.write())
        self.unacknowledged += 1

    async def close(self) -> None:
        self.writer.write(mqtt5.DisconnectPacket().write())
        self.writer.close()
        await self.writer.wait_closed()

    async def count(self) -> None:
        """Take acknowledgements until cancelled."""
        buffer = b""
        while True:
            buffer += await self._reader.read(READ_OCTETS)
            at = 0
            while at < len(buffer):
                try:
                    packet, used = mqtt5.read(memoryview(buffer)[at:])
                except IndexError:
                    break
                at += used
                if isinstance(packet, mqtt5.PubAckPacket):
                    self.acknowledged += 1
                    self.unacknowledged -= 1
            buffer = buffer[at:]


def forget_session(address: BrokerAddress, client_id: str) -> None:
    """End a persistent session, or the broker would keep messages for nobody."""

    async def begin_anew() -> None:
        connection = await Connection.open(address, client_id)
        await connection.close()

    asyncio.run(begin_anew())


async def publish(
    address: BrokerAddress,
    messages: Sequence[tuple[str, bytes]],
    rate: float,
    connections: int,
    window: int,
) -> "tuple[array.array[int], int, float]":
    """Stamps, messages acknowledged, seconds."""
    named = f"load-{os.getpid()}"
    opened = [await Connection.open(address, f"{named}-{i}") for i in range(connections)]
    counting = [asyncio.create_task(each.count()) for each in opened]
    stamps = array.array("q", bytes(8 * len(messages)))
    began = moved = time.monotonic()
    sent = had = 0
    while (acknowledged := sum(each.acknowledged for each in opened)) < len(messages):
        now = time.monotonic()
        moved, had = (now, acknowledged) if acknowledged > had else (moved, had)
        if now - moved > GIVE_UP_S or any(task.done() for task in counting):
            break
        due = min(len(messages), int((now - began) * rate)) if rate else len(messages)
        while sent < due and opened[sent % connections].unacknowledged < window:
            stamps[sent] = time.time_ns()
            opened[sent % connections].send(*messages[sent])
            sent += 1
        await asyncio.sleep(TICK_S)
    elapsed = time.monotonic() - began
    for task in counting:
        task.cancel()
    await asyncio.gather(*counting, return_exceptions=True)
    for each in opened:
        await each.close()
    return stamps, acknowledged, elapsed


def main() -> int:
    path, first, count, rate, connections, window, *stamped = sys.argv[3:]
    messages = read_messages(Path(path), int(first), int(count))
    address = BrokerAddress.parse(os.environ["PREPAID_BROKER__URL"])
    stamps, acknowledged, elapsed_s = asyncio.run(
        publish(address, messages, float(rate), int(connections), int(window))
    )
    if stamped:
        Path(stamped[0]).write_bytes(stamps.tobytes())
    said = {
        "sent": len(messages),
        "acknowledged": acknowledged,
        "elapsed_s": elapsed_s,
        "cpu_s": time.process_time(),
    }
    sys.stdout.write(json.dumps(said) + "\n")
    return 0 if acknowledged == len(messages) else 1


if __name__ == "__main__":
    sys.exit(main())
