import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from prepaid.commands import doctor
from prepaid.commands.doctor import (
    PACKAGES,
    Check,
    check_account,
    check_own_broker,
    check_own_database,
    check_packages,
    check_ports,
    check_python,
    check_space,
    examine,
)
from prepaid.runtime import Folders
from tokens import sta
from tokens.sta import SAMPLE_TABLES

OURS = {name: ["prepaid"] for name in PACKAGES}


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def beside(name: str) -> Path | None:
    return Path("/site") / name


@pytest.mark.parametrize(("version", "passed"), [((3, 11, 0), True), ((3, 10, 9), False)])
def test_python_version(version: tuple[int, ...], passed: bool) -> None:
    assert check_python(version).passed is passed


@pytest.mark.parametrize("claims", [OURS, {}])
def test_packages_of_ours_alone_pass(claims: dict[str, list[str]]) -> None:
    assert check_packages(claims, beside).passed


def test_stranger_in_place_of_our_package_is_named() -> None:
    check = check_packages({**OURS, "tokens": ["prepaid", "tokens"]}, beside)
    assert not check.passed
    assert "Uninstall tokens" in check.mend


@pytest.mark.parametrize("at", [None, Path("/elsewhere/tokens")])
def test_package_from_elsewhere_is_named(at: Path | None) -> None:
    check = check_packages({}, lambda name: at if name == "tokens" else beside(name))
    assert not check.passed
    assert check.detail == "tokens not found beside prepaid"


def test_own_database_that_does_not_answer_is_told_without_its_password() -> None:
    check = check_own_database("postgresql://u:secret-word@127.0.0.1:1/x")
    assert not check.passed
    assert "secret-word" not in check.detail + check.mend


def test_own_broker_that_answers_passes(listening: int) -> None:
    assert check_own_broker(f"mqtt://127.0.0.1:{listening}").passed


def test_every_node_of_an_own_broker_is_asked(listening: int) -> None:
    there = f"127.0.0.1:{listening}"
    assert check_own_broker(f"mqtt://u:secret@{there},{there}").detail.endswith(f"{there}, {there}")
    broken = check_own_broker(f"mqtt://u:secret@{there},127.0.0.1:1")
    assert not broken.passed
    assert "secret" not in broken.detail + broken.mend


@pytest.mark.parametrize("url", ["mqtt://127.0.0.1:1", "mqtt://127.0.0.1:port"])
def test_own_broker_that_cannot_be_reached_fails(url: str) -> None:
    assert "PREPAID_BROKER__URL" in check_own_broker(url).mend


def test_host_that_cannot_fetch_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("prepaid.runtime.resolver.find_local_postgres", lambda _: None)
    checks = examine({"PREPAID_HOME": str(tmp_path / "d"), "PREPAID_CACHE": str(tmp_path / "c")})
    mends = {check.name: check.mend for check in checks}
    assert "use compose.yaml" in mends["database"]
    assert "use compose.yaml" in mends["broker"]


def test_host_that_can_fetch_passes_before_the_first_start(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "require_host", lambda _: None)
    folder = open_folder / "doctor"
    checks = examine({"PREPAID_HOME": str(folder / "d"), "PREPAID_CACHE": str(folder / "c")})
    assert {
        check.name: check.mend for check in checks if check.name != "packages"
    } == dict.fromkeys(
        ("python", "database", "broker", "data folder", "ports", "data disk", "cache disk"), ""
    )
    assert not folder.exists()


def test_password_that_others_can_read_is_told(open_folder: Path) -> None:
    folders = Folders(open_folder / "open", open_folder)
    password = folders.data / "postgresql/password"
    password.parent.mkdir(parents=True)
    password.touch(0o600)
    assert check_account(folders).passed
    password.chmod(0o644)
    assert check_account(folders).mend == f"chmod go= {password}"


def test_ports_are_told_with_their_use(tmp_path: Path, listening: int) -> None:
    assert "first start" in check_ports(tmp_path).detail
    (tmp_path / "mosquitto").mkdir()
    (tmp_path / "mosquitto/backend.port").write_text(f"{listening}\n")
    assert check_ports(tmp_path).detail == f"backend {listening} in use"


@pytest.mark.parametrize(("least", "passed"), [(1, True), (10**18, False)])
def test_space(tmp_path: Path, least: int, passed: bool) -> None:
    check = check_space("data disk", tmp_path / "new" / "folder", least, "PREPAID_HOME")
    assert check.passed is passed


@pytest.mark.parametrize(
    ("checks", "status"), [([Check("a", "b")], 0), ([Check("a", "b", "c")], 1)]
)
def test_exit_status_and_json(
    monkeypatch: pytest.MonkeyPatch, checks: list[Check], status: int
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda _: checks)
    app = typer.Typer()
    doctor.register(app)
    assert CliRunner().invoke(app, []).exit_code == status
    outcome = CliRunner().invoke(app, ["--json"])
    assert outcome.exit_code == status
    assert json.loads(outcome.output) == [
        {"name": "a", "detail": "b", "mend": checks[0].mend, "passed": status == 0}
    ]


@pytest.mark.parametrize(
    ("meters", "named", "found"),
    [(0, False, []), (0, True, [False]), (3, False, [False]), (3, True, [False])],
)
def test_ea07_meters_under_the_sample_tables_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meters: int, named: bool, found: list[bool]
) -> None:
    rows = [SAMPLE_TABLES.s1, SAMPLE_TABLES.s2, SAMPLE_TABLES.permutation]
    file = tmp_path / "tables.json"
    file.write_text(json.dumps(rows), encoding="ascii")
    file.chmod(0o600)
    monkeypatch.setenv("PREPAID_DATABASE__URL", "postgresql:///here")
    monkeypatch.setattr(doctor, "connected", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(doctor.key_changes, "sta_meters", lambda _: meters)
    if named:
        monkeypatch.setenv("PREPAID_STS__TABLES", str(file))
    assert [check.passed for check in doctor.check_tables()] == found
    if found:
        assert "sample set, SHA-256 9f142165" in doctor.check_tables()[0].detail
    monkeypatch.setattr(sta, "PRODUCTION_FINGERPRINT", SAMPLE_TABLES.fingerprint)
    assert all(check.passed for check in doctor.check_tables())
