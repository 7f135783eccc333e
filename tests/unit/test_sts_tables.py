"""Which EA07 tables a security module runs on, by the settings."""

import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from prepaid import security_modules
from prepaid.hsm import wrap
from prepaid.security_modules import ea07_tables, open_security_module, told
from prepaid.settings import Sts
from schemas.errors import DomainError
from tests.unit.test_wrapped_keys import MemoryWrappingKey
from tokens import sta
from tokens.key_file import RANDOM_OCTETS, seal
from tokens.keys import KeyAttributes, VendingKey
from tokens.security_module import SoftwareSecurityModule
from tokens.sta import SAMPLE_TABLES, SubstitutionTables

PASSPHRASE = "correct horse"
KEYS = {("123456", 1): VendingKey(bytes(range(1, 21)))}
PAN = "600727000000000009"
CREDIT: dict[str, Any] = {"subclass": 0, "amount": 100, "tid_minutes": 6_000_000, "rnd": 5}
# Stands in for the licensed set, which is not here: any other permutation.
OTHER = SubstitutionTables(
    SAMPLE_TABLES.s2, SAMPLE_TABLES.s1, tuple(reversed(SAMPLE_TABLES.permutation))
)


def attributes(ea: int) -> KeyAttributes:
    return KeyAttributes("123456", 1, 2, 255, "01", 2014, ea, 4)


def written(folder: Path, tables: SubstitutionTables) -> Path:
    file = folder / "tables.json"
    rows = [list(tables.s1), list(tables.s2), list(tables.permutation)]
    file.write_text(json.dumps(rows), encoding="ascii")
    file.chmod(0o600)
    return file


@pytest.fixture(params=["software", "wrapped"])
def sts(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sts:
    file = tmp_path / "keys"
    if request.param == "wrapped":
        wrapping = MemoryWrappingKey()
        file.write_bytes(wrap(KEYS, wrapping))
        monkeypatch.setattr(security_modules, "wrapping_key", lambda _: wrapping)
        settings = Sts(wrapped_keys=file)
    else:
        file.write_bytes(seal(KEYS, PASSPHRASE, secrets.token_bytes(RANDOM_OCTETS)))
        settings = Sts(key_file=file, key_passphrase=SecretStr(PASSPHRASE))
    file.chmod(0o600)
    return settings


def test_without_tables_it_is_the_sample_set(sts: Sts) -> None:
    assert told(ea07_tables(sts)) == f"sample set, SHA-256 {sta.SAMPLE_FINGERPRINT}"
    sold = open_security_module(sts).issue_credit(PAN, attributes(7), **CREDIT)
    assert sold == SoftwareSecurityModule(KEYS).issue_credit(PAN, attributes(7), **CREDIT)


def test_tokens_are_made_with_the_tables_that_are_named(
    sts: Sts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sta, "PRODUCTION_FINGERPRINT", OTHER.fingerprint)
    named = sts.model_copy(update={"tables": written(tmp_path, OTHER)})
    assert told(ea07_tables(named)) == f"production set, SHA-256 {OTHER.fingerprint}"
    sold = open_security_module(named).issue_credit(PAN, attributes(7), **CREDIT)
    assert sold == SoftwareSecurityModule(KEYS, OTHER).issue_credit(PAN, attributes(7), **CREDIT)
    assert sold != SoftwareSecurityModule(KEYS).issue_credit(PAN, attributes(7), **CREDIT)


def test_who_names_the_sample_set_for_real_meters_sells_to_none_of_ea07(
    sts: Sts, tmp_path: Path
) -> None:
    module = open_security_module(
        sts.model_copy(update={"tables": written(tmp_path, SAMPLE_TABLES)})
    )
    with pytest.raises(DomainError) as refusal:
        module.issue_credit(PAN, attributes(7), **CREDIT)
    assert refusal.value.code == "tables_invalid"
    assert module.issue_credit(PAN, attributes(11), **CREDIT)


@pytest.mark.parametrize(
    ("content", "mode", "code"),
    [
        (b"[]", 0o600, "tables_invalid"),
        (None, 0o600, "tables_invalid"),
        (b"[]", 0o644, "secret_file"),
    ],
    ids=["no tables", "of nobody's", "open to others"],
)
def test_a_file_that_is_no_known_set_is_refused(
    sts: Sts, tmp_path: Path, content: bytes | None, mode: int, code: str
) -> None:
    file = written(tmp_path, OTHER)
    if content is not None:
        file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(DomainError) as refusal:
        open_security_module(sts.model_copy(update={"tables": file}))
    assert refusal.value.code == code
