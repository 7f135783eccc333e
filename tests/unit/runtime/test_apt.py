import re
from pathlib import Path

import pytest

from prepaid.runtime.apt import (
    KEYRINGS,
    choose_keyring,
    choose_mirror,
    hide_addresses,
    render_configuration,
    render_sources,
)
from prepaid.runtime.debian import select_packages
from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.sources import Mirror


def test_given_mirror_wins_over_the_hosts_sources(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://host.invalid trixie main\n")
    assert choose_mirror({}, tmp_path).archive == "http://host.invalid"
    given = {"PREPAID_DEBIAN_MIRROR": "http://given.invalid"}
    assert choose_mirror(given, tmp_path) == Mirror("http://given.invalid", None)


def test_host_without_debian_sources_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match="set PREPAID_DEBIAN_MIRROR") as caught:
        choose_mirror({}, tmp_path)
    assert caught.value.code == "no_debian_mirror"


def test_packages_are_not_taken_without_the_archives_keys(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match="debian-archive-keyring") as caught:
        choose_keyring([tmp_path / "missing"])
    assert caught.value.code == "no_archive_keyring"


def test_every_source_is_bound_to_the_archives_keys() -> None:
    text = render_sources(Mirror("http://a.invalid", "http://s.invalid"), KEYRINGS[0])
    assert text.splitlines() == [
        f"deb [signed-by={KEYRINGS[0]}] http://a.invalid trixie main",
        f"deb [signed-by={KEYRINGS[0]}] http://s.invalid trixie-security main",
    ]


def test_apt_stays_out_of_the_hosts_state() -> None:
    text = render_configuration(Path("/cache/apt"), "arm64")
    folders = re.findall(r'^Dir::\S+ "(.*)";$', text, re.MULTILINE)
    assert len(folders) == 8
    assert {folder for folder in folders if not folder.startswith("/cache/apt")} == {"/dev/null"}
    assert "Allow" not in text
    assert "trusted" not in text


def test_apts_message_is_shown_without_addresses() -> None:
    said = "E: Failed to fetch https://user:word@m.invalid/dists/x  404"
    assert hide_addresses(said) == "E: Failed to fetch https://***  404"


def test_only_what_the_servers_load_is_taken() -> None:
    closure = ["mosquitto", "libc6", "libllvm19", "perl", "zlib1g", "libjson-perl", "adduser"]
    assert select_packages(closure) == ("libc6", "mosquitto", "zlib1g")
