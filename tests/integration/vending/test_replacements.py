"""Paid credit that a key change or an exchange left unreadable is given once more, never twice."""

import psycopg
import pytest
from psycopg import errors

from credit_engine.terms import Installation
from schemas.errors import DomainError
from schemas.quantities import parse_instant_ms
from store import (
    audit_log,
    clockwork,
    issuing,
    key_changes,
    registry,
    replacements,
    top_ups,
    vending,
)
from store.audit import audit

NOON = parse_instant_ms("2026-03-02T12:00:00Z")
DAY = 86_400_000
HOUR = 3_600_000
BOUGHT_WH = 20_000
ROLLED = parse_instant_ms("2035-02-01T00:00:00Z")


def give_again(desk, box, *, not_entered=False, now_ms=NOON + HOUR, **word):
    said = {"by": "vera", "reason": "slip 17 was typed in first", **word}
    return replacements.replace(
        desk.conn, desk.module, box.number, not_entered=not_entered, now_ms=now_ms, **said
    )


def digits_of(desk, top_up):
    rows = desk.conn.execute(
        "SELECT digits FROM token WHERE top_up_id = %s AND class = 0 ORDER BY ordinal", (top_up,)
    )
    return [digits for (digits,) in rows]


def change_key(desk, box, now_ms=NOON):
    """A set on paper, typed in whole; an operator saw it accepted."""
    change = issuing.issue_set_of(desk.conn, desk.module, box.number, "vera", now_ms)
    for digits in change.digits:
        box.enter(digits)
    key_changes.confirm_entry(desk.conn, box.number, "vera", now_ms)


def new_krn(desk, box):
    desk.adopt()


def new_ti(desk, box):
    key_changes.want(desk.conn, box.number, NOON, by="vera", ti="07")


@pytest.fixture
def bought(desk):
    """A keypad meter whose credit was printed and not entered, as far as anybody knows."""
    box = desk.meter()
    top_up = desk.vend(box)
    desk.conn.execute("UPDATE command SET state = 'expired'")
    return box, top_up, digits_of(desk, top_up)[0]


def new_krn_of(desk, boxes):
    new_krn(desk, boxes[0])


def new_ti_of(desk, boxes):
    for box in boxes:
        new_ti(desk, box)


def new_sgc_of(desk, boxes):
    desk.adopt(sgc="654321", krn=1)
    for box in boxes:
        key_changes.want(desk.conn, box.number, NOON, by="vera", sgc="654321")


# Whether the old token was entered before the key change, and what is entered after it.
HISTORIES = [(entered, then) for entered in (False, True) for then in ("n", "on", "no", "nn")]


@pytest.mark.parametrize("change", [new_krn_of, new_ti_of, new_sgc_of])
def test_of_a_token_and_its_replacement_the_meter_takes_one(desk, change):
    """The replacement has the same TID, and a key change leaves the meter's memory."""
    boxes = [desk.meter() for _ in HISTORIES]
    bought = [desk.vend(box) for box in boxes]
    desk.conn.execute("UPDATE command SET state = 'expired'")
    for box, top_up, (entered, _) in zip(boxes, bought, HISTORIES, strict=True):
        if entered:
            assert box.enter(digits_of(desk, top_up)[0])["result"] == "Accept"
    change(desk, boxes)
    for box, top_up, (entered, then) in zip(boxes, bought, HISTORIES, strict=True):
        change_key(desk, box)
        (made,) = give_again(desk, box)
        assert made.ground == "same_tid"
        tokens = {"o": digits_of(desk, top_up)[0], "n": made.digits}
        results = [box.enter(tokens[each])["result"] for each in then]
        assert box.credit_wh == BOUGHT_WH, (entered, then, results)
        assert set(results) <= {"Accept", "UsedError", "AuthenticationError"}
        box.take(NOON + HOUR)
        assert box.credit_wh == BOUGHT_WH, "the network brought it too"
        assert desk.state(top_up) == (True, False)
    assert [each for each in audit(desk.conn) if each.failures] == []


def test_a_word_on_the_old_token_after_its_replacement_rejects_nothing(desk, bought):
    """The network brings the old digits late: the meter cannot read them, and that is no news."""
    box, top_up, old = bought
    desk.conn.execute("UPDATE command SET state = 'sent'")
    (command,) = desk.conn.execute("SELECT id::text FROM command").fetchone()
    desk.adopt()
    change_key(desk, box)
    give_again(desk, box)
    box.answer(command, [box.enter(old)], NOON + HOUR)
    assert desk.state(top_up) == (False, False)
    box.take(NOON + HOUR)
    assert desk.state(top_up) == (True, False)


