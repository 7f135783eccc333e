"""What faults are made with: a wire that holds both ways and delays, a running clock in a file, a
folder that runs full.
"""

import asyncio
import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prepaid.clock import Clock, HandClock
from prepaid.faults import quota
from prepaid.faults.report import worst
from schemas.errors import DomainError
from simulators.wire import Wire

ROOT = Path(__file__).parents[3]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
        await writer.drain()
    writer.close()


async def test_a_half_open_wire_lets_nothing_through_until_it_is_released() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    wire = Wire("127.0.0.1", server.sockets[0].getsockname()[1])
    await wire.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(b"1")
    assert await reader.read(1) == b"1"
    wire.hold(both=True)
    writer.write(b"2")
    answer = asyncio.create_task(reader.read(1))
    done, _ = await asyncio.wait({answer}, timeout=0.2)
    assert not done
    wire.release()
    assert await answer == b"2"
    wire.delay_s = 0.1
    began_s = time.monotonic()
    writer.write(b"3")
    assert await reader.read(1) == b"3"
    # Once up and once down: no less, however busy the machine is.
    assert time.monotonic() - began_s >= 0.2
    writer.close()
    await wire.close()
    server.close()
    await server.wait_closed()


def test_a_clock_in_a_file_runs_and_is_stepped_for_everybody(tmp_path: Path) -> None:
    writer = HandClock(path=tmp_path / "clock")
    writer.run(Clock(0, 1_000, 60))
    reader = Clock.parse(f"@{tmp_path / 'clock'}")
    assert reader.speed == 60
    first_ms = reader.now_ms()
    time.sleep(0.01)
    assert reader.now_ms() > first_ms
    writer.run(Clock(0, 1_000 + 3_600_000, 60))
    assert reader.now_ms() >= first_ms + 3_600_000
    writer.set(5)
    assert (reader.now_ms(), Clock.parse(f"@{tmp_path / 'clock'}").speed) == (5, 1)


@pytest.mark.parametrize("text", ["", "soon", "1:2", "1:2:0", "a:b:c"])
def test_a_file_without_a_clock_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "clock").write_text(text)
    with pytest.raises(DomainError) as refused:
        Clock.parse(f"@{tmp_path / 'clock'}")
    assert refused.value.code == "bad_clock"


FILL = """
import pathlib, sys, tempfile
from prepaid.faults.quota import Bounded
with tempfile.TemporaryDirectory() as at:
    folder = pathlib.Path(at)
    with Bounded(folder) as bounded:
        (folder / "before").write_bytes(b"x" * 100_000)
        with bounded.full():
            try:
                (folder / "more").write_bytes(b"x" * 100_000)
            except OSError as error:
                print(error.errno)
        (folder / "after").write_bytes(b"x" * 100_000)
    print(sorted(each.name for each in folder.iterdir()))
"""


def test_a_bounded_folder_is_full_when_told_and_nothing_stays() -> None:
    reason = quota.unavailable()
    if reason is not None:
        # A system that lets nobody mount says so; the run then leaves these faults out.
        assert "unshare" in reason or "mount" in reason
        return
    told = subprocess.run(
        [*quota.namespace(), sys.executable, "-c", FILL],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout.splitlines() == [str(errno.ENOSPC), "[]"]


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([3.0, 1.0, 2.0], 99, 3.0),
        ([1.0], 50, 1.0),
        ([1.0, None], 50, 1.0),
        ([None, 1.0], 99, None),
        ([None, None, 1.0], 50, None),
        ([], 99, None),
    ],
)
def test_a_percentile_is_one_of_the_values_and_what_never_came_is_the_longest(
    values: list[float | None], percent: int, expected: float | None
) -> None:
    assert worst(values, percent) == expected
