"""What must be stored, billed and known of one customer, and where what was found differs.

Everything expected follows from what the simulated meters did (`simulators.device`) and from simple
arithmetic (`simulators.auditor`); what was found is handed in by whoever read it. The engine has no
part in either.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from schemas.commands import TOKEN_SUCCESSES
from schemas.quantities import format_instant, format_micro
from simulators.auditor import SimpleTariff, expected_balance_micro
from simulators.device import Device

# How a command must stand at the server after the meter's last word on it.
ENDS = {"done": "done", "failed": "failed", "refused": "refused"}


@dataclass(frozen=True, slots=True)
class Found:
    """What the server holds of an account and its meters.

    `readings`: (meter, instant) -> (Wh, verdict). `refused`: reason -> how many. `energy_wh` and
    `entries_micro` are sums over the ledger, `balance_micro` is the account's own figure.
    `tokens`: digits -> result. `commands`: id -> (type, state).
    """

    readings: Mapping[tuple[str, int], tuple[int, str | None]]
    refused: Mapping[str, int]
    energy_wh: int
    entries_micro: int
    balance_micro: int
    relays: Mapping[str, str | None]
    tokens: Mapping[str, str | None]
    commands: Mapping[str, tuple[str, str]]


@dataclass(slots=True)
class Installed:
    """A meter's time at the account: from where, and until which instant it counted."""

    device: Device
    opened_ms: int
    opening_wh: int
    closed_ms: int | None = None
    closing_wh: int = 0

    def points(self) -> Iterator[tuple[int, int]]:
        """(instant, true Wh since the opening) of what was said and is billed to this account."""
        for ts_ms in sorted(self.device.arrived):
            if ts_ms > self.opened_ms and (self.closed_ms is None or ts_ms <= self.closed_ms):
                yield ts_ms, self.device.truth[ts_ms] - self.opening_wh
        if self.closed_ms is not None and self.closed_ms not in self.device.arrived:
            yield self.closed_ms, self.closing_wh - self.opening_wh


@dataclass(slots=True)
class Truth:
    """One customer. What a scenario expects beyond the ordinary is written into the last fields.

    `paid`: instant -> micro. `unbilled`: (meter, instant) -> the verdict of a reading that is kept
    and charges nothing. `refused`: reason -> how many messages or rows. `overtaken`: commands whose
    last word at the server is not the meter's, with that word. `forged`: commands that the server
    never gave.
    """

    tariff: SimpleTariff
    installed: list[Installed]
    paid: dict[int, int] = field(default_factory=dict)
    unbilled: dict[tuple[str, int], str] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    overtaken: dict[str, str] = field(default_factory=dict)
    forged: set[str] = field(default_factory=set)

    def curve(self) -> list[tuple[int, int]]:
        """(instant, true Wh since the account began), over all its meters."""
        points: list[tuple[int, int]] = []
        before = 0
        for each in self.installed:
            mine = [
                (ts_ms, before + wh)
                for ts_ms, wh in each.points()
                if (each.device.number, ts_ms) not in self.unbilled
            ]
            points += mine
            before = points[-1][1] if points else 0
        return points

    def differences(self, found: Found, until_ms: int) -> list[str]:
        """One line per difference at `until_ms`; nothing when all is as it must be."""
        return [
            *self._readings(found),
            *self._refusals(found),
            *self._money(found, until_ms),
            *self._supply(found),
            *self._tokens(found),
            *self._commands(found),
        ]

    def checked(self) -> int:
        """How many single things `differences` compares."""
        readings = sum(len(each.device.arrived) for each in self.installed)
        answers = sum(
            len(each.device.answers) + len(each.device.tokens.results) for each in self.installed
        )
        return readings + answers + len(self.installed) + len(self.refused) + 3

    def _readings(self, found: Found) -> Iterator[str]:
        expected = {
            (each.device.number, ts_ms): (
                wh,
                self.unbilled.get((each.device.number, ts_ms), "accepted"),
            )
            for each in self.installed
            for ts_ms, wh in each.device.arrived.items()
        }
        for place in sorted(expected.keys() | found.readings.keys()):
            wanted, seen = expected.get(place), found.readings.get(place)
            if wanted != seen:
                meter, ts_ms = place
                yield f"reading {meter} {format_instant(ts_ms)}: {wanted} is true, found {seen}"

    def _refusals(self, found: Found) -> Iterator[str]:
        for reason in sorted(self.refused.keys() | found.refused.keys()):
            wanted, seen = self.refused.get(reason, 0), found.refused.get(reason, 0)
            if wanted != seen:
                yield f"refused as {reason}: {wanted} had to be, found {seen}"

    def _money(self, found: Found, until_ms: int) -> Iterator[str]:
        curve = self.curve()
        energy_wh = curve[-1][1] if curve else 0
        if found.energy_wh != energy_wh:
            yield f"energy billed: {energy_wh} Wh were used, found {found.energy_wh} Wh"
        opening = (self.installed[0].opened_ms, 0)
        balance = expected_balance_micro(self.tariff, opening, curve, self.paid, until_ms)
        for name, seen in (("balance", found.balance_micro), ("entries", found.entries_micro)):
            if seen != balance:
                yield f"{name}: {format_micro(balance)} is true, found {format_micro(seen)}"

    def _supply(self, found: Found) -> Iterator[str]:
        for each in self.installed:
            seen = found.relays.get(each.device.number)
            relay = each.device.meter.state.relay if each.device.spoke else None
            if seen != relay:
                yield f"relay of {each.device.number}: it is {relay}, found {seen}"

    def _tokens(self, found: Found) -> Iterator[str]:
        for each in self.installed:
            for digits, results in each.device.tokens.results.items():
                taken = any(result in TOKEN_SUCCESSES for result in results)
                seen = found.tokens.get(digits)
                if (seen in TOKEN_SUCCESSES) != taken:
                    yield f"a token of {each.device.number}: {results} is true, found {seen}"

    def _commands(self, found: Found) -> Iterator[str]:
        for each in self.installed:
            yield from self._answers(each.device.answers, found)

    def _answers(self, answers: Mapping[str, str], found: Found) -> Iterator[str]:
        for cmd, said in answers.items():
            if cmd in self.forged:
                continue
            seen = found.commands.get(cmd)
            wanted = self.overtaken.get(cmd, ENDS.get(said))
            if seen is None or (wanted is not None and seen[1] != wanted):
                yield f"command {cmd}: {wanted} is true, found {seen}"


def told(differences: Sequence[str], most: int = 5) -> str:
    """The first differences in one line."""
    more = f"; and {len(differences) - most} more" if len(differences) > most else ""
    return "; ".join(differences[:most]) + more