def test_a_token_that_the_new_key_refused_is_given_again_and_waits_again(desk, bought):
    box, top_up, old = bought
    desk.conn.execute("UPDATE command SET state = 'sent'")
    (command,) = desk.conn.execute("SELECT id::text FROM command").fetchone()
    desk.adopt()
    change_key(desk, box)
    box.answer(command, [box.enter(old)], NOON + HOUR)
    assert desk.state(top_up) == (False, True)
    give_again(desk, box)
    assert desk.state(top_up) == (False, False)
    box.take(NOON + HOUR)
    assert desk.state(top_up) == (True, False)


def test_a_replaced_token_is_shown_as_that_and_not_carried_nor_printed_any_more(
    desk, bought, as_owner
):
    box, top_up, old = bought
    with psycopg.connect(as_owner(desk.url), autocommit=True) as owner:
        owner.execute("UPDATE command SET state = 'sent', expires_ms = %s", (NOON + DAY,))
    desk.adopt()
    change_key(desk, box)
    (made,) = give_again(desk, box)
    clockwork.close_overdue(desk.conn, NOON + DAY + 1)
    assert [digits for _, digits in box.waiting()] == [[made.digits]]
    shown = issuing.reprint(desk.conn, top_up, "vera", "lost", NOON)
    assert shown == (made.digits,)
    (account,) = desk.conn.execute("SELECT account_id FROM top_up").fetchone()
    assert top_ups.top_up(desk.conn, account, top_up).tokens == [made.digits]
    states = {
        each.digits: each.state
        for each in top_ups.tokens(desk.conn, account, before_id=None, limit=9)
    }
    assert states == {old: "replaced", made.digits: "issued"}
    (found,) = issuing.find_issued(desk.conn, old)
    assert found.replaced_ms == NOON + HOUR


def test_a_replacement_is_replaced_in_its_turn(desk, bought):
    box, top_up, old = bought
    new_krn(desk, box)
    change_key(desk, box)
    (second,) = give_again(desk, box)
    new_ti(desk, box)
    change_key(desk, box)
    (third,) = give_again(desk, box)
    assert third.replaced.token != second.replaced.token
    assert digits_of(desk, top_up) == [old, second.digits, third.digits]
    acts = audit_log.newest(desk.conn, action="token.replace", limit=9)
    assert [(act.who, act.subject) for act in acts] == [("vera", f"top_up:{top_up}")] * 2
    results = [box.enter(each)["result"] for each in (old, second.digits, third.digits)]
    assert results == ["AuthenticationError", "AuthenticationError", "Accept"]
    rows = desk.conn.execute("SELECT DISTINCT tid FROM token WHERE class = 0").fetchall()
    assert len(rows) == 1


def test_what_the_meter_accepted_can_read_or_will_read_is_not_replaced(desk):
    box = desk.meter()
    desk.vend(box)
    box.take(NOON)
    desk.adopt()
    behind = desk.vend(box, NOON + HOUR)
    assert replacements.stranded(desk.conn, box.number) == []
    with pytest.raises(DomainError) as refusal:
        give_again(desk, box)
    assert refusal.value.code == "key_change_open"
    box.take(NOON + HOUR)
    assert desk.state(behind) == (True, False)
    desk.vend(box, NOON + 2 * HOUR)
    assert replacements.stranded(desk.conn, box.number) == []
    with pytest.raises(DomainError) as refusal:
        give_again(desk, box)
    assert refusal.value.code == "nothing_to_replace"


def test_money_that_was_given_back_buys_nothing_again(desk, bought):
    box, top_up, _ = bought
    (account,) = desk.conn.execute("SELECT account_id FROM top_up").fetchone()
    vending.record_reversal(desk.conn, desk.terms, top_up, account, NOON, NOON)
    desk.adopt()
    change_key(desk, box)
    assert replacements.stranded(desk.conn, box.number) == []


def test_over_a_roll_over_somebody_gives_their_word(desk):
    """RO clears the meter's memory, so that no TID protects."""
    box = desk.meter()
    desk.vend(box, ROLLED - DAY)
    desk.adopt(krn=3, base_date=2035, from_ms=ROLLED, now_ms=ROLLED)
    change_key(desk, box, ROLLED)
    with pytest.raises(DomainError) as refusal:
        give_again(desk, box, now_ms=ROLLED)
    assert refusal.value.code == "entry_unknown"
    (made,) = give_again(desk, box, not_entered=True, now_ms=ROLLED)
    assert made.ground == "not_entered"
    assert box.enter(made.digits)["result"] == "Accept"
    assert box.credit_wh == BOUGHT_WH


