"""What the next days are expected to cost, for accounts that are warned by days left.

Worked out once a local day and kept, so that between two midnights the threshold of low credit
stands still and a crossing is one comparison. It rests on the days that are recorded before the
settlement that asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import lru_cache

from psycopg import Connection

from credit_engine.days import day_at, local_date, midnight_ms
from credit_engine.forecast import WINDOW_DAYS, expected_cost_micro
from credit_engine.terms import Terms
from store.settlement import AccountState, Settled
from store.sql import query


@dataclass(frozen=True, slots=True)
class Usage:
    """What whole local days cost and used, oldest first."""

    costs_micro: tuple[int, ...]
    energy_wh: tuple[int, ...]


def usage(conn: Connection, account_id: int, agreed: Terms, state: AccountState) -> Usage:
    """The days before that of the last register, two weeks of them at most."""
    zone = agreed.tariff.zone
    days, last = finished_days(agreed, state.position.register_at_ms, state.opened_ms)
    if not days:
        return Usage((), ())
    found: dict[date, tuple[int, int]] = {
        day: (micro, wh)
        for day, micro, wh in conn.execute(
            query("daily_costs"),
            {
                "account": account_id,
                "from_ms": midnight_ms(zone, days[0]),
                "to_ms": midnight_ms(zone, last),
            },
        )
    }
    both = [found.get(day, (0, 0)) for day in days]
    return Usage(tuple(micro for micro, _ in both), tuple(wh for _, wh in both))


def finished_days(
    agreed: Terms, register_at_ms: int, opened_ms: int
) -> tuple[tuple[date, ...], date]:
    """The whole days that count, and the day after them."""
    zone = agreed.tariff.zone
    # The day of the last accepted reading is not whole yet, nor is the day of the opening.
    last = local_date(zone, register_at_ms)
    first = max(
        local_date(zone, opened_ms - 1) + timedelta(days=1),
        last - timedelta(days=WINDOW_DAYS),
    )
    return _days(first, last), last


@lru_cache(maxsize=1024)
def _days(first: date, end: date) -> tuple[date, ...]:
    """The days from `first` on before `end`: of nearly all accounts the same ones."""
    return tuple(first + timedelta(days=place) for place in range((end - first).days))


def renewed(conn: Connection, settled: Sequence[Settled]) -> list[Settled]:
    """The settlements with their forecasts as of the local day of each."""
    return [
        _renewed(conn, each)
        if each.before.low_credit_days is not None
        and each.outcome.status.at_ms >= each.before.expected_until_ms
        else each
        for each in settled
    ]


def _renewed(conn: Connection, each: Settled) -> Settled:
    state, tariff = each.before, each.terms.tariff
    day = day_at(tariff, each.outcome.status.at_ms)
    costs = usage(conn, state.account_id, each.terms, state).costs_micro
    # The costs end with the day before the last register.
    last = local_date(tariff.zone, state.position.register_at_ms)
    spent = [
        ((last - timedelta(days=len(costs) - place)).weekday(), micro)
        for place, micro in enumerate(costs)
    ]
    ahead = [(day.date.weekday() + place) % 7 for place in range(state.low_credit_days or 0)]
    expected = expected_cost_micro(spent, ahead) or 0
    of = {"account": state.account_id, "expected_micro": expected, "until_ms": day.end_ms}
    conn.execute(query("keep_expected"), of)
    return replace(
        each, state=replace(each.state, expected_micro=expected, expected_until_ms=day.end_ms)
    )
