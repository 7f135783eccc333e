"""What a broker is told: who may what, and listeners that let nobody in by accident."""

import os
from pathlib import Path

import pytest

from prepaid.runtime.broker_folder import BrokerFolder
from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.folders import Account
from prepaid.runtime.mosquitto_files import (
    Listener,
    ServerTls,
    password_line,
    render_access_list,
    render_configuration,
)

TLS = ServerTls(Path("/s.pem"), Path("/s.key"), Path("/ca.pem"), Path("/crl.pem"))
WIDE = "0.0.0.0"


def lines(*listeners: Listener, access: tuple[str, ...] = ("acl_file /a",)) -> list[str]:
    return render_configuration(Path("/data"), listeners, access).splitlines()


def test_devices_show_a_certificate_and_cannot_choose_a_name() -> None:
    text = lines(Listener(20001), Listener(8883, WIDE, TLS, devices=True))
    at = text.index("listener 8883 0.0.0.0")
    assert {
        "require_certificate true", "crlfile /crl.pem", "use_identity_as_username true",
        "use_username_as_clientid true",
    } <= set(text[at:])  # fmt: skip
    assert {"acl_file /a", "allow_anonymous false"} <= set(
        text[: text.index("listener 20001 127.0.0.1")]
    )


def test_passwords_travel_under_tls_and_keys_under_their_own() -> None:
    passwords = Listener(8885, WIDE, ServerTls(Path("/s.pem"), Path("/s.key")), devices=True)
    assert "require_certificate true" not in passwords.render()
    assert "certfile /s.pem" in passwords.render()
    assert "psk_hint prepaid" in Listener(8886, WIDE, pre_shared_keys=True).render()


def test_sessions_that_are_away_keep_their_queue() -> None:
    # See test_servers.py, where a broker shows it.
    assert not any(line.startswith("per_listener_settings") for line in lines())


@pytest.mark.parametrize(
    ("listener", "access"),
    [(Listener(1883, WIDE), ("acl_file /a",)), (Listener(1883, WIDE, TLS), ())],
)
def test_an_open_listener_is_refused_beyond_loopback(
    listener: Listener, access: tuple[str, ...]
) -> None:
    with pytest.raises(RuntimeUnavailableError) as caught:
        lines(listener, access=access)
    assert caught.value.code == "listener_open"


def test_a_claim_is_denied_what_the_patterns_give_to_every_user() -> None:
    text = render_access_list(["claim.a"])
    own = text[text.index("user claim.a") :]
    assert "topic deny pm/v1/m/claim.a/#" in own
    assert "topic write pm/v1/e/claim.a/csr" in own


def test_a_password_is_hashed_as_mosquitto_does() -> None:
    # `mosquitto_passwd -b` of 2.0.21 wrote this line for the word `geheim`.
    salt = __import__("base64").b64decode("OsEx6IjMWQ2ivf5s")
    assert password_line("ingest", "geheim", salt) == (
        "ingest:$7$101$OsEx6IjMWQ2ivf5s$Qdukb0gLWGIs+KWYWYOiEqYYD9h9mPW5UsHSPSGldiatkJiYmBY9HYaPcc3aG6"
        "Qi/MiW+8iDAlHAJ488SY5RbA=="
    )


def test_users_are_kept_changed_and_forgotten(tmp_path: Path) -> None:
    files = BrokerFolder(tmp_path, Account("me", os.geteuid(), os.getegid()))
    files.set_passwords({"part.ingest": "one", "37000000017": "two"})
    files.set_key("37000000025", b"\1" * 32)
    before = files.passwords.read_text().splitlines()
    files.set_passwords({"37000000017": "three"})
    after = files.passwords.read_text().splitlines()
    assert (before[0], len(after)) == (after[0], 2)
    assert before[1] != after[1]
    assert files.users() == {"part.ingest", "37000000017", "37000000025"}
    assert (files.forget("37000000017"), files.forget("37000000017")) == (True, False)
    assert files.users() == {"part.ingest", "37000000025"}
    for path in (files.passwords, files.keys):
        assert path.stat().st_mode & 0o777 == 0o600
    assert files.reload() is False  # nobody runs here
