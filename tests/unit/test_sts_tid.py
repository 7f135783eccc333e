from datetime import UTC, datetime

import pytest

from tokens import tid
from tokens.errors import TokenError


def ms(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


@pytest.mark.parametrize(
    ("at", "base_date", "number"),
    [
        ("1993-01-01T00:00:00", 1993, 0),
        ("1996-03-25T13:55:22", 1993, 0x19EB23),
        ("2014-01-01T00:00:59", 2014, 0),
        ("2014-01-01T00:01:00", 2014, 2),
        ("2014-01-01T00:01:59", 2014, 2),
        ("2014-01-01T00:02:00", 2014, 2),
        ("2014-01-02T00:01:00", 2014, 1442),
        ("2024-11-24T20:15:59", 1993, 0xFFFFFF),
        ("2045-11-24T20:15:59", 2014, 0xFFFFFF),
        ("2066-11-24T20:15:59", 2035, 0xFFFFFF),
    ],
)
def test_tid_is_the_minute_since_the_base_date_and_never_the_reserved_one(at, base_date, number):
    assert tid.tid_minutes(ms(at), base_date) == number


@pytest.mark.parametrize(
    ("at", "base_date"),
    [
        ("2024-11-24T20:16:00", 1993),
        ("2045-11-24T20:16:00", 2014),
        ("2066-11-24T20:16:00", 2035),
        ("2013-12-31T23:59:59", 2014),
    ],
)
def test_an_instant_outside_the_base_period_is_refused(at, base_date):
    with pytest.raises(TokenError) as refusal:
        tid.tid_minutes(ms(at), base_date)
    assert refusal.value.code == "tid_out_of_range"


@pytest.mark.parametrize(("after", "following"), [(0, 2), (1, 2), (2, 3), (1440, 1442), (59, 60)])
def test_the_next_token_of_a_minute_takes_the_next_free_minute(after, following):
    assert tid.next_tid(after, 2014) == following


def test_there_is_no_next_tid_after_the_last():
    with pytest.raises(TokenError) as refusal:
        tid.next_tid(tid.TID_LAST, 2014)
    assert refusal.value.code == "tid_out_of_range"


@pytest.mark.parametrize("call", [tid.tid_minutes, tid.next_tid, tid.tid_ms])
def test_an_unknown_base_date_is_refused(call):
    with pytest.raises(TokenError, match="1993, 2014 or 2035"):
        call(1, 2000)


@pytest.mark.parametrize("number", [-1, tid.TID_LAST + 1])
def test_a_tid_of_more_than_24_bits_has_no_instant(number):
    with pytest.raises(TokenError):
        tid.tid_ms(number, 2014)


@pytest.mark.parametrize(
    ("number", "ken", "expired"),
    [
        (0x0000, 0, False),
        (0xFFFF, 0, False),
        (0x10000, 0, True),
        (0x55FFFF, 0x55, False),
        (0x560000, 0x55, True),
        (0xFFFFFF, 255, False),
    ],
)
def test_a_key_expires_with_the_period_of_its_ken(number, ken, expired):
    assert tid.is_expired(number, ken) is expired


@pytest.mark.parametrize("base_date", [1993, 2014, 2035])
@pytest.mark.parametrize("ken", [0, 1, 104, 254])
def test_a_key_ends_in_the_minute_that_its_expiry_number_no_longer_covers(ken, base_date):
    end = tid.key_end_ms(ken, base_date)
    assert not tid.is_expired(tid.tid_minutes(end - 1, base_date), ken)
    assert tid.is_expired(tid.tid_minutes(end, base_date), ken)


@pytest.mark.parametrize(
    ("base_date", "last"),
    [(1993, "2024-11-24T20:15:59"), (2014, "2045-11-24T20:15:59"), (2035, "2066-11-24T20:15:59")],
)
def test_a_key_that_does_not_expire_ends_with_its_base_date(base_date, last):
    assert tid.key_end_ms(255, base_date) == ms(last) + 1000
