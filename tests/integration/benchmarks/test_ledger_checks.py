"""The checks of a run notice what they are there for."""

import psycopg
import pytest

from benchmarks import population
from benchmarks.ledger_checks import check_fleet
from benchmarks.report import Report
from store import ingest
from store.terms import TermsCache

METERS = 5
SLOTS = population.SLOTS_A_DAY + 20


def failed(conn, slot):
    report = Report("test", {})
    check_fleet(report, conn, METERS, slot, "now")
    return [what for what, passed, _ in report.checks if not passed]


@pytest.fixture
def fleet(database_url):
    with psycopg.connect(database_url, autocommit=True) as conn:
        found = population.populate(conn, METERS)
        terms = TermsCache()
        slots = range(population.FIRST_SLOT + 1, SLOTS + 1)
        now_ms = population.instant_ms(SLOTS)
        for place in range(METERS):
            said = [
                population.incoming(found.number(place), population.payload(slot), now_ms)
                for slot in slots
            ]
            assert ingest.record(conn, terms, said, now_ms).accepted == len(said)
        yield conn


def test_a_fleet_over_peak_hours_and_a_midnight_is_what_the_tariff_says(fleet):
    assert failed(fleet, SLOTS) == []


def test_a_missing_reading_is_noticed(fleet):
    assert failed(fleet, SLOTS + 1) == [
        "now: stored = sent",
        "now: every balance is the independent expectation",
    ]


def test_a_wrong_balance_is_noticed_three_times(fleet):
    fleet.execute("UPDATE account_state SET balance_micro = balance_micro + 1 WHERE account_id = 3")
    assert failed(fleet, SLOTS) == [
        "now: every balance is the independent expectation",
        "now: every balance is the sum of its entries",
        "now: 5 accounts rated again",
    ]
