"""A purchase brings the meter to the key that it should hold, and the record follows the meter."""

from dataclasses import replace

import pytest

from schemas.errors import DomainError
from schemas.quantities import parse_instant_ms
from store import clockwork, key_changes
from store.audit import audit
from tokens.errors import TokenError

NOON = parse_instant_ms("2026-03-02T12:00:00Z")
DAY = 86_400_000
# 100 MRU at 5 a kWh.
BOUGHT_WH = 20_000
QUAD = ["1stKCT", "2ndKCT", "2ndKCT", "Accept"]


@pytest.fixture
def held(desk):
    return desk.held(desk.meter(served=False))


def test_a_meter_on_the_current_key_gets_credit_alone(desk):
    desk.adopt(krn=1)
    box = desk.meter()
    top_up = desk.vend(box)
    assert desk.tokens(top_up) == [(1, 0, 0, None)]
    assert box.take(NOON) == [["Accept"]]
    assert desk.state(top_up) == (True, False)
    assert box.credit_wh == BOUGHT_WH


def test_without_a_recorded_vending_key_the_meter_keeps_its_own(desk):
    box = desk.meter()
    assert [row[1:3] for row in desk.tokens(desk.vend(box))] == [(0, 0)]


def test_a_new_revision_goes_first_and_the_credit_is_under_the_new_key(desk):
    box = desk.meter()
    desk.adopt()
    top_up = desk.vend(box)
    assert [row[:3] for row in desk.tokens(top_up)] == [
        (1, 2, 3), (2, 2, 4), (3, 2, 8), (4, 2, 9), (5, 0, 0),
    ]  # fmt: skip
    assert desk.held(box).krn == 1, "issuing changes no record"
    assert box.take(NOON) == [[*QUAD, "Accept"]]
    assert (box.memory.attributes, box.credit_wh) == (desk.held(box), BOUGHT_WH)
    assert desk.held(box).krn == 2
    assert desk.state(top_up) == (True, False)
    assert len(desk.tokens(desk.vend(box))) == 1, "the next purchase is credit alone"


@pytest.mark.parametrize("third_kct", [False, True], ids=["pair", "triplet"])
def test_an_sta_meter_takes_a_pair_or_a_triplet(desk, held, third_kct):
    box = desk.meter(replace(held, ea=7), third_kct=third_kct)
    desk.adopt()
    top_up = desk.vend(box)
    assert [row[2] for row in desk.tokens(top_up)] == [3, 4, *([8] if third_kct else []), 0]
    assert box.take(NOON)[0][-2:] == ["Accept", "Accept"]
    assert desk.held(box).krn == 2
    assert box.credit_wh == BOUGHT_WH


@pytest.mark.parametrize(
    ("before", "adopted", "wanted"),
    [
        ({}, {"krn": 1, "ken": 200}, {"ken": 200}),
        ({"base_date": 1993}, {}, {"base_date": 2014, "krn": 2}),
        ({"kt": 1}, {"krn": 1}, {"kt": 2}),
    ],
    ids=["KEN", "base date", "default key"],
)
def test_each_attribute_that_differs_brings_a_key_change(desk, held, before, adopted, wanted):
    box = desk.meter(replace(held, **before))
    desk.adopt(**adopted)
    desk.vend(box)
    assert box.take(NOON) == [[*QUAD, "Accept"]]
    assert desk.held(box) == replace(held, **wanted) == box.memory.attributes


def test_an_operator_moves_a_meter_to_another_group_and_tariff_index(desk, held):
    box = desk.meter()
    desk.adopt(sgc="654321", krn=1)
    wanted = replace(held, sgc="654321", ti="07")
    assert key_changes.want(desk.conn, box.number, NOON, by="vera", sgc="654321", ti="07") == wanted
    desk.vend(box)
    assert box.take(NOON) == [[*QUAD, "Accept"]]
    assert desk.held(box) == wanted == box.memory.attributes


