"""docs/performance.md holds the kept runs, and no figure that was typed."""

import json
from pathlib import Path

from benchmarks.page import NONE, filled
from benchmarks.report import Asked, Report

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "performance.md"


def test_the_page_is_what_the_kept_runs_say():
    text = PAGE.read_text()
    assert filled(text, DOCS / "measurements") == text, "run scripts/generate_performance.py"


def test_a_run_replaces_what_stood_there(tmp_path):
    report = Report("tokens", {"meters": Asked().meters})
    report.add("EA11 encode", "rate", "tokens/s", [1.0, 2.0, 3.0])
    (tmp_path / "tokens.json").write_text(json.dumps(report.form()))
    text = filled(PAGE.read_text(), tmp_path)
    assert "| tokens | EA11 encode | rate | 2 | 1 – 3 | tokens/s |" in text
    assert NONE not in text
    assert filled(text, tmp_path) == text
    assert text.endswith(PAGE.read_text()[-200:])


def test_a_run_of_another_fleet_stands_beside_it_under_its_size(tmp_path):
    for name, meters in (("tokens", 20_000), ("tokens-at-1000000", 1_000_000)):
        report = Report("tokens", {"meters": meters})
        report.add("EA11 encode", "rate", "tokens/s", [float(meters)])
        (tmp_path / f"{name}.json").write_text(json.dumps(report.form()))
    text = filled(PAGE.read_text(), tmp_path)
    assert "| tokens | EA11 encode | rate | 20,000 |" in text
    assert "| tokens of 1,000,000 | EA11 encode | rate | 1,000,000 |" in text
