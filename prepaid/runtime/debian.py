"""Debian's own signed packages, fetched by apt into a cache folder: no root, no compiler.

apt verifies the archive's signature and gives the hash of each package; nothing is installed on
the host. What was taken is recorded in `manifest.json`, which is written last: without it the
next start goes on where this one stopped.
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.relocate import relocate
from prepaid.runtime.sources import Mirror, find_mirror, read_sources

SUITE = "trixie"
ROOT_PACKAGES = ("postgresql-17", "postgresql-client-17", "postgresql-17-timescaledb", "mosquitto")
# Of the closure only shared libraries are taken. These are left out: just-in-time compilation is
# off (LLVM and its solver are half of all bytes), and nothing here runs Perl or logs in by PAM.
UNUSED_LIBRARIES = re.compile(
    r"libllvm\d|libz3-|libperl|lib.*-perl$|libc-bin$|libc-l10n$|libpam-modules"
    r"|libsemanage|libsepol|libaudit-common$|libgdbm"
)
KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
)
REQUIRED_TOOLS = ("apt-get", "dpkg", "dpkg-deb")
# apt's own message, bounded: the last lines say what failed.
MAX_ERROR_LINES = 3
# Packages fetched one by one; the rest are small and come in one call.
LARGE = 4

Progress = Callable[[str], None]

_PRINTED_URI = re.compile(r"'(?P<uri>[^']*)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>\w{64})")
_SIMULATED = re.compile(r"Inst (?P<name>[^ :]+)(?::\S+)? (?:\[[^\]]*\] )?\((?P<version>\S+) ")
_ADDRESS = re.compile(r"\b(\w+)://\S+")


@dataclass(frozen=True, slots=True)
class Package:
    """One package of the archive: the file that apt names for it, and its signed hash."""

    name: str
    version: str
    file: str
    size_bytes: int
    sha256: str


class DebianPackages:
    """The private root of binaries below `cache`; see `ready` and `fetch`."""

    def __init__(self, cache: Path, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._folder = cache / f"debian-{SUITE}-{platform.machine()}"
        self.root = self._folder / "root"
        self._manifest = self._folder / "manifest.json"
        self._debs = self._folder / "packages"

    def ready(self) -> bool:
        """True if a finished root is there. Its files name this folder, so it cannot be moved."""
        try:
            manifest = json.loads(self._manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(manifest.get("root") == str(self.root)) and self.root.is_dir()

    def versions(self) -> Mapping[str, str]:
        """Package name to version, of the finished root."""
        manifest = json.loads(self._manifest.read_text(encoding="utf-8"))
        return {package["name"]: package["version"] for package in manifest["packages"]}

    def fetch(self, progress: Progress) -> None:
        """Makes the root ready: two callers at once share the work. Takes 10-30 s, 45 MB.

        Errors: `no_debian_tools`, `no_debian_mirror`, `no_archive_keyring`, `apt_failed`,
        `package_damaged`, `cache_refused`, and those of `relocate`.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = (
                f"Cannot make {self._folder} ({error.strerror}): "
                "set PREPAID_CACHE to a folder that can be written."
            )
            raise RuntimeUnavailableError("cache_refused", message) from None
        with self._locked(progress):
            if self.ready():
                return
            self._require_debian_tools()
            self._configure_apt(self._choose_mirror())
            progress(f"Asking the Debian mirror for {SUITE}")
            self._apt("update", "-q")
            packages = self._resolve_packages()
            self._download(packages, progress)
            self._unpack(packages, progress)
            record = {
                "root": str(self.root),
                "suite": SUITE,
                "packages": [
                    {"name": p.name, "version": p.version, "sha256": p.sha256} for p in packages
                ],
            }
            staged = self._manifest.with_suffix(".new")
            staged.write_text(json.dumps(record, indent=1), encoding="utf-8")
            staged.replace(self._manifest)
            # The root is what is needed from now on; a damaged one is fetched anew.
            shutil.rmtree(self._debs, ignore_errors=True)

    @contextmanager
    def _locked(self, progress: Progress) -> Iterator[None]:
        with (self._folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress("Waiting for another start that fetches the same packages")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _require_debian_tools(self) -> None:
        missing = [tool for tool in REQUIRED_TOOLS if shutil.which(tool) is None]
        if missing:
            message = (
                f"This host has no {missing[0]}, so Debian's packages cannot be unpacked here: use "
                "compose.yaml, or set PREPAID_DATABASE__URL and PREPAID_BROKER__URL."
            )
            raise RuntimeUnavailableError("no_debian_tools", message)

    def _choose_mirror(self) -> Mirror:
        given = self._environ.get("PREPAID_DEBIAN_MIRROR")
        mirror = Mirror(given, None) if given else find_mirror(read_sources(Path("/etc/apt")))
        if mirror is None:
            message = (
                "No Debian mirror in this host's apt sources: set PREPAID_DEBIAN_MIRROR to the "
                "address of one, or use compose.yaml."
            )
            raise RuntimeUnavailableError("no_debian_mirror", message)
        return mirror

    def _configure_apt(self, mirror: Mirror) -> None:
        keyring = next((path for path in KEYRINGS if Path(path).is_file()), None)
        if keyring is None:
            message = (
                "No keyring of the Debian archive to verify packages with: "
                "install debian-archive-keyring, or use compose.yaml."
            )
            raise RuntimeUnavailableError("no_archive_keyring", message)
        apt = self._folder / "apt"
        for part in ("lists/partial", "cache/archives/partial"):
            (apt / part).mkdir(parents=True, exist_ok=True)
        (apt / "status").write_text("")
        lines = [f"deb [signed-by={keyring}] {mirror.archive} {SUITE} main\n"]
        if mirror.security is not None:
            lines.append(f"deb [signed-by={keyring}] {mirror.security} {SUITE}-security main\n")
        sources = apt / "sources.list"
        sources.unlink(missing_ok=True)
        # An address may carry credentials.
        with os.fdopen(os.open(sources, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.writelines(lines)
        (apt / "apt.conf").write_text(_apt_configuration(apt, self._architecture()))

    def _architecture(self) -> str:
        return subprocess.run(
            ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
        ).stdout.strip()

    def _apt(self, *arguments: str, cwd: Path | None = None) -> str:
        outcome = subprocess.run(
            ["apt-get", f"-c={self._folder}/apt/apt.conf", *arguments],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
        )
        if outcome.returncode != 0:
            said = [line for line in outcome.stderr.splitlines() if line.startswith("E:")]
            reason = _ADDRESS.sub(r"\1://***", " ".join(said[-MAX_ERROR_LINES:]))
            message = (
                f"apt-get {arguments[0]} failed ({reason or 'it gave no reason'}): "
                "mend the host's apt sources, or set PREPAID_DEBIAN_MIRROR, and start again."
            )
            raise RuntimeUnavailableError("apt_failed", message)
        return outcome.stdout

    def _resolve_packages(self) -> tuple[Package, ...]:
        simulated = self._apt("-s", "install", *ROOT_PACKAGES)
        versions = {match["name"]: match["version"] for match in _SIMULATED.finditer(simulated)}
        names = select_packages(versions)
        printed = self._apt("download", "--print-uris", *(f"{n}={versions[n]}" for n in names))
        packages = []
        for match in _PRINTED_URI.finditer(printed):
            name = match["file"].split("_", 1)[0]
            packages.append(
                Package(name, versions[name], match["file"], int(match["size"]), match["sha256"])
            )
        return tuple(packages)

    def _download(self, packages: tuple[Package, ...], progress: Progress) -> None:
        self._debs.mkdir(exist_ok=True)
        missing = [package for package in packages if not self._intact(package)]
        size_bytes = sum(package.size_bytes for package in missing)
        progress(f"Fetching {len(missing)} packages, {size_bytes / 1e6:.0f} MB")
        for package in missing:
            (self._debs / package.file).unlink(missing_ok=True)
        # Several calls, so that an interrupted fetch keeps what it has and progress can be told.
        # The large ones come first, in calls of their own: the time that is left is soon known.
        missing.sort(key=lambda package: package.size_bytes, reverse=True)
        batches = [[package] for package in missing[:LARGE]] + [missing[LARGE:]]
        left_bytes = size_bytes
        for batch in filter(None, batches):
            wanted = [f"{package.name}={package.version}" for package in batch]
            self._apt("download", "-q", *wanted, cwd=self._debs)
            for package in batch:
                if not self._intact(package):
                    message = f"{package.name} does not match the archive's hash: start again."
                    raise RuntimeUnavailableError("package_damaged", message)
                left_bytes -= package.size_bytes
            progress(f"Fetched {batch[0].name}, {left_bytes / 1e6:.0f} MB to go")

    def _intact(self, package: Package) -> bool:
        try:
            content = (self._debs / package.file).read_bytes()
        except OSError:
            return False
        return hashlib.sha256(content).hexdigest() == package.sha256

    def _unpack(self, packages: tuple[Package, ...], progress: Progress) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(mode=0o755)
        progress(f"Unpacking {len(packages)} packages into {self.root}")
        for package in packages:
            subprocess.run(
                ["dpkg-deb", "-x", str(self._debs / package.file), str(self.root)], check=True
            )
        relocate(self.root)


def select_packages(closure: Mapping[str, str]) -> tuple[str, ...]:
    """The packages of `closure` (name to version) that the servers load, in order of name."""
    return tuple(
        sorted(
            name
            for name in closure
            if name in ROOT_PACKAGES
            or (name.startswith(("lib", "zlib")) and not UNUSED_LIBRARIES.match(name))
        )
    )


def _apt_configuration(apt: Path, architecture: str) -> str:
    """apt.conf(5) read after the host's own, whose proxies and time limits stay in force.

    An empty status file makes apt resolve the whole closure; hooks of the host are cleared, since
    they belong to its package database, which is not touched. The sandbox account is cleared
    because it could not write below a private cache.
    """
    return f"""\
#clear APT::Update;
#clear DPkg;
#clear APT::Architectures;
#clear APT::Default-Release;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::State "{apt}";
Dir::State::lists "{apt}/lists";
Dir::State::status "{apt}/status";
Dir::Cache "{apt}/cache";
Dir::Etc::sourcelist "{apt}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"""
