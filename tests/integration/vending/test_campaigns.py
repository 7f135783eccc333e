"""A roll-over is planned, issued and counted until the last meter confirms."""

import asyncio
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from meter_gateway.clockwork import run_clockwork
from schemas.errors import DomainError
from schemas.quantities import parse_instant_ms
from store import campaigns, key_changes
from store.campaigns import BatchIssue, BatchProgress, CentreProgress
from store.session import Session

NOON = parse_instant_ms("2026-03-02T12:00:00Z")
YEAR = 365 * 86_400_000


@pytest.fixture
def group(desk):
    """Five meters of one group in two centres, one of them never heard; a new key since noon."""
    boxes = [desk.meter(centre="north", heard=True) for _ in range(2)]
    boxes += [desk.meter(centre="south", heard=True, served=False) for _ in range(2)]
    boxes.append(desk.meter(centre="south"))
    desk.adopt()
    return boxes


def plan(desk, size=2, code="C1", now_ms=NOON):
    return campaigns.plan(desk.conn, code, "123456", size, "vera", "KRN 1 leaked", now_ms)


def issue(desk, batch, code="C1"):
    return campaigns.issue_batch(desk.conn, desk.module, code, batch, NOON)


def test_a_plan_lists_the_meters_that_hold_another_key_by_centre(desk, group):
    desk.vend(group[0])
    group[0].take(NOON)
    made = plan(desk)
    assert (made.krn, made.base_date, made.ken) == (2, 2014, 255)
    assert campaigns.campaigns(desk.conn) == [made]
    assert campaigns.progress(desk.conn, "C1") == [
        CentreProgress("north", "North", 1, 0, 0, 0, 0),
        CentreProgress("south", "South", 3, 0, 0, 0, 0),
    ]
    assert [each.meters for each in campaigns.batches(desk.conn, "C1")] == [2, 2]


def test_a_campaign_is_counted_from_issue_to_confirmation(desk, group):
    plan(desk)
    assert issue(desk, 1) == BatchIssue(issued=2)
    assert group[0].take(NOON) == [["1stKCT", "2ndKCT", "2ndKCT", "Accept"]]
    command, digits = group[1].waiting()[0]
    group[1].answer(command, [group[1].enter(digits[0])], NOON)
    assert campaigns.progress(desk.conn, "C1")[0] == CentreProgress("north", "North", 2, 2, 2, 1, 0)
    assert campaigns.batches(desk.conn, "C1")[0] == BatchProgress(1, 2, 2, 1)
    assert (desk.held(group[0]).krn, desk.held(group[1]).krn) == (2, 1)


def test_a_meter_that_was_never_heard_gets_a_slip_and_no_command(desk, group):
    plan(desk, size=5)
    assert issue(desk, 1) == BatchIssue(issued=5)
    silent = group[-1]
    assert silent.waiting() == []
    slip = next(s for s in campaigns.slips(desk.conn, "C1", 1) if s.meter == silent.number)
    assert [silent.enter(each)["result"] for each in slip.digits][-1] == "Accept"
    key_changes.confirm_entry(desk.conn, silent.number, "vera", NOON)
    assert silent.number not in [s.meter for s in campaigns.slips(desk.conn, "C1", 1)]
    assert campaigns.progress(desk.conn, "C1")[1].confirmed == 1


def test_issuing_a_batch_again_issues_nothing_more(desk, group):
    plan(desk, size=5)
    issue(desk, 1)
    assert issue(desk, 1) == BatchIssue()
    row = desk.conn.execute("SELECT count(*) FROM key_change").fetchone()
    assert row == (5,)


def test_a_purchase_on_the_way_counts_for_the_campaign(desk, group):
    plan(desk, size=5)
    desk.vend(group[0])
    assert issue(desk, 1) == BatchIssue(issued=5)
    assert len(group[0].waiting()) == 1, "the set is out with the purchase already"
    group[0].take(NOON)
    assert campaigns.progress(desk.conn, "C1")[0].confirmed == 1


