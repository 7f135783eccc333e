"""Whether devices are there: by their births, their wills, and by speaking at all.

A will says no instant, and what the broker held back may come after what was said later (ADR 0032).
So a will that was held back does not count within `BACKLOG_MS` of a birth that was not, and whoever
is called away and speaks just now is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# Longer than any backlog takes to work off.
BACKLOG_MS = 60 * 60 * 1000


@dataclass(slots=True)
class Presence:
    """Of one device in a batch. `away`: what was known; `online`: what the batch says, if anything;
    `prompt`: it was said just now, not held back.
    """

    away: bool = False
    online: bool | None = None
    prompt: bool = False

    def said(self, *, online: bool, prompt: bool) -> None:
        """A birth or a will."""
        self.online, self.prompt = online, prompt

    def spoke(self) -> None:
        """Anything else, just now."""
        if self.online is False or (self.away and self.online is None):
            self.said(online=True, prompt=True)


def columns(said: Sequence[Presence], now_ms: int) -> dict[str, object]:
    """What the queries that keep it need beside the devices' ids."""
    return {
        "online": [each.online for each in said],
        "prompt": [each.prompt for each in said],
        "online_now_ms": now_ms,
        "born_before_ms": now_ms - BACKLOG_MS,
    }
