"""Balances that are answered from a shared statement: word for word what the route would say."""

import asyncio
import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from itertools import count
from threading import Event
from typing import Any

import psycopg
import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from api.dependencies import digest_of
from store import balances, clockwork, operators, reads, registry, tariffs
from store.balances import Asked, Balances, SeenBalance
from store.customer_sessions import SEEN_EVERY_MS
from store.loop_connection import LoopConnection

Site = Any
PHONES: Iterator[str] = (f"+2224{number:07d}" for number in count(6000001))
VARYING = {"date", "x-request-id"}


@pytest.fixture
def of_route(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The accounts whose balance the route looked up itself."""
    seen: list[int] = []
    look = reads.balance

    def noting(conn: Any, terms: Any, account_id: int, now_ms: int) -> reads.Balance:
        seen.append(account_id)
        return look(conn, terms, account_id, now_ms)

    monkeypatch.setattr(reads, "balance", noting)
    return seen


def balance(site: Site, account: str, headers: dict[str, str]) -> Any:
    return site.client.get(f"/v1/accounts/{account}/balance", headers=headers)


def by_the_route(site: Site, account: str, headers: dict[str, str]) -> Any:
    async def nothing(*_: object) -> SeenBalance | None:
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Balances, "find", nothing)
        return balance(site, account, headers)


def asked_by(site: Site, customer: Any) -> Asked:
    key = customer.headers["Authorization"].removeprefix("Bearer ")
    return Asked(digest_of(key), customer.number, site.clock.now, site.wall_ms())


def said(answer: Any) -> tuple[int, bytes, dict[str, str]]:
    kept = {name: value for name, value in answer.headers.items() if name not in VARYING}
    return answer.status_code, answer.content, kept


def used_for_days(site: Site, days: int, **terms: Any) -> Any:
    """A customer whose meter said a register at noon of each day."""
    customer = site.open(**terms)
    for day in range(1, days + 1):
        site.read(customer, f"2026-03-{day:02d}T12:00:00Z", 100_000 + day * day * 700)
    return customer


@pytest.mark.parametrize("days", [0, 1, 3, 9, 20])
def test_an_answer_is_that_of_the_route(site: Site, of_route: list[int], days: int) -> None:
    emergency = {"limit": "20.00", "activation": "on_request"}
    customer = used_for_days(site, days, emergency=emergency)
    phone = next(PHONES)
    site.reach(customer, phone)
    callers = (customer.headers, site.signed_in(phone), site.operator)
    plain = [said(balance(site, customer.number, each)) for each in callers]
    assert {status for status, _, _ in plain} == {200}
    # An account without any reading has facts beside its state: the route looks them up.
    assert of_route == ([] if days else [customer.account_id] * len(callers))
    assert plain == [said(by_the_route(site, customer.number, each)) for each in callers]


def test_time_alone_moves_an_answer(site: Site, of_route: list[int]) -> None:
    customer = used_for_days(site, 3)
    before = balance(site, customer.number, customer.headers).json()
    site.clock.set("2026-03-05T00:00:00Z")
    after = balance(site, customer.number, customer.headers)
    # Two midnights, each 1.20 and its VAT, that no worker has posted.
    moved = float(before["balance"]["amount"]) - float(after.json()["balance"]["amount"])
    assert round(moved, 6) == 2 * 1.392
    assert of_route == []
    assert said(after) == said(by_the_route(site, customer.number, customer.headers))


@pytest.mark.parametrize("days", [2, 6])
def test_top_ups_after_the_last_reading_are_in_the_answer(
    site: Site, of_route: list[int], days: int
) -> None:
    customer = used_for_days(site, days)
    before = balance(site, customer.number, customer.headers).json()
    for place in range(1, 3):
        site.clock.set(f"2026-03-{days:02d}T13:0{place}:00Z")
        assert site.pay(customer, "20.00", f"t{place}").status_code == 201
        paid = balance(site, customer.number, customer.headers)
        moved = float(paid.json()["balance"]["amount"]) - float(before["balance"]["amount"])
        assert round(moved, 6) == 20 * place
        assert of_route == []
        assert said(paid) == said(by_the_route(site, customer.number, customer.headers))
        of_route.clear()
    site.clock.set(f"2026-03-{days + 2:02d}T13:00:00Z")
    later = balance(site, customer.number, customer.headers)
    assert of_route == []
    assert said(later) == said(by_the_route(site, customer.number, customer.headers))


def test_midnights_that_are_posted_are_in_the_answer(site: Site, of_route: list[int]) -> None:
    customers = [used_for_days(site, 4) for _ in range(2)]
    site.clock.set("2026-03-06T01:00:00Z")
    assert site.pay(customers[0], "20.00", "t1").status_code == 201
    assert clockwork.settle_due(site.conn, site.terms, site.clock.now, 100) > 0
    tails = site.conn.execute("SELECT DISTINCT has_tail FROM account_state").fetchall()
    assert tails == [(True,)]
    for customer in customers:
        found = balance(site, customer.number, customer.headers)
        assert of_route == []
        assert said(found) == said(by_the_route(site, customer.number, customer.headers))
        of_route.clear()


OTHERS = {
    "reversal": "INSERT INTO reversal SELECT id, account_id, {now}, 'test' FROM top_up",
    "request": "INSERT INTO emergency_request SELECT account_id, {now} FROM top_up",
    "adjustment": "INSERT INTO adjustment SELECT 'a1', account_id, 7, 'test', 'one', now(),"
    " 'posted', 'other', {now} FROM top_up",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_else_came_after_the_last_reading_is_looked_up_by_the_route(
    site: Site, of_route: list[int], kind: str
) -> None:
    customer = used_for_days(site, 2, emergency={"limit": "20.00", "activation": "on_request"})
    site.clock.set("2026-03-02T13:00:00Z")
    assert site.pay(customer, "20.00", "t1").status_code == 201
    assert balance(site, customer.number, customer.headers).status_code == 200
    assert of_route == []
    site.conn.execute(
        f"{OTHERS[kind]} WHERE account_id = %s".format(now=site.clock.now), (customer.account_id,)
    )
    asked = balance(site, customer.number, customer.headers)
    assert of_route == [customer.account_id]
    assert said(asked) == said(by_the_route(site, customer.number, customer.headers))


def test_a_reading_that_moved_nothing_is_looked_up_by_the_route(
    site: Site, of_route: list[int]
) -> None:
    customer = used_for_days(site, 2)
    assert balance(site, customer.number, customer.headers).status_code == 200
    assert of_route == []
    site.read(customer, "2026-03-02T14:00:00Z", 1)
    asked = balance(site, customer.number, customer.headers)
    assert of_route == [customer.account_id]
    assert said(asked) == said(by_the_route(site, customer.number, customer.headers))


async def test_what_is_posted_between_two_statements_is_looked_up_by_the_route(
    site: Site, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = used_for_days(site, 2)
    site.clock.set("2026-03-02T13:00:00Z")
    assert site.pay(customer, "20.00", "t1").status_code == 201
    asked = asked_by(site, customer)
    shared = Balances(database_url, site.terms)
    assert await shared.find(asked) is not None
    look = Balances._tails

    async def late(*given: Any) -> Any:
        paid = await asyncio.to_thread(site.pay, customer, "20.00", "t2")
        assert paid.status_code == 201
        return await look(*given)

    with monkeypatch.context() as patch:
        patch.setattr(Balances, "_tails", late)
        assert await shared.find(asked) is None
    assert await shared.find(asked) is not None
    await shared.close()


def test_a_last_reading_that_may_be_removed_is_looked_up_by_the_route(
    site: Site, of_route: list[int]
) -> None:
    customer = used_for_days(site, 2)
    site.clock.set("2026-04-01T12:00:00Z")
    assert balance(site, customer.number, customer.headers).status_code == 200
    assert of_route == []
    site.clock.set("2026-04-01T12:00:00.001Z")
    old = balance(site, customer.number, customer.headers)
    assert of_route == [customer.account_id]
    assert said(old) == said(by_the_route(site, customer.number, customer.headers))


def test_an_account_with_a_tariff_of_its_own_is_looked_up_by_the_route(
    site: Site, of_route: list[int]
) -> None:
    customer = used_for_days(site, 1)
    tariffs.assign(
        site.conn,
        customer.account_id,
        "social",
        date(2026, 3, 9),
        who="admin",
        reason="test",
        now_ms=site.clock.now,
    )
    assert balance(site, customer.number, customer.headers).status_code == 200
    assert of_route == [customer.account_id]


def test_who_may_not_see_an_account_is_told_so_by_the_route(
    site: Site, refused: Any, of_route: list[int]
) -> None:
    customer, other = used_for_days(site, 1), used_for_days(site, 1)
    site.reach(customer, next(PHONES))
    phone = next(PHONES)
    body = {"phone": phone, "role": "payer"}
    path = f"/v1/accounts/{customer.number}/grants"
    assert site.client.post(path, headers=customer.headers, json=body).status_code == 201
    payer = site.signed_in(phone)
    registry.add_centre(site.conn, "south", "South")
    operators.add(site.conn, "far", "desk", ("south",), who="test", now_ms=site.clock.now)
    key = operators.add_access_key(site.conn, "far", "t", who="test", now_ms=site.clock.now)
    elsewhere = {"Authorization": f"Bearer {key}"}
    for headers in (other.headers, payer, elsewhere):
        assert refused(balance(site, customer.number, headers)) == (404, "not_found")
    key = customer.headers["Authorization"].removeprefix("Bearer ")
    for value, code in (
        ("Bearer nobody", "access_key_unknown"),
        (f"Bearer {'x' * 200}", "access_key_unknown"),
        (f"Basic {key}", "access_key_missing"),
    ):
        headers = {"Authorization": value}
        assert refused(balance(site, customer.number, headers)) == (401, code)
    assert refused(balance(site, customer.number, {})) == (401, "access_key_missing")
    assert balance(site, customer.number, {"authorization": f"bearer {key}"}).status_code == 200
    assert of_route == [customer.account_id]


def test_a_session_that_ended_or_lay_idle_sees_nothing(site: Site, refused: Any) -> None:
    customer, phone = used_for_days(site, 1), next(PHONES)
    site.reach(customer, phone)
    session = site.signed_in(phone)
    assert balance(site, customer.number, session).status_code == 200
    site.clock.wall += 31 * 24 * 3600
    assert refused(balance(site, customer.number, session)) == (401, "access_key_unknown")
    session = site.signed_in(phone)
    site.conn.execute("UPDATE customer_session SET ended_ms = began_ms")
    assert refused(balance(site, customer.number, session)) == (401, "access_key_unknown")


def test_a_session_in_use_is_noted(site: Site, of_route: list[int]) -> None:
    customer, phone = used_for_days(site, 1), next(PHONES)
    site.reach(customer, phone)
    session = site.signed_in(phone)
    site.clock.wall += SEEN_EVERY_MS // 1000
    assert balance(site, customer.number, session).status_code == 200
    assert seen_ms(site) < site.wall_ms()
    wait_until_noted(site)
    assert of_route == []


def test_sessions_are_noted_at_once_where_many_are_due(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balances, "NOTED_WITHIN_S", 3600.0)
    monkeypatch.setattr(balances, "NOTED_AT_ONCE", 2)
    customers = [used_for_days(site, 1) for _ in range(2)]
    sessions = []
    for customer in customers:
        phone = next(PHONES)
        site.reach(customer, phone)
        sessions.append(site.signed_in(phone))
    site.clock.wall += SEEN_EVERY_MS // 1000
    for customer, session in zip(customers, sessions, strict=True):
        assert seen_ms(site) < site.wall_ms()
        assert balance(site, customer.number, session).status_code == 200
    wait_until_noted(site)


def wait_until_noted(site: Site) -> None:
    until_s = time.monotonic() + 10.0
    while seen_ms(site) != site.wall_ms():
        assert time.monotonic() < until_s
        time.sleep(0.05)


@pytest.mark.parametrize("work", ["_learn_costs", "_touch"])
def test_sums_and_notes_keep_nobody_else_waiting(
    site: Site, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    monkeypatch.setattr(balances, "NOTED_AT_ONCE", 1)
    known, other, phone = used_for_days(site, 3), used_for_days(site, 3), next(PHONES)
    site.reach(other, phone)
    session = site.signed_in(phone)
    site.clock.wall += SEEN_EVERY_MS // 1000
    assert balance(site, known.number, known.headers).status_code == 200
    begun, answered, over = Event(), Event(), Event()
    do, meanwhile = getattr(Balances, work), []

    async def held_up(*given: Any) -> None:
        begun.set()
        meanwhile.append(await asyncio.to_thread(answered.wait, 10.0))
        await do(*given)
        over.set()

    monkeypatch.setattr(Balances, work, held_up)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(balance, site, other.number, session)
        assert begun.wait(10.0)
        assert balance(site, known.number, known.headers).status_code == 200
        answered.set()
        assert first.result().status_code == 200
    assert over.wait(10.0)
    # The known one was answered before the other's work was let go on.
    assert meanwhile == [True]


def test_a_lost_connection_for_sums_is_opened_again(
    site: Site, of_route: list[int], database_url: str, as_owner: Any
) -> None:
    customers = [used_for_days(site, 3) for _ in range(3)]
    assert balance(site, customers[0].number, customers[0].headers).status_code == 200
    with psycopg.connect(as_owner(database_url), autocommit=True) as owner:
        lost = owner.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE '%edge AS MATERIALIZED%'"
            " AND pid <> pg_backend_pid()"
        ).fetchall()
    assert lost == [(True,)]
    for customer in customers[1:]:
        assert balance(site, customer.number, customer.headers).status_code == 200
    assert of_route == [customers[1].account_id]


def seen_ms(site: Site) -> int:
    """When the session that was used last was used."""
    (newest,) = site.conn.execute("SELECT max(seen_ms) FROM customer_session").fetchone()
    return int(newest)


def test_who_asks_for_balances_too_often_waits(hasty_site: Site, refused: Any) -> None:
    site = hasty_site
    customer = used_for_days(site, 1)
    answers = [balance(site, customer.number, customer.headers) for _ in range(8)]
    late = next(each for each in answers if each.status_code != 200)
    assert refused(late) == (429, "too_many_requests")
    assert int(late.headers["retry-after"]) >= 1


def test_each_of_many_who_ask_at_once_is_given_his_own(site: Site) -> None:
    customers = [used_for_days(site, 1) for _ in range(7)]

    def ask(place: int) -> bool:
        customer, other = (customers[(place + more) % 7] for more in (0, 1))
        own = balance(site, customer.number, customer.headers)
        foreign = balance(site, other.number, customer.headers)
        return own.json()["account"] == customer.number and foreign.status_code == 404

    # More than the framework has threads and the pool connections.
    with ThreadPoolExecutor(60) as pool:
        assert all(pool.map(ask, range(180)))


async def test_the_next_statement_is_on_its_way_before_the_last_is_answered(
    site: Site, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = used_for_days(site, 1)
    asked = asked_by(site, customer)
    shared = Balances(database_url, site.terms)
    assert await shared.find(asked) is not None
    order: list[str] = []
    ask, answer = LoopConnection.rows, Balances._answer_batch

    async def asking(*given: Any) -> Any:
        order.append("asked")
        return await ask(*given)

    def answering(*given: Any) -> None:
        order.append("answered")
        answer(*given)

    monkeypatch.setattr(LoopConnection, "rows", asking)
    monkeypatch.setattr(Balances, "_answer_batch", answering)
    first = asyncio.create_task(shared.find(asked))
    while not order:
        await asyncio.sleep(0)
    assert await shared.find(asked) == await first is not None
    assert order == ["asked", "asked", "answered", "answered"]
    await shared.close()


def test_a_defect_leaves_nobody_waiting(
    site: Site, of_route: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = used_for_days(site, 1)

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a defect of ours")

    with monkeypatch.context() as patch:
        patch.setattr(balances, "_seen", broken)
        assert balance(site, customer.number, customer.headers).status_code == 200
    assert of_route == [customer.account_id]
    assert balance(site, customer.number, customer.headers).status_code == 200
    assert of_route == [customer.account_id]


def test_what_was_answered_waits_for_no_collector(site: Site) -> None:
    customer = used_for_days(site, 1)
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            assert balance(site, customer.number, customer.headers).status_code == 200
        # A connection holds its last request.
        kept = [each for each in gc.get_objects() if isinstance(each, RequestResponseCycle)]
    finally:
        gc.enable()
    assert len(kept) < 10


async def test_a_database_that_is_away_gives_none_and_is_left_alone_for_a_while(
    site: Site,
) -> None:
    away = Balances("postgresql://127.0.0.1:1/nowhere", site.terms)
    asked = Asked(b"x" * 32, "A-1", site.clock.now, site.wall_ms())
    assert await away.find(asked) is None
    assert await away.find(asked) is None
    await away.close()