def test_a_set_is_carried_again_until_the_meter_confirms_it(desk):
    box = desk.meter()
    desk.adopt()
    first, second = desk.vend(box), desk.vend(box)
    both = box.waiting()
    assert both[0][1][:4] == both[1][1][:4], "the same set, not another"
    # The meter reads the first; to its new key the set of the second is foreign, its credit is not.
    assert box.take(NOON) == [[*QUAD, "Accept"], ["AuthenticationError"] * 4 + ["Accept"]]
    assert (desk.state(first), desk.state(second)) == ((True, False), (True, False))
    assert box.credit_wh == 2 * BOUGHT_WH


def test_credit_that_is_read_proves_a_set_that_was_typed_in(desk):
    box = desk.meter()
    desk.adopt()
    top_up = desk.vend(box)
    for digits in box.waiting()[0][1][:4]:
        box.enter(digits)
    assert box.take(NOON) == [["AuthenticationError"] * 4 + ["Accept"]]
    assert desk.held(box).krn == 2
    assert desk.state(top_up) == (True, False)


def test_a_part_of_a_set_changes_no_record(desk):
    box = desk.meter()
    desk.adopt()
    desk.vend(box)
    command, digits = box.waiting()[0]
    box.answer(command, [box.enter(each) for each in digits[:2]], NOON)
    assert desk.held(box).krn == 1
    again = desk.vend(box)
    assert len(desk.tokens(again)) == 5
    assert box.take(NOON) == [["2ndKCT", "2ndKCT", "2ndKCT", "Accept", "Accept"]]
    assert desk.held(box).krn == 2


def test_a_lost_answer_is_made_good_by_the_repeat(desk):
    box = desk.meter()
    desk.adopt()
    top_up = desk.vend(box)
    box.take(NOON, lose_answers=True)
    later = NOON + DAY
    assert clockwork.close_overdue(desk.conn, later).delivered_again == 1
    assert box.take(later) == [["AuthenticationError"] * 4 + ["UsedError"]]
    assert desk.held(box).krn == 2
    assert desk.state(top_up) == (True, False)
    assert box.credit_wh == BOUGHT_WH


def test_a_late_answer_to_the_first_command_counts_after_the_repeat_was_queued(desk):
    box = desk.meter()
    desk.adopt()
    top_up = desk.vend(box)
    command, digits = box.waiting()[0]
    outcomes = [box.enter(each) for each in digits]
    desk.conn.execute("UPDATE command SET state = 'sent'")
    clockwork.close_overdue(desk.conn, NOON + DAY)
    box.answer(command, outcomes, NOON + DAY)
    assert desk.held(box).krn == 2
    assert desk.state(top_up) == (True, False)


def test_confirmed_sets_are_not_carried_again(desk):
    box = desk.meter()
    desk.adopt()
    desk.vend(box)
    key_changes.confirm_entry(desk.conn, box.number, "vera", NOON)
    desk.conn.execute("UPDATE command SET state = 'sent'")
    clockwork.close_overdue(desk.conn, NOON + DAY)
    assert [len(tokens) for _, tokens in box.waiting()] == [1]


def test_an_operator_confirms_what_was_typed_in(desk, held):
    box = desk.meter()
    desk.adopt()
    desk.vend(box)
    assert key_changes.confirm_entry(desk.conn, box.number, "vera", NOON) == replace(held, krn=2)
    assert desk.held(box).krn == 2
    row = desk.conn.execute("SELECT confirmed_by FROM key_change").fetchone()
    assert row == ("vera",)


def test_no_minute_is_used_twice_across_a_key_change(desk):
    """The meter keeps its TIDs when the base date stays: an equal one would swallow the money."""
    box = desk.meter()
    desk.vend(box)
    desk.adopt()
    desk.vend(box)
    desk.vend(box)
    for results in box.take(NOON):
        assert results[-1] == "Accept"
    assert box.credit_wh == 3 * BOUGHT_WH


def test_a_roll_over_counts_minutes_from_the_new_base_date(desk, held):
    begun = parse_instant_ms("2036-01-01T08:00:00Z")
    box = desk.meter()
    desk.adopt(krn=3, base_date=2035, from_ms=begun, now_ms=begun)
    desk.vend(box, begun)
    assert box.take(begun) == [[*QUAD, "Accept"]]
    assert desk.held(box) == replace(held, krn=3, base_date=2035)
    row = desk.conn.execute("SELECT max(tid) FROM token").fetchone()
    assert row == (365 * 1440 + 480,)


