"""PostgreSQL, TimescaleDB and mosquitto out of Debian's packages, in one folder that runs.

What was taken is recorded in `manifest.json`, which is written last: without it the next start
goes on where this one stopped.
"""

import json
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from prepaid.runtime.apt import SUITE, PrivateApt, Progress
from prepaid.runtime.relocate import find_patchelf, relocate

ROOT_PACKAGES = (
    "postgresql-17",
    "postgresql-client-17",
    "postgresql-17-timescaledb",
    "mosquitto",
    # For people who want to be a meter.
    "mosquitto-clients",
)
# Of the closure only shared libraries are taken. These are left out: just-in-time compilation is
# off (LLVM and its solver are half of all bytes), and nothing here runs Perl or logs in by PAM.
UNUSED_LIBRARIES = re.compile(
    r"libllvm\d|libz3-|libperl|lib.*-perl$|libc-bin$|libc-l10n$|libpam-modules"
    r"|libsemanage|libsepol|libaudit-common$|libgdbm|libdebconfclient"
)


class DebianPackages:
    """The private root of binaries below `cache`; see `ready` and `fetch`."""

    def __init__(self, cache: Path, environ: Mapping[str, str]) -> None:
        folder = cache / f"debian-{SUITE}-{platform.machine()}"
        self.root = folder / "root"
        self._manifest = folder / "manifest.json"
        self._apt = PrivateApt(folder, environ)

    def ready(self) -> bool:
        """True if a finished root is there. Its files name this folder, so it cannot be moved."""
        try:
            manifest = json.loads(self._manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        wanted = {"root": str(self.root), "asked": list(ROOT_PACKAGES)}
        return wanted == {key: manifest.get(key) for key in wanted} and self.root.is_dir()

    def fetch(self, progress: Progress) -> None:
        """Makes the root ready: two callers at once share the work. About 15 s and 42 MB.

        Errors: those of `PrivateApt` and of `relocate`.
        """
        with self._apt.locked(progress):
            if self.ready():
                return
            patchelf = find_patchelf()
            self._apt.update(progress)
            closure = self._apt.closure(ROOT_PACKAGES)
            packages = self._apt.packages(
                {name: closure[name] for name in select_packages(closure)}
            )
            self._apt.download(packages, progress)
            progress(f"Unpacking {len(packages)} packages into {self.root}")
            self._apt.unpack(packages, self.root)
            relocate(self.root, patchelf)
            taken = [
                {"name": package.name, "version": package.version, "sha256": package.sha256}
                for package in packages
            ]
            record = {
                "root": str(self.root),
                "asked": list(ROOT_PACKAGES),
                "suite": SUITE,
                "packages": taken,
            }
            staged = self._manifest.with_suffix(".new")
            staged.write_text(json.dumps(record, indent=1), encoding="utf-8")
            staged.replace(self._manifest)
            self._apt.forget_packages()


def select_packages(closure: Iterable[str]) -> tuple[str, ...]:
    """The names of `closure` whose files the servers load, in order."""
    return tuple(
        sorted(
            name
            for name in closure
            if name in ROOT_PACKAGES
            or (name.startswith(("lib", "zlib")) and not UNUSED_LIBRARIES.match(name))
        )
    )
