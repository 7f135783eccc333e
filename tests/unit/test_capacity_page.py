"""docs/capacity.md follows from the kept measurements, and its arithmetic holds."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.capacity import ALONE, BEHIND, LOW, Costs, costs, filled, need

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "capacity.md"
FOLDER = DOCS / "measurements"
ROUND = Costs(
    worker_us=100,
    database_us=50,
    broker_us=10,
    reading_bytes=100,
    entry_bytes=1000,
    account_bytes=0,
    worker_growth=2,
    database_growth=3,
)


def test_the_page_is_what_the_measurements_give():
    text = PAGE.read_text()
    assert filled(text, FOLDER) == text, "run scripts/generate_capacity.py"


@pytest.mark.parametrize("subject", [ALONE, LOW, BEHIND])
def test_every_cost_was_measured(subject):
    found = costs(FOLDER, subject)
    assert all(getattr(found, name) > 0 for name in Costs.__slots__ if name != "broker_us")


def test_a_round_example_by_hand():
    """900,000 meters every 15 minutes are 1,000 readings/s."""
    found = need(900_000, 15, ROUND)
    assert found.readings_s == 1000
    assert found.workers == pytest.approx(1000 * 100e-6 / 0.5)
    assert found.database_cores == pytest.approx(1000 * 50e-6 / 0.5)
    assert found.broker_nodes == 9
    assert found.tb_a_year == pytest.approx(1000 * 86_400 * 365 * 1000 / 1e12)
    assert found.tb == pytest.approx(2 * found.tb_a_year + 1000 * 86_400 * 90 * 100 / 1e12)
    assert (found.databases, found.limit) == (3, "disk")


@pytest.mark.parametrize(("meters", "worker", "database"), [(999_999, 1, 1), (1_000_000, 2, 3)])
def test_a_large_fleet_costs_more_for_each_reading(meters, worker, database):
    found = need(meters, 15, ROUND)
    assert found.workers == pytest.approx(found.readings_s * 100e-6 * worker / 0.5)
    assert found.database_cores == pytest.approx(found.readings_s * 50e-6 * database / 0.5)


def test_twice_the_interval_is_half_the_need():
    often, seldom = need(10_000_000, 15, ROUND), need(10_000_000, 30, ROUND)
    for name in ("readings_s", "workers", "database_cores", "tb", "tb_a_year"):
        assert getattr(often, name) == pytest.approx(2 * getattr(seldom, name))


def test_where_cpu_is_the_limit_the_page_says_so():
    dear = Costs(100, 100_000, 10, 1, 1, 1, 1, 1)
    assert need(900_000, 15, dear).limit == "CPU"


def test_a_new_measurement_gives_a_new_page(tmp_path):
    folder = tmp_path / "measurements"
    shutil.copytree(FOLDER, folder)
    path = folder / "storage.json"
    form = json.loads(path.read_text())
    for figure in form["figures"]:
        if figure["subject"] == "reading with its entry":
            figure["median"] *= 2
    path.write_text(json.dumps(form))
    text = filled(PAGE.read_text(), folder)
    assert text != PAGE.read_text()
    assert filled(text, folder) == text