def test_a_meter_that_takes_the_older_set_after_all_is_believed(desk, held):
    box = desk.meter()
    desk.adopt()
    with desk.conn.transaction():
        found = key_changes.lock_token_meter(desk.conn, box.id, NOON)
        old = key_changes.issue_key_change(desk.conn, desk.module, found, NOON)
    key_changes.abandon(desk.conn, box.number, "vera", "the slip was lost", NOON)
    desk.adopt(krn=2, ken=100, from_ms=NOON + 1)
    top_up = desk.vend(box, NOON + 2)
    result = key_changes.SetResult(old.id, 2, "Accept")
    key_changes.take_results(desk.conn, [result], NOON + 3)
    assert desk.held(box) == replace(held, krn=2)
    row = desk.conn.execute(
        "SELECT abandoned_reason FROM key_change WHERE id > %s", (old.id,)
    ).fetchone()
    assert row == (key_changes.SUPERSEDED,)
    assert len(desk.tokens(top_up)) == 5


def test_word_of_an_older_set_does_not_undo_a_newer_one(desk, held):
    box = desk.meter()
    for krn in (2, 1):
        desk.adopt(krn=krn, from_ms=NOON + krn * -1)
        desk.vend(box)
        box.take(NOON)
    assert desk.held(box) == replace(held, krn=1)
    first = desk.conn.execute("SELECT min(id) FROM key_change").fetchone()[0]
    key_changes.take_results(desk.conn, [key_changes.SetResult(first, 2, "Accept")], NOON)
    assert desk.held(box).krn == 1


def test_adopting_a_key_again_is_adopting_it_once(desk):
    assert desk.adopt() == desk.adopt()
    assert desk.adopt().check_value == desk.module.key_check_value("123456", 2)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"krn": 9}, "key_unknown"),
        ({"ken": 256}, "number_invalid"),
        ({"krn": 3, "base_date": 2035}, "key_not_in_order"),
        ({"from_ms": NOON - 1}, "key_not_in_order"),
        ({"from_ms": NOON}, "key_not_in_order"),
        ({"from_ms": NOON + 1, "base_date": 1993}, "key_not_in_order"),
        ({"from_ms": NOON + 1, "krn": 4, "dkga": 2}, "key_unfit"),
        ({"from_ms": NOON + 1, "dkga": 2}, "key_mismatch"),
        ({"from_ms": NOON + 1, "krn": 4}, "key_mismatch"),
        ({"from_ms": NOON + 1, "krn": 5}, "key_mismatch"),
        ({"from_ms": NOON + 1, "krn": 5, "ken": 109}, "key_mismatch"),
        ({"from_ms": NOON + 1, "krn": 5, "ken": 110, "base_date": 2035}, "key_mismatch"),
    ],
)
def test_a_vending_key_that_the_group_cannot_follow_is_refused(desk, asked, code):
    desk.meter()
    desk.adopt(krn=1)
    with pytest.raises(DomainError) as refusal:
        desk.adopt(**{"krn": 2, **asked})
    assert refusal.value.code == code


def test_a_common_key_is_not_led_to_dkga04(desk, held):
    box = desk.meter(replace(held, kt=3, ea=7, krn=4, dkga=2))
    with pytest.raises(DomainError) as refusal:
        desk.adopt()
    assert refusal.value.code == "key_unfit"
    desk.adopt(sgc="654321", krn=1)
    with pytest.raises(DomainError) as refusal:
        key_changes.want(desk.conn, box.number, NOON, by="vera", sgc="654321")
    assert refusal.value.code == "key_unfit"
    assert key_changes.want(desk.conn, box.number, NOON, by="vera", ti="07").ti == "07"


