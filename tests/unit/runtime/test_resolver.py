import os
from pathlib import Path

import pytest

from prepaid.runtime.binaries import BinarySource
from prepaid.runtime.debian import DebianPackages
from prepaid.runtime.folders import Folders
from prepaid.runtime.resolver import find_local_mosquitto, find_ready, inspect_postgres


def program(path: Path, *lines: str, status: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, f"exit {status}", ""]))
    path.chmod(0o755)


def postgres(folder: Path, version: str = "17.12") -> None:
    program(folder / "bin/postgres", f"echo 'postgres (PostgreSQL) {version} (Debian)'")
    program(
        folder / "bin/pg_config",
        f"case $1 in --sharedir) echo {folder}/share;; --pkglibdir) echo {folder}/lib;; esac",
    )
    (folder / "lib").mkdir()
    (folder / "share/extension").mkdir(parents=True)
    control = folder / "share/extension/timescaledb.control"
    control.write_text("default_version = '2.19.3'\ntrusted = true\n")


def test_postgres_with_timescaledb_is_told_by_version_and_edition(tmp_path: Path) -> None:
    postgres(tmp_path)
    found = inspect_postgres(tmp_path / "bin", BinarySource.LOCAL)
    assert found is not None
    assert (found.major, found.version) == (17, "17.12")
    assert (found.timescaledb_version, found.timescaledb_edition) == ("2.19.3", "apache")
    (tmp_path / "lib/timescaledb-tsl-2.19.3.so").touch()
    found = inspect_postgres(tmp_path / "bin", BinarySource.LOCAL)
    assert found is not None
    assert found.timescaledb_edition == "timescale"


def test_postgres_without_timescaledb_never_stands_in(tmp_path: Path) -> None:
    postgres(tmp_path)
    (tmp_path / "share/extension/timescaledb.control").unlink()
    assert inspect_postgres(tmp_path / "bin", BinarySource.LOCAL) is None


def test_postgres_that_does_not_run_is_left_alone(tmp_path: Path) -> None:
    postgres(tmp_path)
    program(tmp_path / "bin/postgres", status=127)
    assert inspect_postgres(tmp_path / "bin", BinarySource.LOCAL) is None


@pytest.mark.parametrize(("version", "fits"), [("2.0.21", True), ("2.1.0", True), ("1.6.9", False)])
def test_only_mosquitto_2_fits(tmp_path: Path, version: str, fits: bool) -> None:
    # Like the real one, which ends its help with status 3.
    program(tmp_path / "mosquitto", f"echo 'mosquitto version {version}'", status=3)
    found = find_local_mosquitto({"PATH": str(tmp_path)})
    assert (found.version if found else None) == (version if fits else None)


def test_nothing_is_ready_on_an_empty_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prepaid.runtime.resolver.find_local_postgres", lambda _: None)
    assert find_ready(os.environ, Folders(tmp_path, tmp_path)) is None


@pytest.mark.parametrize("text", ["", "{", '{"root": "/moved"}'])
def test_unfinished_or_moved_root_is_not_ready(tmp_path: Path, text: str) -> None:
    packages = DebianPackages(tmp_path, {})
    packages.root.mkdir(parents=True)
    (packages.root.parent / "manifest.json").write_text(text)
    assert not packages.ready()
