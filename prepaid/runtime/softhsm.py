"""SoftHSM2, a PKCS#11 token in software: the host's own, or Debian's packages in a private folder.

Unlike the servers it is loaded into our own process, so that it comes from the host's own release
and runs on the host's C library. Nothing of the main job needs it: it is fetched when asked for.
"""

import json
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prepaid.runtime.apt import PrivateApt, Progress
from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.relocate import find_patchelf, search_libraries_in

ROOT_PACKAGES = ("softhsm2",)
OS_RELEASE = Path("/etc/os-release")
# The C library, and what is part of it, are the host's: this process has them loaded.
HOSTS_OWN = re.compile(r"libc6$|libc-|libcrypt1$|libdebconfclient|libgdbm|libperl|libpam")
LIBRARY = "libsofthsm2.so"
UTILITY = "softhsm2-util"


@dataclass(frozen=True, slots=True)
class SoftHsm:
    """Where the library and the utility are."""

    library: Path
    utility: Path

    def make_token(self, folder: Path, label: str, pin: str) -> Path:
        """A new token below `folder`; returns its configuration, for SOFTHSM2_CONF.

        The PIN passes through a command line: this is for trying out. Errors: `token_refused`.
        """
        tokens = folder / "tokens"
        configuration = folder / "softhsm2.conf"
        tokens.mkdir(mode=0o700, parents=True, exist_ok=True)
        configuration.write_text(
            f"directories.tokendir = {tokens}\nobjectstore.backend = file\n", encoding="utf-8"
        )
        made = subprocess.run(
            [
                *(str(self.utility), "--module", str(self.library), "--init-token", "--free"),
                *("--label", label, "--so-pin", pin, "--pin", pin),
            ],
            env={"SOFTHSM2_CONF": str(configuration)},
            check=False,
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            said = (made.stderr.strip().splitlines() or ["it gave no reason"])[0]
            raise RuntimeUnavailableError(
                "token_refused", f"SoftHSM2 makes no token ({said}): use a PIN of 4 to 255 letters."
            )
        return configuration


def find_local(folders: Iterable[Path] = (Path("/usr"), Path("/usr/local"))) -> SoftHsm | None:
    """The host's own SoftHSM2, where it is installed."""
    for usr in folders:
        found = _below(usr)
        if found is not None:
            return found
    return None


def _below(usr: Path) -> SoftHsm | None:
    libraries = [*usr.glob(f"lib/*/softhsm/{LIBRARY}"), usr / "lib/softhsm" / LIBRARY]
    library = next((each for each in libraries if each.is_file()), None)
    utility = usr / "bin" / UTILITY
    return SoftHsm(library, utility) if library is not None and utility.is_file() else None


class SoftHsmPackages:
    """A private SoftHSM2 below `cache`; see `find` and `fetch`."""

    def __init__(
        self, cache: Path, environ: Mapping[str, str], os_release: Path = OS_RELEASE
    ) -> None:
        """Errors: `no_debian_release`."""
        suite = debian_release(os_release)
        folder = cache / f"softhsm-{suite}-{platform.machine()}"
        self.root = folder / "root"
        self._manifest = folder / "manifest.json"
        self._apt = PrivateApt(folder, environ, suite)

    def find(self) -> SoftHsm | None:
        """What was fetched, if it was."""
        try:
            manifest = json.loads(self._manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return _below(self.root / "usr") if manifest.get("root") == str(self.root) else None

    def fetch(self, progress: Progress) -> SoftHsm:
        """Makes it ready: two callers at once share the work. About 5 MB.

        Errors: those of `PrivateApt`; `patchelf_failed`; `library_missing`.
        """
        with self._apt.locked(progress):
            found = self.find()
            if found is not None:
                return found
            patchelf = find_patchelf()
            self._apt.update(progress)
            closure = self._apt.closure(ROOT_PACKAGES)
            packages = self._apt.packages({name: closure[name] for name in select(closure)})
            self._apt.download(packages, progress)
            self._apt.unpack(packages, self.root)
            found = _below(self.root / "usr")
            if found is None:
                message = f"No {LIBRARY} in Debian's package: report this as a defect."
                raise RuntimeUnavailableError("library_missing", message)
            _search_here(patchelf, found)
            record = {
                "root": str(self.root),
                "packages": [
                    {"name": each.name, "version": each.version, "sha256": each.sha256}
                    for each in packages
                ],
            }
            self._manifest.write_text(json.dumps(record, indent=1), encoding="utf-8")
            self._apt.forget_packages()
            return found


def _search_here(patchelf: str, found: SoftHsm) -> None:
    folders = found.library.parents
    libraries = next(each for each in folders if each.name.endswith("-linux-gnu"))
    objects = [each for each in libraries.iterdir() if each.is_file() and not each.is_symlink()]
    search_libraries_in(libraries, [found.library.resolve(), found.utility, *objects], patchelf)


def select(closure: Iterable[str]) -> tuple[str, ...]:
    """The names of `closure` that are not the host's own already, in order."""
    return tuple(
        sorted(
            name
            for name in closure
            if name in ROOT_PACKAGES
            or (name.startswith(("lib", "zlib")) and not HOSTS_OWN.match(name))
        )
    )


def debian_release(os_release: Path) -> str:
    """The code name of the host's Debian. Errors: `no_debian_release`."""
    try:
        lines = os_release.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    name = values.get("VERSION_CODENAME", "").strip('"')
    if values.get("ID", "").strip('"') != "debian" or not name.isalpha():
        raise RuntimeUnavailableError(
            "no_debian_release",
            "This host is no Debian, so its SoftHSM2 cannot be had here: install softhsm2 with "
            "the host's own tools.",
        )
    return name


def resolve_softhsm(cache: Path, environ: Mapping[str, str], progress: Progress) -> SoftHsm:
    """The host's own, else the fetched one, fetching it now. Errors: those of `fetch`."""
    found = find_local()
    return found if found is not None else SoftHsmPackages(cache, environ).fetch(progress)