def test_a_key_that_has_expired_is_neither_sold_under_nor_moved_to(desk, held):
    box = desk.meter()
    desk.adopt(ken=3)
    with pytest.raises(TokenError) as refusal:
        desk.vend(box)
    assert refusal.value.code == "key_expired"
    row = desk.conn.execute("SELECT count(*) FROM top_up").fetchone()
    assert row == (0,), "no money is taken for a token that cannot be"


def test_an_expired_key_is_left_by_the_purchase(desk, held):
    box = desk.meter(replace(held, ken=3))
    desk.adopt()
    desk.vend(box)
    assert box.take(NOON) == [[*QUAD, "Accept"]]


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda d, m: key_changes.confirm_entry(d.conn, m.number, "vera", NOON), "no_key_change"),
        (lambda d, m: key_changes.abandon(d.conn, m.number, "vera", "x", NOON), "no_key_change"),
        (
            lambda d, m: key_changes.want(d.conn, m.number, NOON, by="vera", sgc="999999"),
            "key_unfit",
        ),
        (lambda d, m: key_changes.want(d.conn, m.number, NOON, by="vera", ti="7"), "bad_attribute"),
        (lambda d, m: key_changes.want(d.conn, "none", NOON, by="vera", ti="07"), "not_found"),
    ],
)
def test_what_an_operator_may_not_do_is_refused(desk, act, code):
    with pytest.raises(DomainError) as refusal:
        act(desk, desk.meter())
    assert refusal.value.code == code


def test_a_set_that_credit_depends_on_is_not_taken_back(desk):
    box = desk.meter()
    desk.adopt()
    desk.vend(box)
    with pytest.raises(DomainError) as refusal:
        key_changes.abandon(desk.conn, box.number, "vera", "the slip was lost", NOON)
    assert refusal.value.code == "credit_depends"


def test_the_audit_passes_what_key_changes_leave_behind(desk):
    box = desk.meter()
    desk.adopt()
    desk.vend(box)
    desk.vend(box)
    box.take(NOON, lose_answers=True)
    clockwork.close_overdue(desk.conn, NOON + DAY)
    box.take(NOON + DAY)
    desk.vend(box, NOON + DAY)
    failed = [check for check in audit(desk.conn) if check.failures]
    assert failed == []


@pytest.fixture
def waiting(desk):
    """A meter with credit that it never heard of, and behind it a key change with more."""
    box = desk.meter()
    first = desk.vend(box)
    desk.conn.execute("UPDATE command SET state = 'sent'")
    desk.adopt()
    return box, first, desk.vend(box, NOON + 1)


def test_credit_under_the_old_key_goes_once_more_before_the_set(desk, waiting):
    """A first command that is lost must not come behind the set: nobody could read it any more."""
    box, first, second = waiting
    assert box.take(NOON) == [["Accept", *QUAD, "Accept"]]
    assert (desk.state(first), desk.state(second)) == ((True, False), (True, False))
    clockwork.close_overdue(desk.conn, NOON + DAY + 1)
    assert box.waiting() == []
    assert box.credit_wh == 2 * BOUGHT_WH


def test_credit_under_the_old_key_goes_before_the_repeat_of_a_set_too(desk, waiting):
    box, first, second = waiting
    desk.conn.execute("UPDATE command SET state = 'sent'")
    clockwork.close_overdue(desk.conn, NOON + DAY + 1)
    # The first command is lost again; the second alone brings everything.
    desk.conn.execute(
        "UPDATE command SET state = 'sent' WHERE jsonb_array_length(args->'tokens') = 1"
    )
    assert box.take(NOON) == [["Accept", *QUAD, "Accept"]]
    assert (desk.state(first), desk.state(second)) == ((True, False), (True, False))


def test_a_late_copy_of_the_old_credit_does_not_undo_its_acceptance(desk, waiting):
    box, first, _ = waiting
    (old,) = desk.conn.execute(
        "SELECT id::text FROM command WHERE jsonb_array_length(args->'tokens') = 1"
    ).fetchone()
    (digits,) = desk.conn.execute(
        "SELECT digits FROM token WHERE top_up_id = %s", (first,)
    ).fetchone()
    box.take(NOON)
    box.answer(old, [box.enter(digits)], NOON)
    assert desk.state(first) == (True, False)
