"""A run that cuts too large a part of a centre stops, and waits for a person."""

import threading
from typing import Any

import psycopg
import pytest

from store import brakes, clockwork
from store.errors import Conflict, NotFound
from store.terms import TermsCache

Desk = Any


def running_out(desk: Desk, count: int) -> list[int]:
    """Accounts whose credit ends with the midnight of the 2nd of March."""
    tariff = desk.tariff(standing="1.50")
    accounts = [desk.open(tariff) for _ in range(count)]
    for account in accounts:
        desk.pay(account, 1, "2026-03-01T01:00:00Z")
    return accounts


def cut(desk: Desk) -> int:
    row = desk.conn.execute("SELECT count(*) FROM meter_state WHERE desired_relay = 'open'")
    return int(row.fetchone()[0])


def pulled(desk: Desk) -> list[tuple[int, int, int, int]]:
    found = brakes.brakes(desk.conn, all_states=False, limit=9)
    return [(each.cuts, each.wanted, each.most, each.withheld) for each in found]


def one_by_one(desk: Desk, at: str) -> None:
    desk.turn(at)
    while clockwork.settle_due(desk.conn, desk.terms, desk.now, 1):
        pass


def test_a_run_beyond_share_and_number_cuts_nobody_and_is_pulled_once(desk: Desk) -> None:
    desk.set(brake_percent=20, brake_least=3)
    running_out(desk, 10)
    desk.tick("2026-03-02T00:00:01Z")
    assert cut(desk) == 0
    assert pulled(desk) == [(0, 10, 3, 10)]
    desk.tick("2026-03-03T00:00:01Z")
    assert (cut(desk), len(pulled(desk))) == (0, 1)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"brake_percent": 50, "brake_least": 0}, 5),
        ({"brake_percent": 20, "brake_least": 4}, 4),
        ({"brake_percent": None}, 10),
    ],
)
def test_one_by_one_cuts_go_up_to_the_limit_and_no_further(
    desk: Desk, settings: dict[str, Any], expected: int
) -> None:
    desk.set(**settings)
    running_out(desk, 10)
    one_by_one(desk, "2026-03-02T00:00:01Z")
    assert cut(desk) == expected
    assert len(pulled(desk)) == (expected < 10)


def test_cuts_long_ago_do_not_count(desk: Desk) -> None:
    desk.set(brake_percent=0, brake_least=2, brake_minutes=60)
    accounts = running_out(desk, 4)
    late = accounts[2:]
    desk.conn.execute(
        "UPDATE account_state SET due_ms = due_ms + 7200000 WHERE account_id = ANY(%s)", (late,)
    )
    one_by_one(desk, "2026-03-02T00:00:01Z")
    one_by_one(desk, "2026-03-02T02:00:01Z")
    assert (cut(desk), pulled(desk)) == (4, [])


def test_workers_side_by_side_count_as_one(desk: Desk) -> None:
    desk.set(brake_percent=0, brake_least=7)
    running_out(desk, 24)
    desk.turn("2026-03-02T00:00:01Z")

    def work() -> None:
        with psycopg.connect(desk.url, autocommit=True) as conn:
            while clockwork.settle_due(conn, TermsCache(), desk.now, 2):
                pass

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    # They come in twos, and the seventh place is the half of one.
    assert cut(desk) == 6
    assert len(pulled(desk)) == 1


def test_a_release_lets_them_all_go_and_what_comes_soon_after(desk: Desk) -> None:
    desk.set(brake_percent=0, brake_least=2)
    running_out(desk, 5)
    desk.tick("2026-03-02T00:00:01Z")
    (brake,) = brakes.brakes(desk.conn, all_states=False, limit=9)
    of = {"by": "chief", "reason": "the holiday is over", "now_ms": desk.now}
    assert brakes.release(desk.conn, brake.id, free_minutes=30, **of) == 5
    desk.tick("2026-03-02T00:10:00Z")
    assert (cut(desk), pulled(desk)) == (5, [])
    with pytest.raises(Conflict) as caught:
        brakes.release(desk.conn, brake.id, free_minutes=30, **of)
    assert caught.value.code == "brake_decided"
    (kept,) = brakes.brakes(desk.conn, all_states=True, limit=9)
    assert (kept.state, kept.decided_by, kept.reason) == ("released", "chief", of["reason"])


def test_a_closed_brake_counts_anew_and_is_pulled_again_by_the_same_run(desk: Desk) -> None:
    desk.set(brake_percent=0, brake_least=2)
    accounts = running_out(desk, 5)
    desk.tick("2026-03-02T00:00:01Z")
    (brake,) = brakes.brakes(desk.conn, all_states=False, limit=9)
    for account in accounts[:3]:
        desk.pay(account, 50, "2026-03-02T01:00:00Z")
    brakes.close(desk.conn, brake.id, by="chief", reason="wrong price", now_ms=desk.now)
    desk.tick("2026-03-02T01:00:01Z")
    assert (cut(desk), pulled(desk)) == (2, [])
    # One more is beyond the two that may go within the hour.
    running_out(desk, 1)
    assert (cut(desk), pulled(desk)) == (2, [(2, 1, 2, 1)])


def test_a_brake_that_is_not_there_or_without_a_reason_is_not_decided(desk: Desk) -> None:
    with pytest.raises(NotFound):
        brakes.close(desk.conn, 7, by="a", reason="b", now_ms=desk.now)
    with pytest.raises(Conflict, match="why"):
        brakes.close(desk.conn, 7, by="a", reason=" ", now_ms=desk.now)
