"""The system's clock: the wall clock, the demonstration's, which runs faster, or one set by hand.

Every process of one demonstration is given the same origin and speed, so that meters, gateway and
API agree about the time without talking about it. Every process of a run of scenarios reads the
same file, so that an hour passes when the run says so.
"""

import time
from dataclasses import dataclass
from pathlib import Path

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
        """`WALL_ORIGIN_MS:ORIGIN_MS:SPEED`, `@FILE` (`HandClock`), or nothing for the wall clock.

        Errors: DomainError `bad_clock`.
        """
        if not text:
            return cls()
        if text.startswith("@"):
            clock = HandClock(path=Path(text[1:]))
            clock.now_ms()
            return clock
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


@dataclass(frozen=True, slots=True)
class HandClock(Clock):
    """Stands at the instant (UTC ms, decimal digits) in a file until that is written again."""

    path: Path = Path()

    def now_ms(self) -> int:
        """Errors: DomainError `bad_clock`."""
        try:
            return int(self.path.read_bytes())
        except (OSError, ValueError):
            raise DomainError(
                "bad_clock", f"Write an instant in UTC milliseconds into {self.path}."
            ) from None

    def set(self, at_ms: int) -> None:
        """Move it for everybody who reads the file."""
        moved = self.path.with_suffix(".new")
        moved.write_text(str(at_ms))
        moved.replace(self.path)

    def __str__(self) -> str:
        return f"@{self.path}"
