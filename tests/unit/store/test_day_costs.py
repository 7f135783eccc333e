"""Costs of finished days: what is asked of the ledger for them, and what is made of its answer."""

from datetime import date, timedelta
from zoneinfo import ZoneInfo

from credit_engine.terms import Tariff
from store.day_costs import DayCosts, Finished

UTC = Tariff(ZoneInfo("UTC"), "MRU", frozenset(), ())
DAY_MS = 86_400_000


def days(first: int, count: int) -> list[date]:
    return [date(1970, 1, 1) + timedelta(days=first + place) for place in range(count)]


def asked(newest: int, first: int, count: int, account: int = 1) -> Finished:
    return Finished(account, newest, days(first, count), UTC)


def learnt(costs: DayCosts, each: Finished, micro: dict[int, int]) -> None:
    row = (each.account_id, each.newest, list(micro), list(micro.values()))
    costs.learn({each.account_id: each}, [row])


def test_an_account_without_whole_days_has_no_costs_to_learn() -> None:
    assert DayCosts().of(asked(7, 100, 0)) == ()


def test_the_first_time_all_days_are_summed() -> None:
    costs, each = DayCosts(), asked(7, 100, 3)
    assert costs.of(each) is None
    wanted = costs._wanted([each])
    assert (wanted["known"], wanted["new_days"]) == ([0], [100])
    assert (wanted["from_ms"], wanted["to_ms"]) == ([100 * DAY_MS], [103 * DAY_MS])
    # Each new day lies between the end of the one before it and its own.
    assert wanted["edge_accounts"] == [1] * 4
    assert wanted["edge_days"] == [99, 100, 101, 102]
    assert wanted["edge_ms"] == [day * DAY_MS for day in range(100, 104)]
    learnt(costs, each, {100: 5, 102: 9})
    assert list(costs.of(each) or ()) == [5, 0, 9]


def test_later_what_is_newer_is_added_and_days_move_on() -> None:
    costs = DayCosts()
    learnt(costs, asked(7, 100, 3), {100: 5, 101: 6, 102: 9})
    each = asked(8, 101, 4)
    assert costs.of(each) is None
    wanted = costs._wanted([each])
    assert (wanted["known"], wanted["new_days"]) == ([7], [103])
    assert (wanted["from_ms"], wanted["to_ms"]) == ([101 * DAY_MS], [105 * DAY_MS])
    assert wanted["edge_ms"] == [day * DAY_MS for day in (103, 104, 105)]
    learnt(costs, each, {101: -1, 103: 4, 104: 3})
    assert list(costs.of(each) or ()) == [5, 9, 4, 3]


def test_without_a_new_day_no_debits_are_asked_for() -> None:
    costs = DayCosts()
    learnt(costs, asked(7, 100, 3), {100: 5})
    wanted = costs._wanted([asked(8, 100, 3)])
    assert (wanted["known"], wanted["edge_ms"]) == ([7], [])


def test_days_that_go_back_are_summed_anew() -> None:
    costs = DayCosts()
    learnt(costs, asked(7, 100, 3), {100: 5})
    each = asked(8, 99, 3)
    wanted = costs._wanted([each])
    assert (wanted["known"], wanted["new_days"]) == ([0], [99])
    learnt(costs, each, {99: 1, 100: 2})
    assert list(costs.of(each) or ()) == [1, 2, 0]


def test_fewer_days_and_days_after_a_pause() -> None:
    costs = DayCosts()
    learnt(costs, asked(7, 100, 3), {100: 5, 101: 6})
    learnt(costs, asked(8, 100, 2), {})
    assert list(costs.of(asked(8, 100, 2)) or ()) == [5, 6]
    late = asked(9, 120, 2)
    assert costs._wanted([late])["new_days"] == [120]
    learnt(costs, late, {121: 3})
    assert list(costs.of(late) or ()) == [0, 3]


def test_what_was_posted_between_two_statements_leaves_days_unknown() -> None:
    costs, each = DayCosts(), asked(7, 100, 1)
    costs.learn({1: each}, [(1, 8, [100], [5])])
    assert costs.of(each) is None
    assert list(costs.of(asked(8, 100, 1)) or ()) == [5]


def test_of_too_many_accounts_those_are_forgotten_who_came_first() -> None:
    costs = DayCosts(limit=2)
    for account in (1, 2, 3):
        learnt(costs, asked(7, 100, 1, account), {100: account})
    assert costs.of(asked(7, 100, 1, 1)) is None
    assert [list(costs.of(asked(7, 100, 1, account)) or ()) for account in (2, 3)] == [[2], [3]]
