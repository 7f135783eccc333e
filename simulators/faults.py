"""What a bad network and a bad day do to a meter: composable, seeded, switched off by default.

Only readings are disturbed: a message twice, two swapped, one held back. A connection may drop and
a meter may reboot at any step. Whatever happens, the set of readings that arrives is the same.
"""

from dataclasses import dataclass
from random import Random

from simulators.meter import Publish


@dataclass(frozen=True, slots=True)
class Faults:
    """How often, per thousand messages (`drop`, `reboot`: per thousand steps of a meter)."""

    duplicate: int = 0
    reorder: int = 0
    delay: int = 0
    delay_ms: int = 30 * 60 * 1000
    drop: int = 0
    reboot: int = 0
    seed: int = 0


class Disturber:
    """The faults of one meter's link, in a sequence fixed by the seed."""

    def __init__(self, faults: Faults, meter: str) -> None:
        self._faults = faults
        # Reproducible faults, not secrets.
        self._random = Random(f"{faults.seed}/{meter}")  # noqa: S311  (simulation)
        self._held: list[tuple[int, Publish]] = []

    def outgoing(self, said: list[Publish], now_ms: int) -> list[Publish]:
        """What really goes out now, of what the meter says and of what was held back."""
        going: list[Publish] = []
        for message in said:
            if message.kind != "reading":
                going.append(message)
            elif self._hits(self._faults.delay):
                self._held.append((now_ms + self._faults.delay_ms, message))
            else:
                going.append(message)
                if self._hits(self._faults.duplicate):
                    going.append(message)
        going += [message for release_ms, message in self._held if release_ms <= now_ms]
        self._held = [held for held in self._held if held[0] > now_ms]
        for i in range(1, len(going)):
            if {going[i - 1].kind, going[i].kind} == {"reading"} and self._hits(
                self._faults.reorder
            ):
                going[i - 1], going[i] = going[i], going[i - 1]
        return going

    def drops(self) -> bool:
        """Whether the connection drops now."""
        return self._hits(self._faults.drop)

    def reboots(self) -> bool:
        """Whether the meter loses its power for a moment now."""
        return self._hits(self._faults.reboot)

    def _hits(self, per_mille: int) -> bool:
        return per_mille > 0 and self._random.randrange(1000) < per_mille