def test_a_set_that_led_elsewhere_is_followed_by_the_campaigns_own(desk, group):
    desk.vend(group[0])
    desk.adopt(krn=1, ken=200, from_ms=NOON + 1)
    campaigns.plan(desk.conn, "C1", "123456", 9, "vera", "KEN", NOON + 2)
    campaigns.issue_batch(desk.conn, desk.module, "C1", 1, NOON + 2)
    group[0].take(NOON)
    assert desk.held(group[0]).krn == 2
    campaigns.issue_batch(desk.conn, desk.module, "C1", 1, NOON + 2)
    group[0].take(NOON)
    assert (desk.held(group[0]).krn, desk.held(group[0]).ken) == (1, 200)
    assert campaigns.progress(desk.conn, "C1")[0].confirmed == 1


def test_one_meter_that_cannot_follow_does_not_hold_up_its_batch(desk, group):
    plan(desk, size=5)
    desk.conn.execute("UPDATE meter SET krn = 8 WHERE number = %s", (group[0].number,))
    assert issue(desk, 1) == BatchIssue(issued=4, refused=1)
    row = desk.conn.execute("SELECT refusal FROM campaign_meter WHERE refusal <> ''").fetchone()
    assert row is not None
    assert "KRN 8" in row[0]
    assert campaigns.progress(desk.conn, "C1")[0].refused == 1


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda d: plan(d, size=0), "bad_batch"),
        (lambda d: (plan(d), plan(d)), "campaign_exists"),
        (
            lambda d: campaigns.plan(d.conn, "C2", "654321", 5, "vera", "x", NOON),
            "key_unfit",
        ),
        (lambda d: issue(d, 1, "C9"), "not_found"),
        (lambda d: (plan(d), issue(d, 9)), "not_found"),
        (lambda d: campaigns.progress(d.conn, "C9"), "not_found"),
        (lambda d: campaigns.slips(d.conn, "C9", 1), "not_found"),
    ],
)
def test_what_makes_no_campaign_is_refused(desk, group, act, code):
    with pytest.raises(DomainError) as refusal:
        act(desk)
    assert refusal.value.code == code


def test_a_group_on_its_current_key_needs_no_campaign(desk):
    desk.meter()
    desk.adopt(krn=1)
    with pytest.raises(DomainError) as refusal:
        plan(desk)
    assert refusal.value.code == "nothing_to_change"
    assert campaigns.campaigns(desk.conn) == []


@pytest.mark.parametrize(
    ("changed", "at", "found"),
    [
        # 1 + 104 periods of 65 536 minutes after 2014 end on 2027-01-31.
        ({"ken": 104}, "2026-03-02T12:00:00Z", ("key expiry number", "urgent")),
        ({"ken": 104}, "2027-01-31T23:59:00Z", ("key expiry number", "expired")),
        ({"ken": 130}, "2026-03-02T12:00:00Z", ("key expiry number", "notice")),
        ({"ken": 150}, "2026-03-02T12:00:00Z", None),
        ({}, "2026-03-02T12:00:00Z", None),
        ({}, "2041-01-01T00:00:00Z", ("base date", "notice")),
        ({}, "2044-01-01T00:00:00Z", ("base date", "urgent")),
        ({}, "2045-11-24T20:16:00Z", ("base date", "expired")),
    ],
)
def test_the_end_of_a_key_is_told_years_before(desk, changed, at, found):
    box = desk.meter(served=False)
    held = replace(desk.held(box), **changed)
    desk.conn.execute("UPDATE meter SET ken = %s", (held.ken,))
    expiries = campaigns.key_expiries(desk.conn, parse_instant_ms(at))
    assert [(e.cause, e.level, e.meters) for e in expiries] == ([(*found, 1)] if found else [])
    assert all("plan a campaign" in campaigns.advice(each) for each in expiries)


async def test_the_clockwork_warns_by_itself(desk):
    box = desk.meter(served=False)
    desk.conn.execute("UPDATE meter SET ken = 104 WHERE id = %s", (box.id,))
    session, stopping = Session(desk.url, "test"), asyncio.Event()
    with capture_logs() as logs:
        running = asyncio.create_task(run_clockwork(session, lambda: NOON, stopping))
        async with asyncio.timeout(20):
            while not logs:
                await asyncio.sleep(0.01)
        stopping.set()
        await running
    await session.close()
    (said,) = (entry for entry in logs if entry["event"] == "vending_key_ends")
    assert (said["sgc"], said["level"], said["meters"]) == ("123456", "urgent", 1)
