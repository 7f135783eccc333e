"""Which SoftHSM2 is taken, and what of Debian's closure goes with it."""

from pathlib import Path

import pytest

from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.softhsm import (
    LIBRARY,
    SoftHsm,
    SoftHsmPackages,
    debian_release,
    find_local,
    select,
)


def test_the_hosts_own_is_found_with_its_utility_and_not_without(tmp_path: Path) -> None:
    library = tmp_path / "lib/some-linux-gnu/softhsm" / LIBRARY
    library.parent.mkdir(parents=True)
    library.touch()
    assert find_local([tmp_path]) is None
    utility = tmp_path / "bin/softhsm2-util"
    utility.parent.mkdir()
    utility.touch()
    assert find_local([tmp_path]) == SoftHsm(library, utility)


def test_the_c_library_stays_the_hosts() -> None:
    closure = ["softhsm2", "libsofthsm2", "libc6", "libssl3", "libstdc++6", "zlib1g", "debconf"]
    assert select(closure) == ("libsofthsm2", "libssl3", "libstdc++6", "softhsm2", "zlib1g")


def test_the_release_is_the_hosts(tmp_path: Path) -> None:
    file = tmp_path / "os-release"
    file.write_text('ID=debian\nVERSION_CODENAME="bookworm"\n')
    assert debian_release(file) == "bookworm"


@pytest.mark.parametrize(
    "text", ["", "ID=fedora\n", "ID=debian\n", "ID=debian\nVERSION_CODENAME=../x"]
)
def test_a_host_that_is_no_debian_is_told_what_to_do(tmp_path: Path, text: str) -> None:
    file = tmp_path / "os-release"
    if text:
        file.write_text(text)
    with pytest.raises(RuntimeUnavailableError, match="install softhsm2") as refusal:
        SoftHsmPackages(tmp_path, {}, file)
    assert refusal.value.code == "no_debian_release"


def test_a_cache_that_was_moved_is_none(tmp_path: Path) -> None:
    file = tmp_path / "os-release"
    file.write_text("ID=debian\nVERSION_CODENAME=bookworm\n")
    packages = SoftHsmPackages(tmp_path, {}, file)
    assert packages.find() is None
    packages.root.parent.mkdir()
    (packages.root.parent / "manifest.json").write_text('{"root": "/elsewhere"}')
    assert packages.find() is None


def test_a_pin_that_the_token_refuses_is_told_in_one_line(tmp_path: Path) -> None:
    utility = tmp_path / "utility"
    utility.write_text("#!/bin/sh\necho 'ERROR: bad PIN' >&2\nexit 1\n")
    utility.chmod(0o755)
    with pytest.raises(RuntimeUnavailableError, match="bad PIN") as refusal:
        SoftHsm(tmp_path / LIBRARY, utility).make_token(tmp_path / "new", "desk", "1")
    assert refusal.value.code == "token_refused"
