"""What must be true after every fault, and where it is not.

The truth is what meters measured, did and answered, and what the bank was told; the money comes
from `simulators.auditor`, which shares nothing with the engine. What the server holds is read at
one instant of the database, so that nothing has to stand still: up to a *cut* everything must have
arrived, and at any instant the ledger must be what the stored readings and payments give.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from prepaid.faults.load import Sale
from prepaid.faults.population import TARIFF, Household
from schemas.commands import TOKEN_SUCCESSES
from schemas.decoding import decode_up
from schemas.errors import DomainError
from schemas.identity import ACTIVE_IMPORT
from schemas.quantities import format_instant, format_micro
from schemas.topics import parse
from simulators.auditor import expected_balance_micro
from store.holdings import HeldReading, HeldRefusal, Holdings

# What broke a law: something is gone, something is there twice, or something is not as it must be.
Harm = Literal["loss", "double", "wrong"]
# Commands on which nothing more is awaited.
ENDED = frozenset({"done", "failed", "refused", "expired", "superseded", "unknown"})
# Commands that carry supply or money; the others are asked again by what needs them.
AWAITED = frozenset({"relay", "arm", "token"})
# The meter's own words cannot lie in the future of any later clock.
LAST_MS = 1 << 52
# Readings that a wrong clock dated: refused, or kept and not billed (mqtt.md section 2).
BY_WRONG_CLOCK = frozenset({"clock_lost"})
REFUSED_BY_WRONG_CLOCK = frozenset({"future"})


class Breach(NamedTuple):
    """One case of a broken law."""

    law: str
    harm: Harm
    told: str


class Span(NamedTuple):
    """Instants of the true time between which a clock was wrong."""

    from_ms: int
    to_ms: int


@dataclass(slots=True)
class Truth:
    """What is known apart from the server. `wrong_clocks`: when readings may have been dated by a
    clock that nobody believes. `until_ms`: the latest that the system's clock ever said.
    """

    households: Sequence[Household]
    sales: Mapping[str, Sale]
    wrong_clocks: list[Span] = field(default_factory=list)
    until_ms: int = 0
    # What the server held of readings so far: (meter, instant) -> as last seen.
    book: dict[tuple[str, int], HeldReading] = field(default_factory=dict)
    _refused: set[tuple[str, int]] = field(default_factory=set)
    # What the meters had done before the server was looked at: (meter, command, how often).
    _executed: list[tuple[str, str, int]] = field(default_factory=list)
    _entered: list[tuple[str, str]] = field(default_factory=list)

    def note(self) -> None:
        """What the meters have done so far: the server, looked at after this, must know of it."""
        self._executed = [
            (each.number, cmd, count)
            for each in self.households
            for cmd, count in each.meter.testimony.executed.items()
        ]
        self._entered = [
            (each.number, digits)
            for each in self.households
            for digits in each.meter.testimony.tokens.results
        ]

    def take(self, holdings: Holdings, since_ms: int) -> None:
        """Keep what is held of readings since an instant; what is gone is forgotten."""
        for place in [each for each in self.book if each[1] >= since_ms]:
            if place not in holdings.readings:
                del self.book[place]
        self.book.update(holdings.readings)

    # --- what must be held --------------------------------------------------------------------

    def settled(self, place: tuple[str, int], held: Mapping[tuple[str, int], HeldReading]) -> bool:
        """Whether a measured reading is held, or was refused as it had to be."""
        return place in held or place in self._refused

    def _missing(self, since_ms: int, cut_ms: int) -> Iterator[Breach]:
        for each in self.households:
            measured = each.meter.testimony.measured
            for ts_ms in latest(measured, since_ms):
                if ts_ms <= cut_ms and not self.settled((each.number, ts_ms), self.book):
                    told = f"reading {each.number} {format_instant(ts_ms)}: {measured[ts_ms]} Wh"
                    yield Breach("readings_held", "loss", f"{told}, not held")

    def breaches(self, holdings: Holdings, since_ms: int, cut_ms: int) -> list[Breach]:
        """Every law but those of `prepaid audit`; nothing when all is as it must be. Readings of
        (since, cut] must be held; what was measured before is held, or was told before.
        """
        found = [*self._refusals(holdings.refusals)]
        found += self._missing(since_ms, cut_ms)
        found += self._readings()
        found += self._payments(holdings, cut_ms)
        found += self._tokens(holdings, cut_ms)
        found += self._commands(holdings)
        return found or [*self._money(holdings)]

    def _refusals(self, refusals: Sequence[HeldRefusal]) -> Iterator[Breach]:
        for each in refusals:
            places = [*_places(each)]
            told = f"{each.reason} on {each.topic}: {bytes(each.payload)[:120]!r}"
            lawful = each.reason in REFUSED_BY_WRONG_CLOCK and all(
                self._by_wrong_clock(ts_ms) for _, ts_ms in places
            )
            if lawful:
                self._refused.update(places)
            else:
                yield Breach("nothing_refused", "wrong", told)

    def _by_wrong_clock(self, ts_ms: int) -> bool:
        return any(span.from_ms <= ts_ms <= span.to_ms for span in self.wrong_clocks)

    def _readings(self) -> Iterator[Breach]:
        measured = {each.number: each.meter.testimony.measured for each in self.households}
        for (number, ts_ms), held in self.book.items():
            wh = measured[number].get(ts_ms) if number in measured else None
            where = f"reading {number} {format_instant(ts_ms)}"
            if wh is None:
                yield Breach("readings_true", "double", f"{where}: {held.wh} Wh, never measured")
            elif wh != held.wh:
                yield Breach("readings_true", "wrong", f"{where}: {wh} is true, found {held.wh}")
            elif held.verdict != "accepted" and not (
                held.verdict in BY_WRONG_CLOCK and self._by_wrong_clock(ts_ms)
            ):
                yield Breach("readings_true", "wrong", f"{where}: found {held.verdict}")

    def _payments(self, holdings: Holdings, cut_ms: int) -> Iterator[Breach]:
        for txn, sale in self.sales.items():
            rows, micro = holdings.payments.get(txn, (0, 0))
            where = f"payment {txn} of {format_micro(sale.micro)}"
            if sale.refused is not None:
                yield Breach("payments_once", "wrong", f"{where}: refused as {sale.refused}")
            elif sale.top_up is not None and not rows:
                yield Breach("payments_once", "loss", f"{where}: acknowledged, not there")
            elif rows > 1:
                yield Breach("payments_once", "double", f"{where}: there {rows} times")
            elif rows and micro != sale.micro:
                yield Breach("payments_once", "wrong", f"{where}: {format_micro(micro)} is there")
            elif sale.top_up is None and sale.asked_ms <= cut_ms:
                told = f"{where}: no answer to {sale.requests} requests"
                yield Breach("payments_answered", "loss", told)
        for txn in holdings.payments.keys() - self.sales.keys():
            yield Breach("payments_once", "double", f"payment {txn}: nobody made it")

    def _tokens(self, holdings: Holdings, cut_ms: int) -> Iterator[Breach]:
        meters = {each.number: each.meter.testimony for each in self.households}
        young = {
            sale.meter
            for sale in self.sales.values()
            if sale.asked_ms > cut_ms or sale.top_up is None
        }
        for digits, token in holdings.tokens.items():
            results = meters[token.meter].tokens.results.get(digits, [])
            taken = results.count("Accept")
            where = f"a token of {token.meter}"
            if taken > 1:
                yield Breach("tokens_once", "double", f"{where}: accepted {taken} times")
            elif token.meter in young:
                continue  # it may be on its way
            elif taken == 0:
                told = f"{where}: the meter's words are {results}, the server's {token.result}"
                yield Breach("tokens_once", "loss", told)
            elif token.result not in TOKEN_SUCCESSES:
                yield Breach("tokens_once", "wrong", f"{where}: accepted, found {token.result}")
        for number, digits in self._entered:
            if digits not in holdings.tokens:
                told = f"a token of {number}: nobody issued {digits[:4]}..."
                yield Breach("tokens_once", "wrong", told)

    def _commands(self, holdings: Holdings) -> Iterator[Breach]:
        for number, cmd, count in self._executed:
            held = holdings.commands.get(cmd)
            if count > 1:
                told = f"command {cmd} of {number}: done {count} times"
                yield Breach("commands_once", "double", told)
            elif held is None or held.meter != number:
                yield Breach("commands_once", "wrong", f"command {cmd}: nobody gave it")

    def unsettled(self, holdings: Holdings, watched: set[str]) -> list[Breach]:
        """Commands of `watched` whose end is not known, or known otherwise than the meter says."""
        found = []
        answers = {
            cmd: words
            for each in self.households
            for cmd, words in each.meter.testimony.answers.items()
        }
        for cmd in watched:
            held = holdings.commands.get(cmd)
            if held is None or held.type not in AWAITED:
                continue
            said = answers.get(cmd)
            if held.state not in ENDED:
                told = f"command {cmd} ({held.type}) of {held.meter}: still {held.state}"
                found.append(Breach("commands_end", "loss", told))
            elif said is not None and held.state in {"expired", "unknown"}:
                # The word came too late to count, and counts all the same for what it says.
                continue
            elif said is not None and held.state not in {*said, "superseded"}:
                words = " and ".join(sorted(said))
                told = f"command {cmd} ({held.type}) of {held.meter}: {words}, found {held.state}"
                found.append(Breach("commands_end", "wrong", told))
        return found

    def _money(self, holdings: Holdings) -> Iterator[Breach]:
        curves: dict[str, list[tuple[int, int]]] = {each.number: [] for each in self.households}
        for (number, ts_ms), held in sorted(self.book.items()):
            if held.verdict == "accepted" and number in curves:
                curves[number].append((ts_ms, held.wh))
        paid: dict[str, int] = {each.number: each.credit_micro for each in self.households}
        for txn, (_, micro) in holdings.payments.items():
            paid[self.sales[txn].meter] += micro
        for each in self.households:
            curve, sums = curves[each.number], holdings.sums[each.account]
            used_wh = curve[-1][1] - each.opening_wh if curve else 0
            if sums.energy_wh != used_wh:
                told = f"{each.account}: {used_wh} Wh were used, {sums.energy_wh} Wh are billed"
                harm: Harm = "loss" if sums.energy_wh < used_wh else "double"
                yield Breach("energy_billed", harm, told)
            until_ms = max(self.until_ms, curve[-1][0] if curve else 0)
            opening = (each.opened_ms, each.opening_wh)
            credit = {each.opened_ms: paid[each.number]}
            true = expected_balance_micro(TARIFF, opening, curve, credit, until_ms)
            for name in ("entries_micro", "balance_micro"):
                seen = getattr(sums, name)
                if seen != true:
                    told = f"{each.account}: {format_micro(true)} is true, {name} is "
                    harm = "loss" if seen > true else "double"
                    yield Breach("balance_true", harm, told + format_micro(seen))

    def relays(self, holdings: Holdings, numbers: set[str]) -> set[str]:
        """Of these meters those whose relay the server knows as it is now."""
        return {
            each.number
            for each in self.households
            if each.number in numbers and holdings.relays.get(each.number) == each.meter.state.relay
        }


def _places(refusal: HeldRefusal) -> Iterator[tuple[str, int]]:
    """The readings (meter, instant) of a refused message or row."""
    try:
        topic = parse(refusal.topic)
    except DomainError:
        return
    if topic.kind != "reading":
        return
    decoded = decode_up(topic, refusal.payload, refusal.content_type, LAST_MS)
    for reading in decoded.readings:
        if reading.register == ACTIVE_IMPORT:
            yield reading.meter, reading.ts_ms


def latest(measured: dict[int, int], since_ms: int) -> Iterator[int]:
    """Instants of the last readings of a meter, newest first, as far back as an instant."""
    for ts_ms in reversed(measured):
        if ts_ms < since_ms:
            return
        yield ts_ms
