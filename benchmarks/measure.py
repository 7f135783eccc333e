"""What measurements share: costs by part, repetitions in rotated order, medians and ranges."""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from psycopg import Connection

TICKS = os.sysconf("SC_CLK_TCK")
_Subject = TypeVar("_Subject")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of `readings` readings: wall seconds, and CPU seconds by part (0 where it is elsewhere)."""

    readings: int
    elapsed_s: float
    cpu_s: dict[str, float]

    @property
    def rate(self) -> float:
        """Readings a second."""
        return self.readings / self.elapsed_s

    def cpu_us(self, part: str) -> float:
        """CPU microseconds a reading."""
        return self.cpu_s[part] / self.readings * 1e6


@dataclass(slots=True)
class Meter:
    """Adds up what the measured stretches of one repetition cost."""

    clocks: dict[str, Callable[[], float]]
    elapsed_s: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[None]:
        before = {part: clock() for part, clock in self.clocks.items()}
        began = time.perf_counter()
        yield
        self.elapsed_s += time.perf_counter() - began
        for part, clock in self.clocks.items():
            self.cpu_s[part] = self.cpu_s.get(part, 0.0) + clock() - before[part]

    def cost(self, readings: int) -> Cost:
        return Cost(readings, self.elapsed_s, dict(self.cpu_s))


def process_cpu_s(pid: int, name: str) -> float:
    """CPU seconds of a process in clock ticks; 0 where it is on another machine or another one."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return 0.0
    command, _, rest = stat.rpartition(")")
    if name not in command:
        return 0.0
    fields = rest.split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def server_cpu_s(conn: Connection[Any]) -> float:
    """CPU seconds of the connection's backend."""
    return process_cpu_s(conn.info.backend_pid, "postgres")


def rotated(subjects: Sequence[_Subject], repetition: int) -> list[_Subject]:
    """The subjects in another order each time, so that none always comes after the same one."""
    first = repetition % len(subjects)
    return [*subjects[first:], *subjects[:first]]


def spread(values: Sequence[float], digits: int) -> dict[str, float]:
    """Median and range."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


def form(costs: Sequence[Cost]) -> dict[str, Any]:
    """Repetitions of one subject, for a report."""
    return {
        "rate": spread([cost.rate for cost in costs], 0),
        "cpu_us": {
            part: spread([cost.cpu_us(part) for cost in costs], 1) for part in costs[0].cpu_s
        },
    }


def ratios(subject: Sequence[Cost], floor: Sequence[Cost]) -> dict[str, float]:
    """Rate of the subject over that of the floor, repetition by repetition."""
    return spread([s.rate / f.rate for s, f in zip(subject, floor, strict=True)], 3)
