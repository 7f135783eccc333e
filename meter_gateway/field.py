"""The clockwork's duties in the field: gaps to ask for, outages to open and close."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from store import gaps, outages
from store.session import Session

log = structlog.get_logger()

ROUND_MS = 60_000


@dataclass(slots=True)
class FieldDuties:
    """Called every round; works once per `ROUND_MS` of the system's clock. Any number of workers
    may: the store lets one do each.
    """

    now_ms: Callable[[], int]
    due_ms: int = 0

    async def round(self, session: Session) -> None:
        """Errors: Unavailable."""
        now_ms = self.now_ms()
        if now_ms < self.due_ms:
            return
        found = await session.run(partial(outages.check, now_ms=now_ms))
        for scope, name in found.opened:
            log.warning("outage_opened", scope=scope, name=name)
        for scope, name in found.closed:
            log.info("outage_closed", scope=scope, name=name)
        asked = await session.run(partial(gaps.ask, now_ms=now_ms))
        if asked.asked or asked.closed:
            log.info("gaps_asked", asked=asked.asked, closed=asked.closed)
        self.due_ms = now_ms + ROUND_MS
