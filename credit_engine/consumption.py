"""Readings to consumption (section 2): which readings count, and the energy between them."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from credit_engine.errors import CreditError
from credit_engine.facts import Exchange, Reading
from credit_engine.outcome import Judgement, Verdict
from credit_engine.position import Position
from credit_engine.terms import Installation


@dataclass(frozen=True, slots=True)
class Interval:
    """The energy between two consecutive accepted readings of one meter.

    `installation`, `register_at_ms`, `register_wh`: what the next reading is compared to.
    """

    start_ms: int
    end_ms: int
    from_wh: int
    to_wh: int
    energy_wh: int
    meter_id: str
    installation: Installation
    register_at_ms: int
    register_wh: int

    def energy_until(self, at_ms: int) -> int:
        """Section 3: the energy up to an instant of the interval, rounded down to a Wh."""
        return self.energy_wh * (at_ms - self.start_ms) // (self.end_ms - self.start_ms)


def judge(
    meter: Installation, from_ms: int, from_wh: int, at_ms: int, wh: int
) -> tuple[Judgement, int]:
    """Steps 2 to 4 of section 2: the judgement and, if accepted, the energy since `from`."""
    energy = wh - from_wh
    if energy < 0:
        if from_wh * 10 >= meter.modulus_wh * 9 and wh * 10 <= meter.modulus_wh:
            energy += meter.modulus_wh
        if energy < 0:
            return "register_decreased", 0
    power = meter.max_power_w
    if power is not None and (energy - 10) * 36_000_000 > 11 * power * (at_ms - from_ms):
        return "implausible", 0
    return "accepted", energy


def walk(
    position: Position, readings: Sequence[Reading | Exchange]
) -> tuple[tuple[Verdict, ...], list[Interval]]:
    """Judge readings and closing values, given in order of arrival, after `position`.

    Errors: exchange_conflict. An exchange that the position already holds gets no verdict.
    """
    exchanges = _exchanges(position, [each for each in readings if isinstance(each, Exchange)])
    meters = [position.installation, *(each.meter for each in exchanges)]
    opened = [meter.opened_at_ms for meter in meters]
    unseen = {each.at_ms for each in exchanges}
    judged: list[tuple[Reading | Exchange, str, int, int, Judgement | None]] = []
    seen: dict[tuple[int, str], set[int]] = {}
    to_walk: list[tuple[int, int, int]] = []
    for fact in readings:
        if isinstance(fact, Exchange):
            if fact.at_ms not in unseen:
                continue
            unseen.remove(fact.at_ms)
        place = bisect_left(opened, fact.at_ms) - 1
        installed = meters[max(place, 0)].meter_id
        wh, name = (
            (fact.closing_wh, installed)
            if isinstance(fact, Exchange)
            else (fact.wh, fact.meter_id or installed)
        )
        known = seen.setdefault((fact.at_ms, name), set())
        judgement: Judgement | None = None
        if wh in known:
            judgement = "duplicate"
        elif known:
            judgement = "conflict"
        elif place < 0:
            judgement = "before_installation"
        elif name != installed:
            judgement = "not_installed"
        else:
            to_walk.append((fact.at_ms, wh, len(judged)))
        known.add(wh)
        judged.append((fact, name, fact.at_ms, wh, judgement))
    walked, intervals = _walk_registers(position, exchanges, sorted(to_walk))
    verdicts = tuple(
        Verdict(fact, name, at_ms, wh, judgement or walked[place])
        for place, (fact, name, at_ms, wh, judgement) in enumerate(judged)
    )
    return verdicts, intervals


def _walk_registers(
    position: Position, exchanges: list[Exchange], readings: list[tuple[int, int, int]]
) -> tuple[dict[int, Judgement], list[Interval]]:
    new_meter = {exchange.at_ms: exchange.meter for exchange in exchanges}
    meter, from_ms, from_wh = (
        position.installation,
        position.register_at_ms,
        position.register_wh,
    )
    walked: dict[int, Judgement] = {}
    intervals: list[Interval] = []
    for at_ms, wh, place in readings:
        judgement, energy = judge(meter, from_ms, from_wh, at_ms, wh)
        walked[place] = judgement
        start_ms, start_wh, old = from_ms, from_wh, meter
        if judgement == "accepted":
            from_ms, from_wh = at_ms, wh
        if at_ms in new_meter:
            meter = new_meter[at_ms]
            from_ms, from_wh = at_ms, meter.opening_wh
        if judgement == "accepted":
            interval = Interval(
                start_ms, at_ms, start_wh, wh, energy, old.meter_id, meter, from_ms, from_wh
            )
            intervals.append(interval)
    return walked, intervals


def _exchanges(position: Position, given: list[Exchange]) -> list[Exchange]:
    """Distinct exchanges in order of time, without the one that the position holds."""
    by_time: dict[int, Exchange] = {}
    for exchange in given:
        if exchange.meter == position.installation and exchange.at_ms == position.at_ms:
            continue
        if exchange.at_ms <= position.installation.opened_at_ms:
            raise CreditError(
                "exchange_conflict",
                "an exchange must lie after the opening of the meter that it replaces",
                (exchange, "time"),
                (position.installation, "opened_at"),
            )
        first = by_time.setdefault(exchange.at_ms, exchange)
        if first != exchange:
            raise CreditError(
                "exchange_conflict",
                "two different exchanges at one instant: keep one of them",
                (exchange, "time"),
                (first, "time"),
            )
    return [by_time[at_ms] for at_ms in sorted(by_time)]
