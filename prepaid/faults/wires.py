"""The wires of a run, in a process of their own, so that nothing else of the run holds them up.

`python -m prepaid.faults.wires NAME=PORT ...` opens a wire for each name and prints their ports as
one JSON object; then it obeys lines of JSON, [act, names, value], and answers each with a line.
"""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence

from simulators.wire import LOOPBACK, Wire

ANSWER_S = 10.0


class Wires:
    """`await wires.start({name: port})`, then `ports` says where each wire listens."""

    def __init__(self) -> None:
        self.ports: Mapping[str, int] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, targets: Mapping[str, int]) -> None:
        """A wire to each of these ports of the loopback interface."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "prepaid.faults.wires",
            *(f"{name}={port}" for name, port in targets.items()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self.ports = json.loads(await self._answer())

    async def do(self, act: str, names: Sequence[str], value: float = 0.0) -> None:
        """`cut`, `open`, `drop`, `hold`, `release` or `delay` (by so many seconds) these wires."""
        assert self._process is not None, "start first"
        assert self._process.stdin is not None, "asked for above"
        self._process.stdin.write(json.dumps([act, list(names), value]).encode() + b"\n")
        await self._process.stdin.drain()
        await self._answer()

    async def close(self) -> None:
        """End the process, and every connection with it."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None, "asked for above"
            process.stdin.close()
            await process.wait()

    async def _answer(self) -> bytes:
        assert self._process is not None, "start first"
        assert self._process.stdout is not None, "asked for above"
        line = await asyncio.wait_for(self._process.stdout.readline(), ANSWER_S)
        if not line:
            raise RuntimeError("the process of the wires ended: start the run again")
        return line


async def _obey(wires: Mapping[str, Wire], act: str, names: Sequence[str], value: float) -> None:
    for name in names:
        wire = wires[name]
        if act == "open":
            await wire.open()
        elif act == "hold":
            wire.hold(both=True)
        elif act == "delay":
            wire.delay_s = value
        else:
            {"cut": wire.cut, "drop": wire.drop, "release": wire.release}[act]()


async def _main(targets: Sequence[str]) -> None:
    parts = (each.partition("=") for each in targets)
    wires = {name: Wire(LOOPBACK, int(port)) for name, _, port in parts}
    for wire in wires.values():
        await wire.open()
    _say(json.dumps({name: wire.port for name, wire in wires.items()}))
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    while line := await commands.readline():
        await _obey(wires, *json.loads(line))
        _say("done")
    for wire in wires.values():
        await wire.close()
    transport.close()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
