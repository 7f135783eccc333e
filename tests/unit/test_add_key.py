"""`prepaid token add-key`: keys of several groups and revisions in one sealed file."""

from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

from prepaid.commands import sts
from schemas.errors import DomainError
from tokens.key_file import unseal
from tokens.keys import VendingKey

PASSPHRASE = "correct horse"
KDF, DES = bytes(range(1, 21)), bytes.fromhex("abababababababab")
KEY = {"sgc": "123456", "krn": "1", "ken": "255", "base-date": "2014", "dkga": "4"}


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PREPAID_STS__KEY_PASSPHRASE", PASSPHRASE)

    app = Typer()
    sts.register(app)

    def run(typed: bytes, **change: str) -> str:
        asked = KEY | {name.replace("_", "-"): value for name, value in change.items()}
        options = [part for name, value in asked.items() for part in (f"--{name}", value)]
        done = CliRunner().invoke(
            app,
            ["token", "add-key", str(tmp_path / "keys.sts"), "--key", "-", *options],
            input=typed,
        )
        if done.exception is not None:
            raise done.exception
        return done.stdout

    return run


def held(folder: Path) -> dict[tuple[str, int], tuple[bytes, int | None, int | None]]:
    found = unseal((folder / "keys.sts").read_bytes(), PASSPHRASE)
    return {slot: (key.reveal(), key.ken, key.base_date) for slot, key in found.items()}


def test_keys_come_one_by_one_into_one_file(add: Any, tmp_path: Path) -> None:
    said = add(KDF.hex().encode())
    assert VendingKey(KDF).check_value in said
    add(KDF[::-1].hex().upper().encode() + b"\n", krn="2", base_date="2035", ken="110")
    said = add(DES.hex().encode(), sgc="654321", dkga="2")
    assert VendingKey(DES).check_value in said
    assert DES.hex() not in said
    assert held(tmp_path) == {
        ("123456", 1): (KDF, 255, 2014),
        ("123456", 2): (KDF[::-1], 110, 2035),
        ("654321", 1): (DES, 255, 2014),
    }
    assert (tmp_path / "keys.sts").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("typed", "change", "code"),
    [
        (DES.hex(), {"krn": "2"}, "key_invalid"),
        (KDF.hex(), {"krn": "2", "dkga": "2"}, "key_invalid"),
        (KDF.hex()[:-1], {"krn": "2"}, "key_invalid"),
        ("", {"krn": "2"}, "key_invalid"),
        (KDF[::-1].hex(), {}, "key_exists"),
        (KDF.hex(), {"krn": "10"}, "number_invalid"),
        (KDF.hex(), {"krn": "2", "ken": "256"}, "number_invalid"),
        (KDF.hex(), {"krn": "2", "dkga": "3"}, "algorithm_refused"),
    ],
)
def test_what_is_no_key_of_its_group_is_refused(
    add: Any, tmp_path: Path, typed: str, change: dict[str, str], code: str
) -> None:
    add(KDF.hex().encode())
    before = (tmp_path / "keys.sts").read_bytes()
    with pytest.raises(DomainError) as refusal:
        add(typed.encode(), **change)
    assert refusal.value.code == code
    assert KDF.hex()[:16] not in str(refusal.value)
    assert (tmp_path / "keys.sts").read_bytes() == before
