"""What measurements share: costs by part, and repetitions in rotated order."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

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


def rotated(subjects: Sequence[_Subject], repetition: int) -> list[_Subject]:
    """The subjects in another order each time, so that none always comes after the same one."""
    first = repetition % len(subjects)
    return [*subjects[first:], *subjects[:first]]


def rate_ratios(subject: Sequence[Cost], floor: Sequence[Cost]) -> list[float]:
    """Rate of the subject over that of the floor, repetition by repetition."""
    return [s.rate / f.rate for s, f in zip(subject, floor, strict=True)]
