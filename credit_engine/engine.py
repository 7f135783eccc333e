"""`advance`: facts and terms in, postings, verdicts and the supply out.

Laws (rating contract, section 11), with `p` a position and facts as a set:
- any order and any duplication of the facts give the same outcome;
- `advance(p, facts, c)` equals `advance(p, facts up to b, b)` followed by `advance` from the
  position of that, with the facts not before it, up to `c`;
- stored positions affect cost, never meaning;
- the legs of each posting sum to zero, and no instant is charged twice.
"""

from collections.abc import Collection, Iterable, Sequence

from credit_engine.consumption import Interval, judge, walk
from credit_engine.days import Day, cell_at, day_at
from credit_engine.errors import CreditError
from credit_engine.facts import (
    Adjustment,
    EmergencyRequest,
    Exchange,
    Fact,
    Reading,
    Reversal,
    TopUp,
)
from credit_engine.outcome import Outcome, Status, Verdict
from credit_engine.position import GENESIS_MS, Position, Totals
from credit_engine.rating import Books
from credit_engine.supply import SupplyState, next_charge_ms
from credit_engine.terms import Terms
from credit_engine.timeline import Timeline, distinct


def advance(
    terms: Terms,
    position: Position,
    facts: Iterable[Fact],
    until_ms: int,
    *,
    keep_at: Collection[int] = (),
) -> Outcome:
    """Rate the facts since `position` up to `until_ms` (an instant not before it).

    Facts come in any order, duplicates included; readings that conflict keep the order in which
    they arrived. All lie at or after the position, readings after it; a fact after `until_ms` is
    not yet a fact. Postings at the instant of the position are part of the answer, except energy.
    `keep_at`: instants of accepted readings whose positions are wanted among the checkpoints.
    Errors: CreditError with late_fact, unknown_top_up, top_up_conflict, reversal_conflict,
    adjustment_conflict, exchange_conflict.
    """
    given = facts if isinstance(facts, Sequence) else tuple(facts)
    if len(given) == 1 and not keep_at:
        reading = given[0]
        if isinstance(reading, Reading):
            outcome = _next_reading(terms, position, reading, until_ms)
            if outcome is not None:
                return outcome
    if not given:
        outcome = _same_day(terms, position, until_ms)
        if outcome is not None:
            return outcome
    return rate_in_general(terms, position, given, until_ms, keep_at)


def rate_in_general(
    terms: Terms,
    position: Position,
    facts: Sequence[Fact],
    until_ms: int,
    keep_at: Collection[int] = (),
) -> Outcome:
    """`advance` without its short paths; the same answer for every input."""
    if until_ms < position.at_ms:
        raise CreditError("late_fact", "`until` lies before the position: rate from an older one")
    facts = [fact for fact in facts if fact.at_ms <= until_ms]
    for fact in facts:
        _refuse_late(position, fact)
    verdicts, intervals = walk(
        position, [fact for fact in facts if isinstance(fact, Reading | Exchange)]
    )
    kept = distinct(
        (fact for fact in facts if isinstance(fact, TopUp)),
        (fact for fact in facts if isinstance(fact, Reversal)),
        (fact for fact in facts if isinstance(fact, EmergencyRequest)),
        (fact for fact in facts if isinstance(fact, Adjustment)),
        intervals,
    )
    timeline = Timeline(terms, position, kept, until_ms, keep_at)
    timeline.run()
    day = day_at(terms.tariff, until_ms)
    books = timeline.books
    return Outcome(
        timeline.positions[-1] if timeline.positions else position,
        tuple(books.postings),
        verdicts,
        tuple(timeline.positions[: timeline.checkpoints]),
        timeline.supply.status(until_ms, books.balance_micro, books.debt_micro, day),
        books.totals(day),
    )


def _refuse_late(position: Position, fact: Fact) -> None:
    if fact.at_ms > position.at_ms or position.at_ms == GENESIS_MS:
        return
    if fact.at_ms == position.at_ms:
        if isinstance(fact, Exchange):
            if fact.at_ms == position.installation.opened_at_ms:
                return
        elif not isinstance(fact, Reading):
            return
    raise CreditError(
        "late_fact",
        "a fact lies before the position: rate again from an older position",
        (fact, "time"),
    )


def _next_reading(
    terms: Terms, position: Position, reading: Reading, until_ms: int
) -> Outcome | None:
    """The common case: one reading in order, inside one cell, and nothing else. None: not that."""
    at_ms, start_ms = reading.at_ms, position.register_at_ms
    meter = position.installation
    if (
        position.at_ms != start_ms
        or not start_ms < at_ms <= until_ms
        or (reading.meter_id is not None and reading.meter_id != meter.meter_id)
    ):
        return None
    cell = cell_at(terms.tariff, start_ms)
    day = cell.day
    if until_ms >= cell.end_ms or start_ms == day.start_ms:
        return None
    judgement, energy = judge(meter, start_ms, position.register_wh, at_ms, reading.wh)
    if judgement != "accepted" or position.reconnect_armed or position.emergency_in_use:
        return None
    interval = Interval(
        start_ms,
        at_ms,
        position.register_wh,
        reading.wh,
        energy,
        meter.meter_id,
        meter,
        at_ms,
        reading.wh,
    )
    books = Books(terms, position.totals)
    books.charge_energy(cell, interval, start_ms, at_ms, energy)
    balance = books.balance_micro
    if balance <= 0 and (terms.reconnect_at_micro is not None or _on_request(terms)):
        return None
    totals = Totals(
        balance,
        books.debt_micro,
        books.cap_month,
        books.cap_used_micro,
        books.consumed_wh,
        books.taxed_micro,
    )
    status = _status(terms, position, until_ms, balance, totals.debt_micro, day)
    return Outcome(
        Position(at_ms, meter, at_ms, reading.wh, totals),
        tuple(books.postings),
        (Verdict(reading, meter.meter_id, at_ms, reading.wh, "accepted"),),
        (),
        status,
        totals,
    )


def _same_day(terms: Terms, position: Position, until_ms: int) -> Outcome | None:
    """A look at an account within the day of its position, no fact since. None: not that."""
    if position.at_ms == GENESIS_MS or terms.reconnect_at_micro is not None or _on_request(terms):
        return None
    day = day_at(terms.tariff, position.at_ms)
    if not day.start_ms < position.at_ms <= until_ms < day.end_ms:
        return None
    books = Books(terms, position.totals)
    balance, debt = books.balance_micro, books.debt_micro
    status = _status(terms, position, until_ms, balance, debt, day)
    return Outcome(position, (), (), (), status, books.totals(day))


def _status(
    terms: Terms, position: Position, until_ms: int, balance: int, debt: int, day: Day
) -> Status:
    """Where no past decides the supply."""
    if balance > 0:
        change_ms = next_charge_ms(terms, debt, day)
        return Status(until_ms, balance, debt, "connected", False, False, change_ms)
    supply = SupplyState(terms, position)
    supply.observe(until_ms, balance, requested=False)
    return supply.status(until_ms, balance, debt, day)


def _on_request(terms: Terms) -> bool:
    return terms.emergency is not None and terms.emergency.on_request
