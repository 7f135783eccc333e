"""A token whose answer went with a broker: carried again long before its command's expiry."""

from typing import Any

import pytest

from store import clockwork, outbox, supply
from store.clockwork import SILENCE_MS
from store.supply import TOKEN_EXPIRY_MS
from tests.integration.vending.conftest import NOON

MINUTE = 60_000


def heard(desk: Any, box: Any, at_ms: int) -> None:
    sql = "UPDATE meter_state SET seen_at = at_ms(%s) WHERE meter_id = %s"
    desk.conn.execute(sql, (at_ms, box.id))


def sent(desk: Any, box: Any) -> str:
    ((command, _),) = box.waiting()
    supply.mark_sent(desk.conn, [command], NOON)
    return str(command)


def states(desk: Any) -> list[str]:
    return [state for (state,) in desk.conn.execute("SELECT state FROM command ORDER BY ctr")]


@pytest.mark.parametrize("word", ["sent", "accepted", "executing"])
def test_a_token_that_a_meter_is_silent_on_is_carried_again(desk: Any, word: str) -> None:
    box = desk.meter()
    top_up = desk.vend(box)
    command = sent(desk, box)
    desk.conn.execute("UPDATE command SET state = %s WHERE id = %s", (word, command))
    now_ms = NOON + SILENCE_MS + MINUTE
    heard(desk, box, now_ms)
    clockwork.close_overdue(desk.conn, now_ms)
    # A meter that has just come back may be answering: nothing goes at once.
    assert states(desk) == ["unknown"]
    clockwork.close_overdue(desk.conn, now_ms + MINUTE)
    assert states(desk) == ["unknown", "queued"]
    assert box.take(now_ms + MINUTE) == [["Accept"]]
    assert desk.state(top_up) == (True, False)


def test_a_token_that_was_taken_and_not_answered_is_not_taken_twice(desk: Any) -> None:
    box = desk.meter()
    top_up = desk.vend(box)
    assert box.take(NOON, lose_answers=True) == [["Accept"]]
    now_ms = NOON + SILENCE_MS + MINUTE
    heard(desk, box, now_ms)
    clockwork.close_overdue(desk.conn, now_ms)
    clockwork.close_overdue(desk.conn, now_ms + MINUTE)
    assert box.take(now_ms + MINUTE) == [["UsedError"]]
    assert desk.state(top_up) == (True, False)


def test_a_word_that_comes_late_after_all_ends_it(desk: Any) -> None:
    box = desk.meter()
    top_up = desk.vend(box)
    command = sent(desk, box)
    (digits,) = desk.conn.execute("SELECT digits FROM token").fetchone()
    now_ms = NOON + SILENCE_MS + MINUTE
    heard(desk, box, now_ms)
    clockwork.close_overdue(desk.conn, now_ms)
    box.answer(command, [box.enter(digits)], now_ms)
    clockwork.close_overdue(desk.conn, now_ms + MINUTE)
    assert states(desk) == ["done"]
    assert desk.state(top_up) == (True, False)


@pytest.mark.parametrize("at_ms", [None, NOON, NOON + SILENCE_MS - 1])
def test_a_token_waits_for_a_meter_that_is_away(desk: Any, at_ms: int | None) -> None:
    box = desk.meter()
    desk.vend(box)
    sent(desk, box)
    if at_ms is not None:
        heard(desk, box, at_ms)
    clockwork.close_overdue(desk.conn, NOON + TOKEN_EXPIRY_MS - MINUTE)
    assert states(desk) == ["sent"]
    assert outbox.standing(desk.conn).commands == 0
