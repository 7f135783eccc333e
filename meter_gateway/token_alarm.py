"""The alarm on meters that answer token after token with AuthenticationError."""

from functools import partial

import structlog
from prometheus_client import CollectorRegistry, Gauge

from schemas.quantities import format_instant
from store.session import Session
from store.unread_tokens import unread_tokens

log = structlog.get_logger()

EVERY_MS = 60_000


class TokenAlarm:
    """Looks once a minute; tells each meter once, and again when it had recovered meanwhile.

    The gauge says how many meters stand in alarm; it is the same in every worker.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._gauge = Gauge(
            "prepaid_meters_not_authenticating",
            "Meters that answered several tokens of the last day with AuthenticationError",
            registry=registry,
        )
        self._told: frozenset[str] = frozenset()
        self._due_ms = 0

    async def look(self, session: Session, now_ms: int) -> None:
        """Errors: Unavailable."""
        if now_ms < self._due_ms:
            return
        found = await session.run(partial(unread_tokens, now_ms=now_ms))
        self._due_ms = now_ms + EVERY_MS
        self._gauge.set(len(found))
        for each in found:
            if each.meter not in self._told:
                log.warning(
                    "tokens_not_authenticated",
                    meter=each.meter,
                    count=each.tokens,
                    newest=format_instant(each.newest_ms),
                )
        self._told = frozenset(each.meter for each in found)
