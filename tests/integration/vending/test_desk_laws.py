"""Many vends at once, a clock that goes back, a process that dies: each payment is sold once."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import psycopg
import pytest

from schemas.errors import DomainError
from schemas.quantities import parse_instant_ms
from store import issuing, vending
from store.terms import TermsCache
from tokens import tid
from tokens.credit import credit_of

NOON = parse_instant_ms("2026-03-02T12:00:00Z")
MINUTE = 60_000
ROOT = Path(__file__).parents[3]
VENDS = 64
# Enough that a kill always falls in the middle; fewer than the look-ahead of one minute.
SALES = 110

# The same desk as in conftest, as a process of its own: it sells payment after payment until it is
# killed or has sold all.
SELLER = """
import hashlib, sys
import psycopg
from store import vending
from store.terms import TermsCache
from tokens.keys import VendingKey
from tokens.security_module import SoftwareSecurityModule
url, meter, count, now_ms = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
module = SoftwareSecurityModule({("123456", 1): VendingKey(bytes(range(1, 21)))})
with psycopg.connect(url, autocommit=True) as conn:
    terms = TermsCache()
    for number in range(count):
        name = f"K-{number}"
        vending.vend(conn, terms, module, vending.Payment(
            channel="bank", partner_txn_id=name, meter=meter, amount_micro=100_000_000,
            paid_ms=now_ms, request_sha256=hashlib.sha256(name.encode()).digest()), now_ms)
"""


def tids(desk):
    rows = desk.conn.execute("SELECT tid FROM token WHERE class = 0 ORDER BY tid").fetchall()
    return [number for (number,) in rows]


def test_vends_at_once_to_one_meter_take_distinct_minutes_and_none_is_reserved(desk):
    """The look-ahead of the 64 reaches over midnight and steps over 00:01."""
    late = parse_instant_ms("2026-03-02T23:40:10Z")
    box = desk.meter()
    start = Barrier(16)

    def sell(worker):
        with psycopg.connect(desk.url, autocommit=True) as conn:
            start.wait()
            for each in range(VENDS // 16):
                payment = desk.payment(box.number, f"{worker}-{each}")
                vending.vend(conn, TermsCache(), desk.module, payment, late)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(sell, range(16)))
    sold = tids(desk)
    first = tid.tid_minutes(late, 2014)
    assert len(set(sold)) == VENDS
    assert set(sold) == {m for m in range(first, first + VENDS + 1) if not tid.is_reserved(m)}, (
        "64 in a row but for 00:01"
    )
    held = desk.held(box)
    digits = desk.conn.execute("SELECT digits, tid, amount FROM token").fetchall()
    for row, number, amount in digits:
        token = desk.module.verify(box.meter_pan, held, row)
        assert (token.fields["tid"], credit_of(token).amount) == (number, amount)


def test_a_seller_that_is_killed_loses_nothing_and_sells_nothing_twice(desk):
    box = desk.meter()
    command = [sys.executable, "-c", SELLER, desk.url, box.number, str(SALES), str(NOON)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed_at = []
    for target in (5, 20, 40):
        seller = subprocess.Popen(command, env=environment)
        deadline = time.monotonic() + 30
        while len(tids(desk)) < target and time.monotonic() < deadline:
            time.sleep(0.002)
        seller.send_signal(signal.SIGKILL)
        assert seller.wait() == -signal.SIGKILL, "killed before it was done"
        killed_at.append(len(tids(desk)))
    assert killed_at == sorted(killed_at)
    assert killed_at[-1] < SALES
    subprocess.run(command, env=environment, check=True)
    row = desk.conn.execute(
        "SELECT count(*), count(DISTINCT t.partner_txn_id), count(DISTINCT k.digits), "
        "count(DISTINCT k.tid), count(DISTINCT c.id) "
        "FROM top_up t JOIN token k ON k.top_up_id = t.id JOIN command c ON c.id = k.command_id"
    ).fetchone()
    assert row == (SALES,) * 5
    for results in box.take(NOON):
        assert results == ["Accept"]


def test_a_clock_a_little_behind_goes_on_after_the_newest_token(desk):
    box = desk.meter()
    desk.vend(box)
    desk.vend(box, NOON - 100 * MINUTE)
    assert tids(desk)[1] == tids(desk)[0] + 1


def test_a_clock_far_behind_the_newest_token_is_refused_and_takes_no_money(desk):
    box = desk.meter()
    desk.vend(box)
    behind = NOON - issuing.LOOK_AHEAD_MINUTES * MINUTE
    with pytest.raises(DomainError) as refusal:
        desk.vend(box, behind)
    assert refusal.value.code == "clock_behind"
    row = desk.conn.execute("SELECT count(*) FROM top_up").fetchone()
    assert row == (1,)
    desk.vend(box, behind + 2 * MINUTE)


def test_the_same_payment_is_the_same_top_up_and_another_body_a_conflict(desk):
    box = desk.meter()
    first = desk.vend(box, txn="T")
    assert desk.vend(box, NOON + MINUTE, txn="T") == first
    with pytest.raises(DomainError) as refusal:
        desk.vend(box, txn="T", amount=7)
    assert refusal.value.code == "idempotency_conflict"
    assert len(tids(desk)) == 1


def test_a_reprint_shows_the_stored_tokens_and_keeps_who_asked(desk):
    box = desk.meter()
    desk.adopt()
    top_up = desk.vend(box)
    stored = box.waiting()[0][1]
    shown = issuing.reprint(desk.conn, top_up, "vera", "printer jam", NOON)
    assert list(shown) == stored
    row = desk.conn.execute("SELECT top_up_id, reprinted_by, reason FROM reprint").fetchall()
    assert row == [(top_up, "vera", "printer jam")]


@pytest.mark.parametrize(
    ("named", "by", "reason", "code"),
    [
        (True, "", "x", "reason_missing"),
        (True, "vera", " ", "reason_missing"),
        (False, "vera", "x", "not_found"),
        (True, "vera", "x", "no_tokens"),
    ],
)
def test_a_reprint_that_may_not_be_is_refused(desk, as_owner, named, by, reason, code):
    box = desk.meter()
    top_up = desk.vend(box)
    with psycopg.connect(as_owner(desk.url), autocommit=True) as owner:
        owner.execute("DELETE FROM token")
    with pytest.raises(DomainError) as refusal:
        issuing.reprint(desk.conn, top_up if named else "none", by, reason, NOON)
    assert refusal.value.code == code


def test_digits_are_found_with_each_time_that_they_left_us(desk):
    box = desk.meter()
    desk.adopt()
    desk.vend(box)
    desk.vend(box, NOON + MINUTE)
    digits = box.waiting()[0][1]
    found = issuing.find_issued(desk.conn, digits[0])
    assert [(each.issued_ms, each.meter, each.cls, each.subclass) for each in found] == [
        (NOON, box.number, 2, 3),
        (NOON + MINUTE, box.number, 2, 3),
    ]
    assert found[0].receipt_number != found[1].receipt_number
    box.take(NOON + MINUTE)
    assert issuing.find_issued(desk.conn, digits[-1])[0].result == "Accept"
    assert issuing.find_issued(desk.conn, "0" * 20) == []
