"""The system's clock: the wall clock, the demonstration's, which runs faster, or one set by hand.

Every process of one demonstration is given the same origin and speed, so that meters, gateway and
API agree about the time without talking about it. Every process of a run of scenarios reads the
same file, so that an hour passes when the run says so; a run of faults writes a running clock into
that file, and steps it while everything reads it.
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
            return HandClock(speed=HandClock(path=Path(text[1:])).read().speed, path=Path(text[1:]))
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
    """Stands at the instant (UTC ms, decimal digits) in a file until that is written again; or runs
    as the clock (`WALL_ORIGIN_MS:ORIGIN_MS:SPEED`) that the file holds, at the first one's speed.
    """

    path: Path = Path()

    def now_ms(self) -> int:
        """Errors: DomainError `bad_clock`."""
        text = self._text()
        try:
            return int(text)
        except ValueError:
            return self.read().now_ms()

    def read(self) -> Clock:
        """What the file holds now; an instant is a clock of speed 1. Errors: `bad_clock`."""
        text = self._text().decode("ascii", "replace").strip()
        if text.isdecimal():
            return Clock(wall_ms(), int(text))
        if text.count(":") != 2:
            raise self._unreadable()
        return Clock.parse(text)

    def set(self, at_ms: int) -> None:
        """Move it for everybody who reads the file; it stands."""
        self._write(str(at_ms))

    def run(self, clock: Clock) -> None:
        """Let it run so from now on, for everybody who reads the file."""
        self._write(str(clock))

    def _text(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError:
            raise self._unreadable() from None

    def _unreadable(self) -> DomainError:
        return DomainError("bad_clock", f"Write an instant in UTC milliseconds into {self.path}.")

    def _write(self, text: str) -> None:
        moved = self.path.with_suffix(".new")
        moved.write_text(text)
        moved.replace(self.path)

    def __str__(self) -> str:
        return f"@{self.path}"
