"""`prepaid rate`: what it prints, and its exit status (rating contract, section 10)."""

import json
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
import typer

from prepaid import cli
from prepaid.commands.rate import read_scenario

SCENARIOS = Path(__file__).parents[1] / "data" / "scenarios"
FLAT = SCENARIOS / "a01-flat-one-band.yaml"
POWER = "meter.max_power_w: "
FLOW = "until: 2026-03-02T00:00:00Z"  # no JSON, though it stands between braces


@pytest.fixture(autouse=True)
def fresh_app(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)  # a lone command would otherwise take no name
    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(cli, "COMMANDS", {"rate": "rate"})


def status_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["prepaid", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


def test_every_scenario_passes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(monkeypatch, "rate", str(SCENARIOS)) == 0
    count = len(list(SCENARIOS.glob("*.yaml")))
    assert count >= 60
    assert capsys.readouterr().out == f"{count} passed, 0 failed\n"


def test_a_file_is_printed_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(monkeypatch, "rate", str(FLAT)) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["balance"], result["supply"]) == ("35.000000", "connected")


def test_a_dash_reads_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(FLAT.read_bytes())))
    assert status_of(monkeypatch, "rate", "-") == 0
    assert json.loads(capsys.readouterr().out)["balance"] == "35.000000"


def test_a_dash_reads_json_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = read_scenario(str(FLAT))
    # A character that JSON escapes as two halves, which YAML takes for none.
    scenario["facts"][0]["top_up"]["id"] = "p\U0001f600"
    for text in (json.dumps(scenario), "\ufeff" + json.dumps(scenario), "{" + FLOW + "}"):
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(text.encode())))
        assert status_of(monkeypatch, "rate", "-") == (2 if FLOW in text else 0)
        shown = capsys.readouterr()
        assert "is missing" in shown.err or json.loads(shown.out)["balance"] == "35.000000"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.yaml", FLAT.read_text().replace('"50.00"', "50.00"), "facts[0].top_up.amount: "),
        ("a.yaml", FLAT.read_text().replace("until:", "untill:"), "untill: unknown key"),
        ("a.yaml", "facts: [", "is not YAML 1.2 or JSON"),
        ("a.yaml", "a: 1\na: 2\n", "is not YAML 1.2 or JSON"),
        ("a.json", '{"a": 1, "a": 2}', "key a stands twice"),
        ("a.json", '{"until": 1}', "is missing"),
        ("a.yaml", "", "give a mapping"),
        ("a.yaml", b"\xff\xfe\xfa", "is not UTF-8"),
        ("a.yaml", None, "cannot be read"),
        # Numbers of YAML 1.1, and texts of YAML 1.2.
        ("a.yaml", FLAT.read_text().replace("max_power_w: 6600", "max_power_w: 6_600"), POWER),
        ("a.yaml", FLAT.read_text().replace("max_power_w: 6600", "max_power_w: 0b11"), POWER),
        ("a.yaml", FLAT.read_text().replace("max_power_w: 6600", "max_power_w: ="), POWER),
    ],
)
def test_bad_input_is_one_line_and_status_two(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    text: str | bytes | None,
    says: str,
) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert status_of(monkeypatch, "rate", str(path)) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert says in shown.err
    assert shown.err.count("\n") == 1


def test_yaml_is_read_as_version_1_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "unquoted.yaml"
    # Neither instants nor `on` need quotes: YAML 1.2 has no timestamps, and two truth values.
    text = FLAT.read_text().replace('"2026-03-02T00:00:00Z"', "2026-03-02T00:00:00Z")
    tax = 'taxes: [{name: vat, percent: "10", on: [energy], included: true}]'
    text = text.replace("      period: month\n", f"      period: month\n      {tax}\n")
    path.write_text(text.replace('"2026-01-01"', "2026-01-01"))
    assert status_of(monkeypatch, "rate", str(path)) == 0
    assert json.loads(capsys.readouterr().out)["balance"] == "35.000000"


def test_a_folder_tells_file_path_expected_and_got(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    below = tmp_path / "below"
    below.mkdir()
    flat = FLAT.read_text()
    (below / "wrong.yaml").write_text(flat.replace('"35.000000"', '"35.000001"'))
    (below / "list.yaml").write_text(flat.replace("quarantined: []", "quarantined: [{wh: 1}]"))
    refused = flat.replace('"50.00"', "50.00")
    (tmp_path / "refused.yaml").write_text(refused)
    accepted = flat[: flat.index("expected:")]
    (tmp_path / "accepted.yaml").write_text(accepted + "expected: {error: amount}\n")
    (tmp_path / "without.yaml").write_text(accepted)
    (tmp_path / "broken.json").write_text("{")
    other = refused[: refused.index("expected:")] + "expected: {error: amount}\n"
    (tmp_path / "passes.yaml").write_text(other)
    assert status_of(monkeypatch, "rate", str(tmp_path)) == 1
    *lines, closing = capsys.readouterr().out.splitlines()
    assert closing == "1 passed, 5 failed"
    told = dict(line.split(": ", 1) for line in lines)
    assert told[str(below / "wrong.yaml")] == "balance: expected '35.000001', got '35.000000'"
    assert told[str(below / "list.yaml")].startswith("readings.quarantined: expected 1 items")
    assert "facts[0].top_up.amount" in told[str(tmp_path / "refused.yaml")]
    assert told[str(tmp_path / "accepted.yaml")] == "error: expected 'amount', got a result"
    assert "is not YAML 1.2 or JSON" in told[str(tmp_path / "broken.json")]
