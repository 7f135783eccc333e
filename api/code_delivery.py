"""Takes one-time codes from the outbox to their people, by whatever way an installation has.

A code is claimed, delivered and forgotten, in this order: one that was delivered twice by a crash
in between is the same code. Where nothing is configured nothing runs here: the codes wait for
another process, and are too late after their five minutes.
"""

import threading
from collections.abc import Callable
from typing import Protocol

import structlog

from store import codes
from store.codes import CodeMessage
from store.errors import Unavailable
from store.pool import Pool, borrow

# A code that another process queued waits so long; one of this process does not wait.
LOOK_EVERY_S = 1.0
# Of a loop that is asked to end: as long as one delivery may take.
STOP_S = 10.0

_log = structlog.stdlib.get_logger("api")


class CodeDelivery(Protocol):
    """A way to people: an SMS gateway, a WhatsApp number, a mail server; a demonstration's log."""

    def deliver(self, message: CodeMessage) -> None:
        """Hand it on. Any exception leaves it in the outbox, to be tried again until it is late."""
        ...


class Courier:
    """The loop that delivers, on a thread of its own; without a delivery it does nothing."""

    def __init__(
        self, pool: Pool, delivery: CodeDelivery | None, wall_s: Callable[[], float]
    ) -> None:
        self._pool = pool
        self._delivery = delivery
        self._wall_s = wall_s
        self._queued = threading.Event()
        self._ending = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._delivery is not None:
            self._thread = threading.Thread(target=self._run, name="code-delivery")
            self._thread.start()

    def wake(self) -> None:
        """A code was queued."""
        self._queued.set()

    def stop(self) -> None:
        """Finishes the delivery under way."""
        self._ending = True
        self._queued.set()
        if self._thread is not None:
            self._thread.join(STOP_S)

    def _run(self) -> None:
        while not self._ending:
            self._queued.wait(LOOK_EVERY_S)
            self._queued.clear()
            try:
                self._deliver()
            except Unavailable as error:
                _log.warning("codes_wait", cause=str(error))
            except Exception:
                # A defect of one round: the next one tries again, and the log says why.
                _log.exception("code_delivery_failed")

    def _deliver(self) -> None:
        assert self._delivery is not None, "the thread runs only with one"
        with borrow(self._pool) as conn:
            claimed = codes.claim(conn, int(self._wall_s() * 1000))
        for message in claimed:
            try:
                self._delivery.deliver(message)
            except Exception as error:
                # What went wrong may quote the message: only its kind is safe to tell.
                _log.warning(
                    "code_not_delivered", channel=message.channel, cause=type(error).__name__
                )
                continue
            with borrow(self._pool) as conn:
                codes.sent(conn, message.id)
            _log.info("code_delivered", channel=message.channel)
