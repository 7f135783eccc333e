"""`prepaid simulate` as a process: it speaks, stops when told, and goes on where it stopped."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

import aiomqtt

from schemas import topics
from schemas.decoding import decode_up
from schemas.telemetry import Decoded
from schemas.topics import Topic

NUMBER = "37000000500"
FOREVER_MS = 1 << 52
ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "from prepaid.cli import main; main()", "simulate")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def described(folder: Path) -> Path:
    meter = {"number": NUMBER, "annual_kwh": 3000, "seed": 1, "since": "2026-01-01T00:00:00Z"}
    path = folder / "meters.json"
    path.write_text(json.dumps({"v": 1, "meters": [meter]}))
    return path


async def until_said(messages: asyncio.Queue[Decoded], found: str) -> Decoded:
    async with asyncio.timeout(20):
        while True:
            decoded = await messages.get()
            if getattr(decoded, found) not in (None, ()):
                return decoded


async def test_a_simulator_stops_when_told_and_goes_on_where_it_stopped(
    broker_url: str, tmp_path: Path
) -> None:
    parts = urlsplit(broker_url)
    arguments = ["--meters-file", str(described(tmp_path)), "--broker", broker_url]
    arguments += ["--state-dir", str(tmp_path / "state")]
    heard: asyncio.Queue[Decoded] = asyncio.Queue()

    async def listen(client: aiomqtt.Client) -> None:
        async for message in client.messages:
            topic = topics.parse(message.topic.value)
            assert isinstance(message.payload, bytes)
            heard.put_nowait(decode_up(topic, message.payload, None, FOREVER_MS))

    async with aiomqtt.Client(parts.hostname or "", parts.port or 1883) as client:
        await client.subscribe(topics.build(Topic("m", NUMBER, "up", "hello")), qos=1)
        await client.subscribe(topics.build(Topic("m", NUMBER, "up", "state")), qos=1)
        await client.subscribe(topics.build(Topic("m", NUMBER, "up", "reading")), qos=1)
        listening = asyncio.create_task(listen(client))
        registers = []
        for boot in (1, 2):
            process = await asyncio.create_subprocess_exec(*COMMAND, *arguments, env=ENVIRONMENT)
            hello = (await until_said(heard, "hello")).hello
            assert hello is not None
            assert hello.boot == boot
            registers.append((await until_said(heard, "readings")).readings[0].value_wh)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 20) == 0
            while (await until_said(heard, "online")).online:
                pass
        assert registers == sorted(registers)
        listening.cancel()


async def test_a_wrong_fleet_file_ends_with_one_line_and_status_2(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, "--broker", "localhost"),
        *("--meters-file", str(tmp_path / "none.json"), "--state-dir", str(tmp_path)),
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
    )
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert errors.decode().startswith("prepaid: Cannot read")
    assert errors.count(b"\n") == 1
