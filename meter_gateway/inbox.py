"""What a source has received and nobody has taken yet, and whether the broker holds anything back.

The bound is the source's: what is unacknowledged is at most its window, and the broker keeps the
rest. Here is only the bookkeeping that all sources share.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

# The window: four times the largest batch, so that the next batch fills while three commit.
RECEIVE_MAX = 16_000
# A broker that has nothing to hand out for this long, while nothing is unacknowledged, holds
# nothing back: what it sends from then on was said just now.
QUIET_S = 0.05
POLL_S = 0.02
# So long a full window waits for a commit only where the database is away, or as good as away.
HELD_UP_S = 30.0


class Link(Protocol):
    """One connection to a broker: only the one that brought a message can acknowledge it."""

    def acknowledge(self, ids: Sequence[int]) -> None: ...


@dataclass(slots=True, eq=False)
class Delivery:
    """One message as received. `packet_id`: what its connection knows it by; None: nobody waits.

    `prompt`: the broker is known not to have held it back.
    """

    topic: str
    payload: bytes
    content_type: str | None
    packet_id: int | None
    received_ns: int
    connection: Link
    prompt: bool = False
    # The broker kept it: it may be of any age.
    retained: bool = False


class Inbox:
    """Filled by a connection, emptied by a loop; all in one event loop."""

    def __init__(self, window: int = RECEIVE_MAX) -> None:
        self._window = window
        self._pending: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._link: Link | None = None
        # Until the broker was seen with nothing to hand out it may be working off a backlog.
        self.prompt = False
        # Set when more waits at the broker than is worked off in a moment: what came while nobody
        # was here, or while nothing could be committed. Not set by load that is merely too high.
        self.backlog = asyncio.Event()
        # Nothing is known of this connection's queue yet: its messages may come before `open`.
        self._new = True
        self._full_since_s = 0.0
        self._unacknowledged = 0
        # How many ever came, and how often some were acknowledged: equal twice, nothing happened
        # between.
        self.received = 0
        self.acknowledgements = 0

    @property
    def full(self) -> bool:
        return len(self._pending) >= self._window

    @property
    def room(self) -> bool:
        """Whether the broker may send more before anything is acknowledged."""
        return self._unacknowledged < self._window

    @property
    def idle(self) -> bool:
        """Nothing waits here, and nothing that was taken is unacknowledged."""
        return not self._pending and self._unacknowledged == 0

    def open(self, link: Link) -> None:
        """`link` is the connection from now on."""
        self._link = link

    def forget(self) -> None:
        """The connection is gone: the broker sends again what was not acknowledged."""
        self._link = None
        self.prompt, self._new, self._unacknowledged = False, True, 0
        self.backlog.clear()
        self._pending.clear()

    def add(self, delivery: Delivery) -> None:
        self._pending.append(delivery)
        self.received += 1
        if delivery.packet_id is not None:
            self._unacknowledged += 1
            if not self.room:
                self._fill()
        if not self._arrived.is_set():
            self._arrived.set()

    def acknowledged(self, deliveries: Sequence[Delivery]) -> None:
        """Those of this connection no longer count; those of a lost one count no more already."""
        self.acknowledgements += 1
        if not self.room and time.monotonic() - self._full_since_s > HELD_UP_S:
            self.backlog.set()
        self._unacknowledged -= sum(
            each.connection is self._link and each.packet_id is not None for each in deliveries
        )

    def nothing_held(self) -> None:
        """The broker is known to hold nothing back."""
        self.prompt, self._new = True, False
        self.backlog.clear()

    def _fill(self) -> None:
        self.prompt = False
        self._full_since_s = time.monotonic()
        if self._new:
            self.backlog.set()

    async def take(self, most: int, linger_s: float) -> list[Delivery]:
        """Wait for at least one message, linger a little, and take up to `most`."""
        taken: list[Delivery] = []
        # A connection that is lost while we linger takes its messages with it: wait once more.
        while not taken:
            while not self._pending:
                self._arrived.clear()
                await self._wait()
            if linger_s and len(self._pending) < most:
                await asyncio.sleep(linger_s)
            while self._pending and len(taken) < most:
                taken.append(self._pending.popleft())
        return taken

    async def until_idle(self) -> None:
        while not self.idle:
            await asyncio.sleep(POLL_S)

    async def _wait(self) -> None:
        """Until something arrives; quiet for a while, the broker holds nothing back."""
        while not self.prompt:
            try:
                await asyncio.wait_for(self._arrived.wait(), QUIET_S)
            except TimeoutError:
                if self._link is not None and self._unacknowledged == 0:
                    self.nothing_held()
            else:
                return
        await self._arrived.wait()
