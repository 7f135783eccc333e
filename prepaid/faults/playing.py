"""A run of faults from the command line, and what is told of it."""

import asyncio
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prepaid.faults.kinds import Kind
from prepaid.faults.load import Load
from prepaid.faults.rounds import DEADLINE_S, Hook, Round, Run, unmeddled
from prepaid.faults.system import Wanted, system_up


@dataclass(frozen=True, slots=True)
class Course:
    """What is played on a system."""

    planned: Sequence[tuple[int, Kind]]
    audit_every: int = 10
    deadline_s: float = DEADLINE_S
    meddle: Hook = unmeddled


async def play(
    wanted: Wanted, course: Course, tell: Callable[[Round], None] = lambda _: None
) -> list[Round]:
    """Every round of the course on one system; a signal ends it after the round at hand."""
    played: list[Round] = []
    ended = asyncio.Event()

    def end() -> None:
        progress("ending after the round at hand")
        ended.set()

    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, end)
    with tempfile.TemporaryDirectory(prefix="prepaid-meters-") as memories:
        async with system_up(wanted, progress) as system:
            load = Load(system, wanted.seed)
            await load.start(Path(memories))
            try:
                run = Run(
                    system, load, wanted.seed, course.audit_every, course.deadline_s, course.meddle
                )
                await run.warm_up()
                for place, (number, kind) in enumerate(course.planned, start=1):
                    if ended.is_set():
                        break
                    last = place == len(course.planned)
                    result = await run.play(number, kind, last=last)
                    tell(result)
                    played.append(result)
            finally:
                await load.stop()
    return played


def progress(text: str) -> None:
    """On standard error."""
    sys.stderr.write(f"prepaid: {text}\n")
    sys.stderr.flush()
