"""The one form of all measurements."""

import sys

import pytest
from typer.testing import CliRunner

from benchmarks import report
from benchmarks.latencies import quantile
from benchmarks.measure import Cost, rotated
from benchmarks.plot import rates, write_plot
from benchmarks.publisher import read_messages
from benchmarks.report import Report
from prepaid.cli import app
from prepaid.commands import bench
from schemas.errors import DomainError


def wrong_bench(servers, asked):
    found = Report("wrong", {"meters": asked.meters})
    costs = [Cost(1000, 2.0, {"worker": 0.5}), Cost(1000, 1.0, {"worker": 0.4})]
    found.add_costs("ours", costs)
    found.add_ratio("ours", "theirs", [2.0, 3.0])
    found.skip("theirs too", "it is not here")
    found.check("stored = sent", ["5 sent, 4 stored"])
    found.check("nothing twice", [])
    return found


@pytest.fixture
def form():
    return wrong_bench(None, report.Asked(meters=7)).form()


def test_figures_are_medians_with_their_ranges(form):
    rate, cpu, ratio = form["figures"]
    assert rate == {
        "subject": "ours", "figure": "rate", "unit": "readings/s",
        "median": 750.0, "min": 500.0, "max": 1000.0, "repetitions": 2,
    }  # fmt: skip
    assert (cpu["figure"], cpu["median"], cpu["unit"]) == ("cpu worker", 450.0, "µs/reading")
    assert (ratio["figure"], ratio["min"], ratio["max"]) == ("÷ theirs", 2.0, 3.0)


def test_a_failed_check_and_what_was_left_out_stand_in_every_form(form):
    assert form["passed"] is False
    text, table = report.as_text(form), report.as_markdown([form])
    assert "WRONG: stored = sent: 5 sent, 4 stored" in text
    assert "right: nothing twice" in text
    assert "skipped: theirs too: it is not here" in text
    assert "| wrong | ours | rate | 750 | 500 – 1,000 | readings/s |" in table
    assert "WRONG: stored = sent; without theirs too: it is not here" in table


def test_a_failed_check_ends_the_command_with_status_1(monkeypatch):
    # Both addresses are given, so no server is started; this bench asks none.
    monkeypatch.setenv("PREPAID_DATABASE__URL", "postgresql://127.0.0.1:1/none")
    monkeypatch.setenv("PREPAID_BROKER__URL", "mqtt://127.0.0.1:1")
    monkeypatch.setattr(bench, "_programs", lambda _: None)
    monkeypatch.setattr(bench, "_database", lambda _: {})
    monkeypatch.setattr(bench, "BENCHES", {"wrong": wrong_bench})
    monkeypatch.setattr(bench, "collect_seldom", lambda: None)
    if not any(each.name == "bench" for each in app.registered_commands):
        bench.register(app)
        app.command("other")(lambda: None)
    ended = CliRunner().invoke(app, ["bench", "wrong", "--meters", "20"])
    assert ended.exit_code == 1
    assert "WRONG: stored = sent" in ended.output


def test_an_unknown_bench_is_refused_before_anything_starts():
    with pytest.raises(DomainError, match="no bench 'everything': take receiver, validation"):
        bench.bench("everything")


def test_a_part_that_cannot_be_seen_has_no_figure():
    found = Report("far", {})
    found.add_costs("ours", [Cost(10, 1.0, {"worker": 0.1, "database": 0.0})])
    assert [each.figure for each in found.figures] == ["rate", "cpu worker"]


def test_no_subject_always_comes_after_the_same_one():
    assert [rotated("abc", each) for each in range(3)] == [list("abc"), list("bca"), list("cab")]


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.99, 99), (1, 100), (0.001, 1), (0.991, 100)]
)
def test_a_quantile_is_a_value_that_was_measured(share, expected):
    assert quantile(list(range(100, 0, -1)), share) == expected


def test_a_picture_without_the_extra_says_what_to_install(form, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DomainError, match="needs matplotlib"):
        write_plot([form], tmp_path / "report.svg")


def test_a_picture_shows_rates_alone(form, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `bench` is optional")
    assert [each["figure"] for each in rates(form)] == ["rate"]
    write_plot([form], tmp_path / "report.svg")
    assert (tmp_path / "report.svg").read_text().count("readings/s") >= 1


def test_prepared_messages_are_read_as_written(tmp_path):
    file = tmp_path / "messages"
    file.write_bytes(b"\0\1a\0\0\0\2xy\0\3b/c\0\0\0\0")
    assert read_messages(file, 0, 2) == [("a", b"xy"), ("b/c", b"")]
    assert read_messages(file, 1, 1) == [("b/c", b"")]
