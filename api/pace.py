"""How many requests a minute one caller and one address may send; beyond it they are told to wait.

Counted in this process: with several behind a balancer each counts for itself. What must be counted
once for all, the tries to sign in, is counted in the database (`store.attempts`).
"""

import math
import time
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from threading import Lock

WINDOW_S = 60
# A provider gives a household a network of this size: within it addresses are free to choose.
IPV6_NETWORK_BITS = 64


class Pace:
    """Bounds for callers, by name, and for addresses, by network."""

    def __init__(
        self, *, per_caller: int, per_address: int, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._callers = _Minute(per_caller, clock_s)
        self._addresses = _Minute(per_address, clock_s)

    def of_caller(self, caller: str) -> int | None:
        """Counts a request; the seconds to wait when it is one too many, else None."""
        return self._callers.taken(caller)

    def of_address(self, host: str) -> int | None:
        """As of_caller, before anybody knows who calls."""
        return self._addresses.taken(network(host))


class _Minute:
    """A sliding minute: what is counted of this minute, and of the one before it as much as the
    last 60 seconds still reach into it. Of older minutes nothing is kept, so nobody need tidy up.
    """

    def __init__(self, bound: int, clock_s: Callable[[], float]) -> None:
        self._bound = bound
        self._clock_s = clock_s
        self._lock = Lock()
        self._minute = 0
        self._now: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def taken(self, name: str) -> int | None:
        with self._lock:
            minute, second = divmod(self._clock_s(), WINDOW_S)
            if minute != self._minute:
                self._before = self._now if minute == self._minute + 1 else {}
                self._now = {}
                self._minute = int(minute)
            now, before = self._now.get(name, 0), self._before.get(name, 0)
            if int(before * (WINDOW_S - second) / WINDOW_S) + now < self._bound:
                self._now[name] = now + 1
                return None
        return self._wait_s(now, before, second)

    def _wait_s(self, now: int, before: int, second: float) -> int:
        """Until what is left of the minute before, or else of this one, makes room for one more."""
        room = self._bound - now
        if room > 0:
            # int(before * left / 60) falls below the room.
            return max(1, math.ceil(WINDOW_S - second - room * WINDOW_S / before))
        # In the next minute this one is the one before.
        return math.ceil(WINDOW_S - second) + max(
            0, math.ceil(WINDOW_S - self._bound * WINDOW_S / now)
        )


@lru_cache(maxsize=4096)
def network(host: str) -> str:
    """An address, or of IPv6 the network that one household has; what is no address stays."""
    try:
        address = ip_address(host.split("%", maxsplit=1)[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    free = 128 - IPV6_NETWORK_BITS
    return str(IPv6Address(int(address) >> free << free))
