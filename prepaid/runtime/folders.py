"""Where the runtime keeps what it fetched and what it must not lose, and who runs the servers."""

import os
import pwd
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prepaid.runtime.errors import RuntimeUnavailableError

UNPRIVILEGED = "nobody"


@dataclass(frozen=True, slots=True)
class Account:
    """The operating-system account of the servers. PostgreSQL refuses to run as root."""

    name: str
    uid: int
    gid: int

    @classmethod
    def choose(cls, name: str | None = None) -> "Account":
        """The named account, `nobody` for root, or the caller itself.

        Errors: `unknown_account`; `account_needs_root` if an ordinary user names another.
        """
        wanted = name if name is not None else UNPRIVILEGED if os.geteuid() == 0 else None
        try:
            entry = pwd.getpwnam(wanted) if wanted is not None else pwd.getpwuid(os.geteuid())
        except KeyError:
            message = f"No account {wanted or os.geteuid()}: create it, or pass --user NAME."
            raise RuntimeUnavailableError("unknown_account", message) from None
        if os.geteuid() not in {0, entry.pw_uid}:
            message = f"Only root can run servers as {entry.pw_name}: leave --user out."
            raise RuntimeUnavailableError("account_needs_root", message)
        if entry.pw_uid == 0:
            message = "PostgreSQL refuses to run as root: pass --user with an ordinary account."
            raise RuntimeUnavailableError("account_is_root", message)
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    @property
    def switched(self) -> bool:
        """True if servers run under another account than this process."""
        return self.uid != os.geteuid()

    @property
    def popen_user(self) -> int | None:
        """`user` of `subprocess.Popen`: None if there are no privileges to drop."""
        return self.uid if self.switched else None

    @property
    def popen_group(self) -> int | None:
        return self.gid if self.switched else None

    @property
    def popen_extra_groups(self) -> list[str | int] | None:
        """None of root's groups stays with the servers."""
        return [] if self.switched else None

    def make_folder(self, path: Path) -> None:
        """Creates `path` with mode 0700, owned by the account; new parents are ours, open to all.

        Nothing that we write as root lies inside: the account could turn it elsewhere by a link.

        Errors: `folder_closed` if the account cannot enter a parent, `folder_refused` if the
        folder cannot be made.
        """
        try:
            make_open_folder(path)
            if self.switched:
                os.chown(path, self.uid, self.gid)
            path.chmod(0o700)
        except OSError as error:
            message = f"Cannot make {path} ({error.strerror}): set PREPAID_HOME to another folder."
            raise RuntimeUnavailableError("folder_refused", message) from None
        self.require_entry(path)

    def require_entry(self, path: Path) -> None:
        """Refuses a folder below, say, root's 0700 home, which the servers could not enter."""
        if not self.switched:
            return
        probe = subprocess.run(
            ["/bin/sh", "-c", 'cd "$1"', "sh", str(path)],
            check=False,
            capture_output=True,
            user=self.popen_user,
            group=self.popen_group,
            extra_groups=self.popen_extra_groups,
            cwd="/",
        )
        if probe.returncode != 0:
            message = (
                f"The account {self.name} cannot enter {path}: set PREPAID_HOME (data) and "
                "PREPAID_CACHE (programs) to folders whose parents are open to all."
            )
            raise RuntimeUnavailableError("folder_closed", message)


def make_open_folder(path: Path) -> None:
    """Creates `path` and its missing parents, open to all whatever root's umask is.

    Folders that are there keep their mode. Errors: OSError.
    """
    if path.is_dir():
        return
    make_open_folder(path.parent)
    path.mkdir(exist_ok=True)
    path.chmod(0o755)


@dataclass(frozen=True, slots=True)
class Folders:
    """`data` holds the databases; `cache` can be deleted at any time and comes back."""

    data: Path
    cache: Path

    @classmethod
    def choose(cls, environ: Mapping[str, str]) -> "Folders":
        """PREPAID_HOME and PREPAID_CACHE win; else the FHS folders for root, the XDG ones else."""
        if os.geteuid() == 0:
            data, cache = Path("/var/lib/prepaid"), Path("/var/cache/prepaid")
        else:
            home = Path(environ.get("HOME") or Path.home())
            data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share") / "prepaid"
            cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "prepaid"
        return cls(
            data=Path(environ.get("PREPAID_HOME") or data).absolute(),
            cache=Path(environ.get("PREPAID_CACHE") or cache).absolute(),
        )
