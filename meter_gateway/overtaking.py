"""A worker's messages from an MQTT broker: what comes now overtakes what waited.

A broker hands out a queue in its order, so after an hour without a worker a live reading, or a
meter's answer to a command, would stand behind that hour. So a worker takes its share in a session
that was empty when it began, and what its sessions of before hold is worked off beside it.

- Source: one subscribed session (`take`), and sessions that only hand out what they have
  (`behind`): one after the other, each ended when it is empty.
- When: at each start; and while running, where a full window and more waited for a connection or a
  commit (`Receiver.backlog`). Then, too, the worker subscribes in a new session before it gives up
  the old one, so that at every moment somebody has its share.
- Bound: a window of each session.
- Order: none between sessions: of a meter, what is overtaken comes late (ADR 0032).
- A crash leaves at most the sessions of these names; the next start finds them. So does the next
  connection: a broker that crashed may bring back one that was ended, with its share.
"""

import asyncio
from collections.abc import Sequence

from meter_gateway.inbox import Delivery
from meter_gateway.receiver import BrokerAddress, Receiver
from meter_gateway.waiting import unless


def session_names(worker: str) -> tuple[str, str, str]:
    """The client ids of a worker. Three: one is free also when a crash left the other two."""
    return (
        f"prepaid-ingest-{worker}",
        f"prepaid-ingest2-{worker}",
        f"prepaid-ingest3-{worker}",
    )


class OvertakingReceiver:
    """One worker's share: `run` keeps it, `take` and `behind.take` serve a loop each."""

    def __init__(
        self,
        address: BrokerAddress,
        worker: str,
        topics: str,
        session_expiry_s: int,
        *,
        leaving: bool = False,
    ) -> None:
        """`leaving`: take no share, only empty what the sessions hold; see `leave`."""
        self._address = address
        self._topics = topics
        self._session_expiry_s = session_expiry_s
        self._leaving = leaving
        self._names = session_names(worker)
        # By name, all that there are; of them, who has the share, and who are only emptied.
        self._receivers: dict[str, Receiver] = {}
        self._now: Receiver | None = None
        self._before: list[Receiver] = []
        self._changed = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._watching: list[asyncio.Task[None]] = []
        self._reconnected = asyncio.Event()
        # Held by whoever begins or looks for sessions.
        self._naming = asyncio.Lock()
        self.behind = Behind(self)
        self.connected = asyncio.Event()

    async def run(self) -> None:
        """Stay connected until cancelled or left."""
        async with self._tasks as tasks:
            await self._begin()
            if not self._leaving:
                self._watching = [
                    tasks.create_task(self._watch_backlog(), name="backlog"),
                    tasks.create_task(self._watch_connections(), name="connections"),
                ]

    async def take(self, most: int, linger_s: float) -> list[Delivery]:
        """Of what comes now; see `Source`."""
        while True:
            taken = await self._take(self._now, most, linger_s)
            if taken:
                return taken

    async def take_behind(self, most: int, linger_s: float) -> list[Delivery]:
        """Of the sessions of before, one after the other."""
        while True:
            taken = await self._take(self._before[0] if self._before else None, most, linger_s)
            if taken:
                return taken

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Of either side, one batch; see `Receiver.acknowledge`."""
        for receiver in self._receivers.values():
            if receiver.brought(deliveries[0]):
                receiver.acknowledge(deliveries)
                return

    async def leave(self) -> None:
        """Give up the share for good; see `Receiver.leave`."""
        self._leaving = True
        await self.connected.wait()
        for task in self._watching:
            task.cancel()
        self._now = None
        # With whatever was just being begun.
        for receiver in self._receivers.values():
            if receiver not in self._before:
                self._empty(receiver)
        self._change()
        while self._before:
            await self._changed.wait()

    async def close(self) -> None:
        """Say goodbye; the sessions stay."""
        for receiver in self._receivers.values():
            await receiver.close()

    async def _begin(self) -> None:
        """Take the share in a session that holds nothing, and empty the others."""
        receivers = [await self._connect(name, quiet=True) for name in self._names]
        held = [each for each in receivers if each.session_present]
        fresh = [each for each in receivers if not each.session_present]
        if not self._leaving:
            chosen = (fresh or held).pop(0)
            await chosen.join()
            self._now = chosen
        for receiver in held:
            self._empty(receiver)
        for receiver in fresh:
            self._end(receiver)
        self._change()
        self.connected.set()

    async def _watch_backlog(self) -> None:
        """Begin anew where the session that has the share got a backlog, one at a time."""
        while True:
            assert self._now is not None
            await self._now.backlog.wait()
            while self._before:
                await self._changed.wait()
            async with self._naming:
                # It may have been worked off meanwhile.
                if self._now.backlog.is_set() and not self._before:
                    await self._begin_anew(self._now)

    async def _watch_connections(self) -> None:
        """Empty whatever session there is again after a connection was lost."""
        while True:
            await self._reconnected.wait()
            self._reconnected.clear()
            async with self._naming:
                for name in self._names:
                    if name not in self._receivers:
                        await self._look_for(name)

    async def _look_for(self, name: str) -> None:
        receiver = await self._connect(name, quiet=True)
        if receiver.session_present:
            self._empty(receiver)
            self._change()
        else:
            self._end(receiver)

    async def _begin_anew(self, old: Receiver) -> None:
        name = next(name for name in self._names if name not in self._receivers)
        self._now = await self._connect(name, quiet=False)
        self._empty(old)
        self._change()

    async def _connect(self, name: str, *, quiet: bool) -> Receiver:
        receiver = Receiver(
            self._address,
            name,
            self._topics,
            self._session_expiry_s,
            quiet=quiet,
            reconnected=self._reconnected,
        )
        self._receivers[name] = receiver
        self._tasks.create_task(receiver.run(), name=f"receiver {name}")
        await receiver.connected.wait()
        return receiver

    def _end(self, receiver: Receiver) -> None:
        """One that holds nothing and has no share."""
        del self._receivers[receiver.client_id]
        receiver.end()

    def _empty(self, receiver: Receiver) -> None:
        self._before.append(receiver)
        name = f"emptying {receiver.client_id}"
        self._tasks.create_task(self._emptied(receiver), name=name)

    async def _emptied(self, receiver: Receiver) -> None:
        await receiver.leave()
        del self._receivers[receiver.client_id]
        self._before.remove(receiver)
        self._change()

    async def _take(self, receiver: Receiver | None, most: int, linger_s: float) -> list[Delivery]:
        """Empty where it is time to look who is asked."""
        changed = self._changed
        if receiver is None:
            await changed.wait()
            return []
        return await unless(changed, receiver.take(most, linger_s)) or []

    def _change(self) -> None:
        """Who waits for the next change waits for another one than this."""
        self._changed.set()
        self._changed = asyncio.Event()


class Behind:
    """The side of an `OvertakingReceiver` that hands out what waited."""

    def __init__(self, receiver: OvertakingReceiver) -> None:
        self._receiver = receiver

    async def take(self, most: int, linger_s: float) -> list[Delivery]:
        return await self._receiver.take_behind(most, linger_s)

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        self._receiver.acknowledge(deliveries)
