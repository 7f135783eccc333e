import os
import pwd
from pathlib import Path

import pytest

from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.folders import Account, Folders, make_open_folder

ROOT = os.geteuid() == 0


def test_given_folders_win() -> None:
    given = {"PREPAID_HOME": "/data", "PREPAID_CACHE": "/programs", "XDG_DATA_HOME": "/no"}
    assert Folders.choose(given) == Folders(Path("/data"), Path("/programs"))


def test_ordinary_user_keeps_to_the_xdg_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Folders.choose({"HOME": "/home/a"}) == Folders(
        Path("/home/a/.local/share/prepaid"), Path("/home/a/.cache/prepaid")
    )
    given = {"HOME": "/home/a", "XDG_DATA_HOME": "/d", "XDG_CACHE_HOME": "/c"}
    assert Folders.choose(given) == Folders(Path("/d/prepaid"), Path("/c/prepaid"))


def test_root_uses_the_folders_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Folders.choose({"HOME": "/root"}) == Folders(
        Path("/var/lib/prepaid"), Path("/var/cache/prepaid")
    )


def test_servers_of_root_run_as_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    account = Account.choose()
    assert account.name == "nobody"
    assert account.popen_user == pwd.getpwnam("nobody").pw_uid
    assert account.popen_group == pwd.getpwnam("nobody").pw_gid
    assert account.popen_extra_groups == []


def test_servers_of_an_ordinary_user_run_as_that_user(monkeypatch: pytest.MonkeyPatch) -> None:
    user = pwd.getpwnam("nobody")
    monkeypatch.setattr(os, "geteuid", lambda: user.pw_uid)
    account = Account.choose()
    assert account.name == "nobody"
    assert (account.popen_user, account.popen_group, account.popen_extra_groups) == (None,) * 3


@pytest.mark.parametrize(
    ("euid", "name", "code"),
    [
        (0, "no-such-account", "unknown_account"),
        (0, "root", "account_is_root"),
        (1000, "nobody", "account_needs_root"),
    ],
)
def test_account_that_cannot_serve_is_refused(
    monkeypatch: pytest.MonkeyPatch, euid: int, name: str, code: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    with pytest.raises(RuntimeUnavailableError) as caught:
        Account.choose(name)
    assert caught.value.code == code


def test_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeUnavailableError, match="set PREPAID_HOME") as caught:
        Account.choose().make_folder(tmp_path / "file" / "below")
    assert caught.value.code == "folder_refused"


@pytest.mark.skipif(not ROOT, reason="only root switches accounts")
def test_folder_below_a_closed_one_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(RuntimeUnavailableError, match="cannot enter") as caught:
        Account.choose().make_folder(tmp_path / "data")
    assert caught.value.code == "folder_closed"


def test_new_folders_are_open_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        make_open_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o755, 0o755]
