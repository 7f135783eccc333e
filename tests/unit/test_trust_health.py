"""`prepaid doctor` on files of trust: told before they end, and when somebody changed them."""

import os
from pathlib import Path

import pytest

from prepaid.clock import wall_ms
from prepaid.runtime.broker_folder import BrokerFolder
from prepaid.runtime.folders import Account
from prepaid.runtime.mosquitto_files import Listener
from prepaid.settings import Broker, Settings, Trust
from prepaid.trust.authority import CRL_DAYS, DAYS, Authority, key_pem, new_key
from prepaid.trust.health import DAY_MS, WARN_DAYS, examine

NOW_MS = wall_ms()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    authority = Authority.create("ca", NOW_MS)
    authority.save(tmp_path / "ca", b"a passphrase")
    key = new_key()
    server = authority.issue(key.public_key(), "server", "server", NOW_MS, hosts=("localhost",))
    files = BrokerFolder(tmp_path / "broker", Account("me", os.geteuid(), os.getegid()))
    files.state.mkdir(parents=True)
    files.write_server(server.pem, key_pem(key), authority.pem)
    files.write_revocations(authority.revocations({}, 1, NOW_MS))
    files.write_access_list(["claim.a"])
    tls = files.server_tls(certificates=True)
    files.write_configuration([Listener(8883, tls=tls, devices=True)], protected=True)
    return Settings(broker=Broker(folder=files.folder), trust=Trust(ca=tmp_path / "ca"))


def wrong(settings: Settings, now_ms: int = NOW_MS, claims: list[str] | None = None) -> list[str]:
    return [found.name for found in examine(settings, now_ms, claims) if found.mend]


def test_files_as_we_write_them_are_in_order(settings: Settings) -> None:
    assert wrong(settings, claims=["claim.a"]) == []
    assert len(examine(settings, NOW_MS, None)) == 4


def test_an_end_is_told_in_time(settings: Settings) -> None:
    assert wrong(settings, NOW_MS + (CRL_DAYS - 6) * DAY_MS) == ["revocations"]
    soon = NOW_MS + (DAYS["server"] - WARN_DAYS + 1) * DAY_MS
    assert wrong(settings, soon) == ["certificate", "revocations"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("access", ("pattern write pm/v1/m/%u/up/+", "pattern write pm/v1/m/#")),
        ("access", ("topic deny pm/v1/m/claim.a/#", "")),
        ("mosquitto.conf", ("allow_anonymous false", "allow_anonymous true")),
        ("mosquitto.conf", ("persistence true", "")),
    ],
)
def test_access_that_somebody_changed_is_told(
    settings: Settings, name: str, change: tuple[str, str]
) -> None:
    assert settings.broker.folder is not None
    path = settings.broker.folder / name
    path.write_text(path.read_text().replace(*change))
    assert wrong(settings) == ["broker access"]


def test_snapshots_may_be_further_apart(settings: Settings) -> None:
    assert settings.broker.folder is not None
    path = settings.broker.folder / "mosquitto.conf"
    path.write_text(path.read_text().replace("autosave_interval 2", "autosave_interval 300"))
    assert wrong(settings) == []


def test_claims_that_the_broker_does_not_know_are_told(settings: Settings) -> None:
    assert wrong(settings, claims=["claim.a", "claim.b"]) == ["broker access"]


def test_a_file_that_is_missing_or_no_certificate_is_told(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "x.pem").write_text("rubbish")
    for path in (tmp_path / "none.pem", tmp_path / "x.pem"):
        assert wrong(Settings(broker=Broker(certificate=path))) == ["certificate"]
