"""Dates that are remembered by the hour are those that the zone has at each instant."""

from zoneinfo import ZoneInfo

import pytest

from credit_engine.days import local_date, local_time
from schemas.quantities import parse_instant_ms

MINUTE_MS = 60_000


@pytest.mark.parametrize(
    ("zone", "around"),
    [
        # Back by an hour a minute after midnight: a minute of the next day, and this one again.
        ("America/St_Johns", "2006-10-29T02:31:00Z"),
        # Back at midnight, forward at midnight, a date that was skipped, and half an hour's change.
        ("America/Havana", "2026-11-01T05:00:00Z"),
        ("America/Asuncion", "2023-10-01T04:00:00Z"),
        ("Pacific/Apia", "2011-12-30T10:00:00Z"),
        ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
        # Midnight in the middle of an hour, and in the last quarter of one.
        ("Asia/Kolkata", "2026-03-01T18:30:00Z"),
        ("Asia/Kathmandu", "2026-03-01T18:15:00Z"),
        ("Africa/Nouakchott", "2026-03-01T00:00:00Z"),
    ],
)
def test_a_date_is_that_of_the_instant(zone: str, around: str) -> None:
    place, middle_ms = ZoneInfo(zone), parse_instant_ms(around)
    seen = set()
    for minute in range(-180, 181):
        for rest_ms in (-1, 0, 1):
            at_ms = middle_ms + minute * MINUTE_MS + rest_ms
            date = local_time(place, at_ms).date()
            assert local_date(place, at_ms) == date
            seen.add(date)
    assert len(seen) > 1 or zone == "Australia/Lord_Howe"
