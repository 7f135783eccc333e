"""The demonstration's centre: made once, made larger, and refused without its keys."""

import json
import shutil
from pathlib import Path

import psycopg
import pytest

from prepaid.demo.centre import DemoFiles, Household, provision
from prepaid.secrets_files import load_partners, read_secret
from schemas.errors import DomainError
from simulators.fleet_file import read_fleet_file
from store.audit import audit

NOW_MS = 1_772_445_600_000  # 2026-03-02T10:00:00Z


def test_a_centre_is_made_once_and_grows(database_url: str, tmp_path: Path) -> None:
    files = DemoFiles(tmp_path / "demo")
    with psycopg.connect(database_url, autocommit=True) as conn:
        assert provision(conn, files, 3, NOW_MS) == 3
        first = read_secret(files.access_keys)
        assert provision(conn, files, 3, NOW_MS) == 0
        assert read_secret(files.access_keys) == first
        assert provision(conn, files, 5, NOW_MS + 1000) == 2
        assert len(read_fleet_file(files.meters).meters) == 5
        assert all(check.passed for check in audit(conn))
    assert [partner.code for partner in load_partners(files.partners)] == ["demo-bank"]
    assert json.loads(first)["customer"]["account"] == Household(1).account
    for path in files.folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path.name


def test_meters_without_their_keys_are_refused(database_url: str, tmp_path: Path) -> None:
    files = DemoFiles(tmp_path / "demo")
    with psycopg.connect(database_url, autocommit=True) as conn:
        provision(conn, files, 1, NOW_MS)
        shutil.rmtree(files.folder)
        with pytest.raises(DomainError) as caught:
            provision(conn, files, 1, NOW_MS)
    assert caught.value.code == "demo_keys_lost"


def test_a_file_of_secrets_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "partners.json"
    path.write_text("[]")
    path.chmod(0o644)
    with pytest.raises(DomainError) as caught:
        load_partners(path)
    assert caught.value.code == "secret_file"


def test_households_are_the_same_at_every_start() -> None:
    assert Household(7).terms(NOW_MS) == Household(7).terms(NOW_MS)
    assert Household(7).opening_wh() == Household(7).opening_wh()
