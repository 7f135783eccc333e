"""Just enough of a broker to feed one subscriber as fast as it can take: MQTT 5, QoS 1, a window.

`python -m benchmarks.broker_stub COUNT WINDOW PAYLOAD`: prints its port; after the SUBSCRIBE it
sends COUNT messages of a meter, at most WINDOW unacknowledged, and prints the acknowledged.
"""

import asyncio
import sys

import mqtt5

TOPIC = "pm/v1/m/00000000001/up/reading"
CONNACK = bytes([0x20, 3, 0, 0, 0])
AT_ONCE = 500


class Subscriber:
    """The one connection."""

    def __init__(self, count: int, window: int, payload: bytes) -> None:
        self._count = count
        self._window = window
        self._sent = self.acknowledged = 0
        topic = TOPIC.encode()
        # What stands before and after the packet identifier; no properties.
        self._after = b"\x00" + payload
        length = 2 + len(topic) + 2 + len(self._after)
        assert 128 <= length < 16_384, "two octets of remaining length"
        head = bytes([0x32, length & 127 | 128, length >> 7])
        self._before = head + len(topic).to_bytes(2, "big") + topic
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        buffer = b""
        subscribed = False
        while data := await reader.read(1 << 16):
            buffer += data
            at = 0
            while at < len(buffer):
                try:
                    packet, used = mqtt5.read(memoryview(buffer)[at:])
                except IndexError:
                    break
                at += used
                if isinstance(packet, mqtt5.PubAckPacket):
                    self.acknowledged += 1
                elif isinstance(packet, mqtt5.ConnectPacket):
                    writer.write(CONNACK)
                elif isinstance(packet, mqtt5.SubscribePacket):
                    identifier = packet.packet_id.to_bytes(2, "big")
                    writer.write(b"\x90\x04" + identifier + b"\x00\x01")
                    subscribed = True
            buffer = buffer[at:]
            if subscribed:
                self._send(writer)
            if self.acknowledged == self._count:
                break
        # The subscriber ends the connection when it has counted them all.
        await reader.read()
        writer.close()
        self.ended.set()

    def _send(self, writer: asyncio.StreamWriter) -> None:
        allowed = min(self._window - (self._sent - self.acknowledged), self._count - self._sent)
        for first in range(self._sent, self._sent + allowed, AT_ONCE):
            last = min(first + AT_ONCE, self._sent + allowed)
            identifiers = (place % 65_535 + 1 for place in range(first, last))
            writer.write(
                b"".join(
                    self._before + each.to_bytes(2, "big") + self._after for each in identifiers
                )
            )
        self._sent += allowed


async def main(count: int, window: int, payload: bytes) -> None:
    subscriber = Subscriber(count, window, payload)
    async with await asyncio.start_server(subscriber.serve, "127.0.0.1", 0) as server:
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await subscriber.ended.wait()
    sys.stdout.write(f"{subscriber.acknowledged}\n")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()))
