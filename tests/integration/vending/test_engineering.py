"""Two people, a reason, one token; and nothing of it where customers look."""

import pytest
from psycopg import errors

from schemas.errors import DomainError
from schemas.quantities import parse_instant_ms
from store import engineering, top_ups
from store.engineering import Work

NOON = parse_instant_ms("2026-03-02T12:00:00Z")
DAY = 86_400_000


def ask(desk, box, work=Work.CLEAR_TAMPER, fields=None, **more):
    given = {"reason": "cover was open at the visit", "by": "Vera", "now_ms": NOON, **more}
    number = given.pop("number", box.number)
    return engineering.request_engineering_token(desk.conn, number, work, fields or {}, **given)


def approve(desk, request, by="Omar", now_ms=NOON):
    return engineering.approve_engineering_token(desk.conn, desk.module, request, by, now_ms)


@pytest.mark.parametrize(
    ("maker", "work", "fields", "cls", "subclass"),
    [
        ("07", Work.POWER_LIMIT, {"mpl": 6000}, 2, 0),
        ("07", Work.CLEAR_CREDIT, {"register": 0xFFFF}, 2, 1),
        ("07", Work.CLEAR_TAMPER, {}, 2, 5),
        ("07", Work.METER_TEST, {"control": 0xFFFFFFFFF, "mfr_code": 0}, 1, 0),
        ("0107", Work.METER_TEST, {"control": 0xFFFFFFF, "mfr_code": 0}, 1, 1),
        ("0107", Work.CLEAR_TAMPER, {}, 2, 5),
    ],
)
def test_two_people_make_a_token_that_the_meter_takes(desk, maker, work, fields, cls, subclass):
    box = desk.meter(heard=True, maker=maker)
    request = ask(desk, box, work, fields)
    assert box.waiting() == [], "nothing is issued by one person"
    digits = approve(desk, request)
    assert [tokens for _, tokens in box.waiting()] == [[digits]]
    assert box.take(NOON) == [["Accept"]]
    row = desk.conn.execute("SELECT class, subclass, top_up_id, result FROM token").fetchone()
    assert row == (cls, subclass, None, "Accept")
    (made,) = engineering.engineering_tokens(desk.conn, waiting=False, before_id=None, limit=5)
    assert (made.work, made.fields, made.reason) == (work, fields, "cover was open at the visit")
    assert (made.requested_by, made.decided_by, made.digits) == ("Vera", "Omar", digits)


def test_a_repeat_of_the_approval_is_the_first_answer(desk):
    request = ask(desk, desk.meter())
    assert approve(desk, request) == approve(desk, request)
    row = desk.conn.execute("SELECT count(*) FROM token").fetchone()
    assert row == (1,)


def test_a_meter_that_was_never_heard_is_sent_nothing(desk):
    box = desk.meter()
    digits = approve(desk, ask(desk, box))
    assert box.waiting() == []
    assert box.enter(digits)["result"] == "Accept"


def test_engineering_tokens_and_credit_share_the_meters_minutes(desk):
    box = desk.meter(heard=True)
    desk.vend(box)
    approve(desk, ask(desk, box))
    desk.vend(box)
    assert box.take(NOON) == [["Accept"]] * 3


def test_customers_do_not_see_them(desk):
    box = desk.meter()
    desk.vend(box)
    approve(desk, ask(desk, box))
    account = desk.conn.execute("SELECT id FROM account").fetchone()[0]
    shown = top_ups.tokens(desk.conn, account, before_id=None, limit=10)
    assert [token.token_class for token in shown] == [0]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"reason": " "}, "reason_missing"),
        ({"by": ""}, "reason_missing"),
        ({"number": "none"}, "not_found"),
        ({"fields": {"register": 1}}, "bad_field"),
        ({"work": Work.CLEAR_CREDIT}, "bad_field"),
        ({"work": Work.CLEAR_CREDIT, "fields": {"register": 8}}, "field_out_of_range"),
        ({"work": Work.POWER_LIMIT, "fields": {"mpl": 10**9}}, "amount_out_of_range"),
        (
            {"work": Work.METER_TEST, "fields": {"control": 1 << 40, "mfr_code": 0}},
            "field_out_of_range",
        ),
    ],
)
def test_a_request_that_leads_to_no_token_is_refused(desk, asked, code):
    with pytest.raises(DomainError) as refusal:
        ask(desk, desk.meter(), **asked)
    assert refusal.value.code == code
    assert engineering.engineering_tokens(desk.conn, waiting=True, before_id=None, limit=1) == []


def test_a_meter_without_keys_gets_no_token(desk):
    box = desk.meter()
    desk.conn.execute(
        "UPDATE meter SET meter_pan = NULL, sgc = NULL, krn = NULL, kt = NULL, ken = NULL, "
        "ti = NULL, base_date = NULL, ea = NULL, dkga = NULL"
    )
    with pytest.raises(DomainError) as refusal:
        ask(desk, box)
    assert refusal.value.code == "no_tokens"


@pytest.mark.parametrize(
    ("by", "at", "code"),
    [
        ("Vera", NOON, "same_person"),
        (" vera ", NOON, "same_person"),
        ("", NOON, "same_person"),
        ("Omar", NOON + DAY + 1, "request_lapsed"),
    ],
)
def test_an_approval_that_is_none_is_refused(desk, by, at, code):
    request = ask(desk, desk.meter())
    with pytest.raises(DomainError) as refusal:
        approve(desk, request, by, at)
    assert refusal.value.code == code
    row = desk.conn.execute("SELECT count(*) FROM token").fetchone()
    assert row == (0,)


def test_a_decision_is_made_once(desk):
    box = desk.meter()
    approved, refused = ask(desk, box), ask(desk, box)
    approve(desk, approved)
    engineering.refuse_engineering_token(desk.conn, refused, "Omar", "wrong meter", NOON)
    for act in (
        lambda: approve(desk, approved, "Third"),
        lambda: approve(desk, refused),
        lambda: engineering.refuse_engineering_token(desk.conn, approved, "Omar", "x", NOON),
    ):
        with pytest.raises(DomainError) as refusal:
            act()
        assert refusal.value.code == "already_decided"
    with pytest.raises(DomainError) as refusal:
        approve(desk, 999)
    assert refusal.value.code == "not_found"


def test_a_refusal_has_a_reason(desk):
    request = ask(desk, desk.meter())
    with pytest.raises(DomainError) as refusal:
        engineering.refuse_engineering_token(desk.conn, request, "Omar", "", NOON)
    assert refusal.value.code == "reason_missing"


def test_a_meter_between_two_keys_waits(desk):
    box = desk.meter(heard=True)
    desk.adopt()
    desk.vend(box)
    request = ask(desk, box)
    with pytest.raises(DomainError) as refusal:
        approve(desk, request)
    assert refusal.value.code == "key_change_open"
    box.take(NOON)
    approve(desk, request)
    assert box.take(NOON) == [["Accept"]]


def test_the_database_itself_refuses_one_person_for_two(desk):
    request = ask(desk, desk.meter())
    with pytest.raises(errors.CheckViolation):
        desk.conn.execute(
            "UPDATE engineering_token SET decision = 'approved', decided_by = 'VERA ', "
            "decided_at = now() WHERE id = %s",
            (request,),
        )
