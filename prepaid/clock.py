"""The system's clock: the wall clock, or the demonstration's, which runs faster.

Every process of one demonstration is given the same origin and speed, so that meters, gateway and
API agree about the time without talking about it.
"""

import time
from dataclasses import dataclass

from schemas.errors import DomainError


def wall_ms() -> int:
    """UTC milliseconds of the machine's clock."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Clock:
    """`now_ms` = `origin_ms` + `speed` times the wall time since `wall_origin_ms`."""

    wall_origin_ms: int = 0
    origin_ms: int = 0
    speed: int = 1

    def now_ms(self) -> int:
        return self.origin_ms + (wall_ms() - self.wall_origin_ms) * self.speed

    @classmethod
    def parse(cls, text: str) -> "Clock":
        """`WALL_ORIGIN_MS:ORIGIN_MS:SPEED`, or nothing for the wall clock."""
        if not text:
            return cls()
        try:
            wall_origin_ms, origin_ms, speed = (int(part) for part in text.split(":"))
        except ValueError:
            raise DomainError(
                "bad_clock", f"Write a clock as WALL_ORIGIN_MS:ORIGIN_MS:SPEED, not {text!r:.60}."
            ) from None
        if speed < 1:
            raise DomainError("bad_clock", "Give a clock a speed of at least 1.")
        return cls(wall_origin_ms, origin_ms, speed)

    def __str__(self) -> str:
        return f"{self.wall_origin_ms}:{self.origin_ms}:{self.speed}"
