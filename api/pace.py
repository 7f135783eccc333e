"""How many requests a minute one caller and one address may send; beyond it they are told to wait.

Counted in this process: with several behind a balancer each counts for itself. What must be counted
once for all, the tries to sign in, is counted in the database (`store.attempts`).
"""

import math
import time
from ipaddress import IPv6Address, ip_address

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

# A provider gives a household a network of this size: within it addresses are free to choose.
IPV6_NETWORK_BITS = 64


class Pace:
    """Bounds for callers, by name, and for addresses, by network."""

    def __init__(self, *, per_caller: int, per_address: int) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._caller = RateLimitItemPerMinute(per_caller)
        self._address = RateLimitItemPerMinute(per_address)

    def of_caller(self, caller: str) -> int | None:
        """Counts a request; the seconds to wait when it is one too many, else None."""
        return self._taken(self._caller, caller)

    def of_address(self, host: str) -> int | None:
        """As of_caller, before anybody knows who calls."""
        return self._taken(self._address, network(host))

    def _taken(self, bound: RateLimitItemPerMinute, name: str) -> int | None:
        if self._limiter.hit(bound, name):
            return None
        reset_s, _ = self._limiter.get_window_stats(bound, name)
        return max(1, math.ceil(reset_s - time.time()))


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
