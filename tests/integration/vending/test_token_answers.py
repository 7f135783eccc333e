"""What a meter's word on a command says of each token in it, by either form of the word."""

import json
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import pytest

from schemas.decoding import decode_up
from schemas.quantities import format_instant
from schemas.topics import Topic
from store import dead_letters, issuing, key_changes, supply
from tests.integration.vending.conftest import NOON, STA_HELD

FAULT = {"format": True, "authentication": False, "validation": False, "execution": False}
UNREADABLE = FAULT | {"result": "AuthenticationError"}
USED = FAULT | {"authentication": True, "result": "UsedError"}
TAKEN = dict.fromkeys(FAULT, True) | {"result": "Accept"}


def one_credit(desk: Any) -> Any:
    box = desk.meter(STA_HELD)
    desk.vend(box)
    return box


def a_set(desk: Any) -> Any:
    box = desk.meter(STA_HELD, heard=True)
    desk.adopt()
    with desk.conn.transaction():
        meter = key_changes.lock_token_meter(desk.conn, box.id, NOON)
        issuing.issue_set(desk.conn, desk.module, meter, NOON)
    return box


def a_set_and_credit(desk: Any) -> Any:
    box = desk.meter(STA_HELD)
    desk.adopt()
    desk.vend(box)
    return box


def old_credit_a_set_and_credit(desk: Any) -> Any:
    box = desk.meter(STA_HELD)
    desk.vend(box)
    # The first command is lost.
    desk.conn.execute("UPDATE command SET state = 'sent'")
    desk.adopt()
    desk.vend(box, NOON + 1)
    return box


# By how many tokens their last command has.
COMMANDS = {1: one_credit, 2: a_set, 3: a_set_and_credit, 4: old_credit_a_set_and_credit}
LENGTHS = pytest.mark.parametrize("length", COMMANDS)


def waiting(box: Any, length: int) -> tuple[str, list[str]]:
    ((command, digits),) = [each for each in box.waiting() if len(each[1]) == length]
    supply.mark_sent(box.conn, [command], NOON)
    return command, digits


def say(box: Any, command: str, state: str, **more: Any) -> None:
    form = {"v": 1, "cmd": command, "state": state, "ts": format_instant(NOON), **more}
    topic = Topic("m", box.number, "up", "ack")
    decoded = decode_up(topic, json.dumps(form).encode(), None, NOON)
    assert decoded.ack is not None
    assert supply.answer(box.conn, decoded.ack, box.number, NOON)


def results(box: Any, digits: Sequence[str]) -> list[str | None]:
    found: Mapping[str, str | None] = dict(
        box.conn.execute("SELECT digits, result FROM token WHERE meter_id = %s", (box.id,))
    )
    return [found[each] for each in digits]


def top_ups(box: Any) -> list[tuple[bool, bool]]:
    """Of each top-up, oldest first: whether it is accepted, whether it is rejected."""
    return list(
        box.conn.execute(
            "SELECT accepted_at IS NOT NULL, rejected_at IS NOT NULL FROM top_up"
            " WHERE meter_id = %s ORDER BY receipt_number",
            (box.id,),
        )
    )


def ended(box: Any, command: str) -> tuple[str, int]:
    """The state of a command, and how many dead letters there are."""
    sql = "SELECT state FROM command WHERE id = %s"
    (state,) = box.conn.execute(sql, (command,)).fetchone()
    return state, len(dead_letters.dead_letters(box.conn, all_states=True, limit=9))


@LENGTHS
@pytest.mark.parametrize("form", ["token", "tokens"])
def test_of_a_command_that_is_done_the_last_outcome_tells_as_much_as_all(
    desk: Any, length: int, form: str
) -> None:
    box = COMMANDS[length](desk)
    command, digits = waiting(box, length)
    outcomes = [box.enter(each) for each in digits]
    say(box, command, "done", **{form: outcomes if form == "tokens" else outcomes[-1]})
    assert results(box, digits) == [each["result"] for each in outcomes]
    assert desk.held(box) == box.memory.attributes
    assert all(state == (True, False) for state in top_ups(box))
    assert ended(box, command) == ("done", 0)


@LENGTHS
@pytest.mark.parametrize("state", ["failed", "refused"])
def test_after_a_fault_only_the_last_outcome_is_known(desk: Any, length: int, state: str) -> None:
    box = COMMANDS[length](desk)
    command, digits = waiting(box, length)
    say(box, command, state, token=UNREADABLE)
    assert results(box, digits) == [None] * (length - 1) + ["AuthenticationError"]
    assert ended(box, command) == (state, 1)
    if sold := top_ups(box):
        assert sold == [(False, False)] * (len(sold) - 1) + [(False, True)]


@LENGTHS
def test_on_its_way_the_last_outcome_may_be_of_any_token(desk: Any, length: int) -> None:
    box = COMMANDS[length](desk)
    command, digits = waiting(box, length)
    say(box, command, "executing", token=TAKEN)
    assert results(box, digits) == (["Accept"] if length == 1 else [None] * length)


@pytest.mark.parametrize("form", ["token", "tokens"])
def test_a_token_that_was_delivered_twice_is_done_whichever_word_comes_first(
    desk: Any, form: str
) -> None:
    words = (("failed", USED, None), ("refused", USED, None), ("done", TAKEN, None))
    stale = ("refused", None, "stale")
    for order in permutations((*words, stale)):
        box = one_credit(desk)
        command, _ = waiting(box, 1)
        for state, outcome, why in order:
            more: dict[str, Any] = {} if why is None else {"why": why}
            if outcome is not None:
                more[form] = outcome if form == "token" else [outcome]
            say(box, command, state, **more)
        assert ended(box, command) == ("done", 0)
        assert top_ups(box) == [(True, False)]