def exchange(desk, old, new, at_ms=NOON + HOUR):
    (account,) = desk.conn.execute(
        "SELECT account_id FROM installation i JOIN meter m ON m.id = i.meter_id "
        "WHERE m.number = %s",
        (old.number,),
    ).fetchone()
    registry.exchange_meter(
        desk.conn, account, 0, Installation(new.number, 10**9, at_ms, 0, 100_000), at_ms
    )
    return account


def test_the_meter_that_came_in_its_place_takes_the_credit_of_the_one_that_went(desk):
    went, came = desk.meter(), desk.meter(served=False)
    top_up = desk.vend(went)
    (old,) = digits_of(desk, top_up)
    exchange(desk, went, came)
    with pytest.raises(DomainError) as refusal:
        give_again(desk, came)
    assert refusal.value.code == "entry_unknown", "another meter remembers nothing"
    (made,) = give_again(desk, came, not_entered=True)
    assert (made.replaced.meter, made.ground) == (went.number, "not_entered")
    assert went.waiting() == [], "what was not sent to the old meter is not sent any more"
    assert came.enter(old)["result"] == "AuthenticationError"
    assert came.take(NOON + HOUR) == [["Accept"]]
    assert (came.credit_wh, desk.state(top_up)) == (BOUGHT_WH, (True, False))
    assert [each for each in audit(desk.conn) if each.failures] == []


def test_a_meter_comes_back_only_when_it_cannot_take_what_was_replaced(desk):
    went, came, other = desk.meter(), desk.meter(served=False), desk.meter()
    top_up = desk.vend(went)
    (old,) = digits_of(desk, top_up)
    exchange(desk, went, came)
    give_again(desk, came, not_entered=True)
    with pytest.raises(DomainError) as refusal:
        exchange(desk, other, went, NOON + 2 * HOUR)
    assert refusal.value.code == "key_change_due"
    desk.adopt()
    change_key(desk, went)
    exchange(desk, other, went, NOON + 2 * HOUR)
    assert went.enter(old)["result"] == "AuthenticationError"


def test_the_audit_finds_a_word_that_was_not_true(desk):
    """Somebody said that it was not entered, and the meter that was taken away says otherwise."""
    went, came = desk.meter(), desk.meter(served=False)
    top_up = desk.vend(went)
    desk.conn.execute("UPDATE command SET state = 'sent'")
    (command,) = desk.conn.execute("SELECT id::text FROM command").fetchone()
    exchange(desk, went, came)
    give_again(desk, came, not_entered=True)
    came.take(NOON + HOUR)
    went.answer(command, [went.enter(digits_of(desk, top_up)[0])], NOON + HOUR)
    assert [each.name for each in audit(desk.conn) if each.failures] == ["credit_taken_once"]


@pytest.mark.parametrize(
    ("changed", "code"),
    [({"by": " "}, "reason_missing"), ({"reason": ""}, "reason_missing")],
)
def test_a_replacement_has_a_name_and_a_reason(desk, bought, changed, code):
    with pytest.raises(DomainError) as refusal:
        give_again(desk, bought[0], **changed)
    assert refusal.value.code == code


def test_an_unknown_meter_has_nothing_to_replace(desk, bought):
    with pytest.raises(DomainError) as refusal:
        replacements.stranded(desk.conn, "37000000017")
    assert refusal.value.code == "not_found"


def test_the_database_keeps_one_replacement_for_one_token(desk, bought):
    box, _, _ = bought
    desk.adopt()
    change_key(desk, box)
    give_again(desk, box)
    with pytest.raises(errors.UniqueViolation):
        desk.conn.execute(
            "INSERT INTO token_replacement SELECT replaced_token_id, replaced_token_id, ground, "
            "replaced_by, reason, replaced_at FROM token_replacement"
        )
    for change in ("UPDATE token_replacement SET reason = 'x'", "DELETE FROM token_replacement"):
        with pytest.raises(errors.InsufficientPrivilege):
            desk.conn.execute(change)


def test_a_set_is_issued_once_for_a_meter_that_buys_nothing(desk):
    box = desk.meter()
    with pytest.raises(DomainError) as refusal:
        issuing.issue_set_of(desk.conn, desk.module, box.number, "vera", NOON)
    assert refusal.value.code == "nothing_to_change"
    desk.adopt()
    first = issuing.issue_set_of(desk.conn, desk.module, box.number, "vera", NOON)
    assert issuing.issue_set_of(desk.conn, desk.module, box.number, "vera", NOON) == first
