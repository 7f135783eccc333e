"""Balance to supply (section 8): emergency credit, protection, and the way back on supply.

| balance above floor, and reconnect_at reached if armed | inside a window | supply       | armed |
|--------------------------------------------------------|-----------------|--------------|-------|
| yes                                                    | any             | connected    | no    |
| no                                                     | yes             | protected    | as is |
| no                                                     | no              | disconnected | yes   |
"""

from credit_engine.days import Day
from credit_engine.outcome import Status, Supply
from credit_engine.position import Position
from credit_engine.protection import Protection, protection_of
from credit_engine.terms import Terms


class SupplyState:
    """What of the past decides the supply now. `observe` in order of time, at least at every
    instant at which the balance may rise or emergency credit begin, and at the last instant
    outside the windows before each of them: in between the balance only falls.
    """

    __slots__ = ("armed", "in_use", "protection", "supply", "terms")

    def __init__(self, terms: Terms, position: Position) -> None:
        self.terms = terms
        self.protection: Protection = protection_of(terms.tariff, terms.non_disconnection)
        self.in_use = position.emergency_in_use
        self.armed = position.reconnect_armed
        self.supply: Supply = "disconnected"

    def observe(self, at_ms: int, balance_micro: int, *, requested: bool) -> None:
        """The balance after all postings of the instant."""
        emergency = self.terms.emergency
        floor = 0
        if emergency is not None:
            in_use = balance_micro <= 0
            if emergency.on_request:
                in_use = in_use and (self.in_use or requested)
            self.in_use = in_use
            floor = -emergency.limit_micro if in_use else 0
        reconnect_at = self.terms.reconnect_at_micro
        above = balance_micro > floor
        if above and (not self.armed or reconnect_at is None or balance_micro >= reconnect_at):
            self.supply, self.armed = "connected", False
        elif self.protection.holds(at_ms):
            self.supply = "protected"
        else:
            self.supply = "disconnected"
            # Without `reconnect_at` the past decides nothing, so nothing of it is kept.
            self.armed = reconnect_at is not None and at_ms >= self.terms.activated_at_ms

    def status(self, at_ms: int, balance_micro: int, debt_micro: int, day: Day) -> Status:
        emergency = self.terms.emergency
        available = (
            emergency is not None
            and emergency.on_request
            and not self.in_use
            and balance_micro <= 0
        )
        return Status(
            at_ms,
            balance_micro,
            debt_micro,
            self.supply,
            self.in_use,
            available,
            self._next_change(at_ms, debt_micro, day),
        )

    def _next_change(self, at_ms: int, debt_micro: int, day: Day) -> int | None:
        change = day.next_charge_ms
        if debt_micro > 0 and self.terms.debt.daily_micro:
            change = day.end_ms
        if self.supply != "connected":
            edge = self.protection.next_edge(at_ms)
            if edge is not None and (change is None or edge < change):
                change = edge
        return change
