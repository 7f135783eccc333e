"""Laws of the slots of consumption: they are those of the ledger's local days."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from credit_engine.days import DAY_MS, HOUR_MS, local_time, midnight_ms
from credit_engine.tariff import parse_account, parse_tariff
from credit_engine.terms import Terms
from schemas.quantities import parse_instant_ms
from store.reads import slot_edges

# A quarter-hour zone, one whose clocks change at midnight, one that skipped a date, one without.
ZONES = ["Asia/Kathmandu", "America/Havana", "Pacific/Apia", "Europe/Paris", "UTC"]
FROM = st.integers(
    parse_instant_ms("2011-12-01T00:00:00Z"), parse_instant_ms("2027-01-01T00:00:00Z")
)


def terms(zone: str) -> Terms:
    form = {
        "timezone": zone,
        "currency": "MRU",
        "tariff": {
            "versions": [
                {
                    "valid_from": "2000-01-01",
                    "period": "month",
                    "bands": [{"name": "all", "method": "graduated", "blocks": [{"price": "1"}]}],
                }
            ]
        },
    }
    return parse_account({"activated_at": "2001-01-01T00:00:00Z"}, parse_tariff(form))


TERMS = {zone: terms(zone) for zone in ZONES}


@given(
    st.sampled_from(ZONES),
    FROM,
    st.integers(1, 40 * DAY_MS),
    st.sampled_from(["hour", "day", "month"]),
)
def test_slots_cover_the_range_and_no_more(
    zone: str, from_ms: int, length: int, resolution: str
) -> None:
    to_ms = from_ms + length
    edges = slot_edges(TERMS[zone], from_ms, to_ms, resolution)  # type: ignore[arg-type] # sampled
    assert edges[0] <= from_ms < edges[1]
    assert edges[-2] < to_ms <= edges[-1]
    assert all(low < high for low, high in pairwise(edges))


@given(st.sampled_from(ZONES), FROM, st.integers(1, 40 * DAY_MS))
def test_days_meet_at_local_midnights(zone: str, from_ms: int, length: int) -> None:
    agreed = TERMS[zone]
    tz = agreed.tariff.zone
    for edge in slot_edges(agreed, from_ms, from_ms + length, "day"):
        assert midnight_ms(tz, local_time(tz, edge).date()) == edge


@given(st.sampled_from(ZONES), FROM, st.integers(1, 5 * DAY_MS))
def test_hours_are_cut_where_days_are(zone: str, from_ms: int, length: int) -> None:
    agreed, to_ms = TERMS[zone], from_ms + length
    hours = slot_edges(agreed, from_ms, to_ms, "hour")
    days = slot_edges(agreed, from_ms, to_ms, "day")
    assert {day for day in days if hours[0] <= day <= hours[-1]} <= set(hours)
    assert all(high - low <= HOUR_MS for low, high in pairwise(hours))
