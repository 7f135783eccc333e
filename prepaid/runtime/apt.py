"""apt with a configuration of our own: packages of one Debian release, unpacked, not installed.

apt verifies the archive's signature and with it the hash of each package. The host's package
database is neither read nor written, and no root is needed.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.folders import make_open_folder
from prepaid.runtime.sources import Mirror, find_mirror, read_sources

SUITE = "trixie"
ETC_APT = Path("/etc/apt")
KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
)
REQUIRED_TOOLS = ("apt-get", "dpkg", "dpkg-deb")
# Of apt's own message, the last lines say what failed.
MAX_ERROR_LINES = 3
# Packages fetched one by one; the rest are small and come in one call.
LARGE = 4

Progress = Callable[[str], None]

_PRINTED_URI = re.compile(
    r"'[^']*' (?P<file>(?P<name>[^_ ]+)_\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})"
)
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


class PrivateApt:
    """`update`, then `closure`, `packages` and `download`; hold `locked` around all of them."""

    def __init__(self, folder: Path, environ: Mapping[str, str], suite: str = SUITE) -> None:
        self._folder = folder
        self._suite = suite
        self._apt = folder / "apt"
        self._packages = folder / "packages"
        self._environ = environ

    @contextmanager
    def locked(self, progress: Progress) -> Iterator[None]:
        """Lets one process at a time work in the folder. Errors: `cache_refused`."""
        try:
            make_open_folder(self._folder)
            lock = (self._folder / "lock").open("w")
        except OSError as error:
            message = (
                f"Cannot write {self._folder} ({error.strerror}): "
                "set PREPAID_CACHE to a folder that can be written."
            )
            raise RuntimeUnavailableError("cache_refused", message) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress("Waiting for another start that fetches the same packages")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def update(self, progress: Progress) -> None:
        """Fetches the signed index of the release.

        Errors: `no_debian_tools`, `no_debian_mirror`, `no_archive_keyring`, `apt_failed`.
        """
        self._configure(*require_host(self._environ))
        progress(f"Asking the Debian mirror for {self._suite}")
        self._run("update", "-q")

    def closure(self, roots: Sequence[str]) -> Mapping[str, str]:
        """Name to version of `roots` and all that they depend on, as on an empty machine."""
        simulated = self._run("-s", "install", *roots)
        return {match["name"]: match["version"] for match in _SIMULATED.finditer(simulated)}

    def packages(self, versions: Mapping[str, str]) -> tuple[Package, ...]:
        """The files of exactly these packages. Errors: `apt_failed`."""
        printed = self._run(
            "download", "--print-uris", *(f"{name}={version}" for name, version in versions.items())
        )
        return tuple(
            Package(
                match["name"],
                versions[match["name"]],
                match["file"],
                int(match["size"]),
                match["sha256"],
            )
            for match in _PRINTED_URI.finditer(printed)
        )

    def download(self, packages: Sequence[Package], progress: Progress) -> None:
        """Fetches what is not there yet. Errors: `apt_failed`, `package_damaged`."""
        self._packages.mkdir(exist_ok=True)
        missing = [package for package in packages if not self._intact(package)]
        left_bytes = sum(package.size_bytes for package in missing)
        progress(f"Fetching {len(missing)} packages, {left_bytes / 1e6:.0f} MB")
        for package in missing:
            (self._packages / package.file).unlink(missing_ok=True)
        # Several calls, so that an interrupted fetch keeps what it has and progress can be told;
        # the large ones first and alone.
        missing.sort(key=lambda package: package.size_bytes, reverse=True)
        for batch in filter(None, [*([large] for large in missing[:LARGE]), missing[LARGE:]]):
            wanted = [f"{package.name}={package.version}" for package in batch]
            self._run("download", "-q", *wanted, cwd=self._packages)
            for package in batch:
                if not self._intact(package):
                    message = f"{package.name} does not match the archive's hash: start again."
                    raise RuntimeUnavailableError("package_damaged", message)
                left_bytes -= package.size_bytes
            progress(f"Fetched {batch[0].name}, {left_bytes / 1e6:.0f} MB to go")

    def unpack(self, packages: Sequence[Package], root: Path) -> None:
        """Puts the files of all packages below `root`, which is made anew. Runs none of them."""
        shutil.rmtree(root, ignore_errors=True)
        make_open_folder(root)
        for package in packages:
            file = self._packages / package.file
            subprocess.run(["dpkg-deb", "-x", str(file), str(root)], check=True)

    def forget_packages(self) -> None:
        """Frees the space of the fetched files, once unpacked."""
        shutil.rmtree(self._packages, ignore_errors=True)

    def _intact(self, package: Package) -> bool:
        try:
            content = (self._packages / package.file).read_bytes()
        except OSError:
            return False
        return hashlib.sha256(content).hexdigest() == package.sha256

    def _configure(self, mirror: Mirror, keyring: Path) -> None:
        for part in ("lists/partial", "cache/archives/partial"):
            (self._apt / part).mkdir(parents=True, exist_ok=True)
        (self._apt / "status").write_text("", encoding="utf-8")
        sources = self._apt / "sources.list"
        sources.unlink(missing_ok=True)
        # An address may carry credentials.
        with os.fdopen(os.open(sources, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(render_sources(mirror, keyring, self._suite))
        architecture = subprocess.run(
            ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
        ).stdout.strip()
        configuration = render_configuration(self._apt, architecture)
        (self._apt / "apt.conf").write_text(configuration, encoding="utf-8")

    def _run(self, *arguments: str, cwd: Path | None = None) -> str:
        outcome = subprocess.run(
            ["apt-get", f"-c={self._apt}/apt.conf", *arguments],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
        )
        if outcome.returncode != 0:
            said = [line for line in outcome.stderr.splitlines() if line.startswith("E:")]
            reason = hide_addresses(" ".join(said[-MAX_ERROR_LINES:])) or "it gave no reason"
            message = (
                f"apt-get failed ({reason}): "
                "mend the host's apt sources, or set PREPAID_DEBIAN_MIRROR, and start again."
            )
            raise RuntimeUnavailableError("apt_failed", message)
        return outcome.stdout


def require_host(environ: Mapping[str, str]) -> tuple[Mirror, Path]:
    """Mirror and keyring of a host that can fetch; changes nothing.

    Errors: `no_debian_tools`, `no_debian_mirror`, `no_archive_keyring`.
    """
    missing = [tool for tool in REQUIRED_TOOLS if shutil.which(tool) is None]
    if missing:
        message = (
            f"This host has no {missing[0]}, so Debian's packages cannot be had here: use "
            "compose.yaml, or set PREPAID_DATABASE__URL and PREPAID_BROKER__URL."
        )
        raise RuntimeUnavailableError("no_debian_tools", message)
    return choose_mirror(environ, ETC_APT), choose_keyring(KEYRINGS)


def choose_mirror(environ: Mapping[str, str], etc_apt: Path) -> Mirror:
    """PREPAID_DEBIAN_MIRROR, else the host's own. Errors: `no_debian_mirror`."""
    given = environ.get("PREPAID_DEBIAN_MIRROR")
    mirror = Mirror(given, None) if given else find_mirror(read_sources(etc_apt))
    if mirror is None:
        message = (
            "No Debian mirror in this host's apt sources: set PREPAID_DEBIAN_MIRROR to the "
            "address of one, or use compose.yaml."
        )
        raise RuntimeUnavailableError("no_debian_mirror", message)
    return mirror


def choose_keyring(candidates: Sequence[Path]) -> Path:
    """The archive's keys; bookworm's hold those of trixie too. Errors: `no_archive_keyring`."""
    for path in candidates:
        if path.is_file():
            return path
    message = (
        "No keyring to verify Debian's packages with: "
        "install debian-archive-keyring, or use compose.yaml."
    )
    raise RuntimeUnavailableError("no_archive_keyring", message)


def hide_addresses(text: str) -> str:
    """`text` without the part of each address that can hold credentials."""
    return _ADDRESS.sub(r"\1://***", text)


def render_sources(mirror: Mirror, keyring: Path, suite: str = SUITE) -> str:
    """sources.list(5) of the release and, where the host has such a mirror, its security fixes."""
    lines = [f"deb [signed-by={keyring}] {mirror.archive} {suite} main\n"]
    if mirror.security is not None:
        lines.append(f"deb [signed-by={keyring}] {mirror.security} {suite}-security main\n")
    return "".join(lines)


def render_configuration(apt: Path, architecture: str) -> str:
    """apt.conf(5) read after the host's own, whose proxies and time limits stay in force.

    An empty status file makes apt resolve the whole closure; hooks of the host are cleared, since
    they belong to its package database. A mirror that does not answer is an error at once, not a
    release without packages. The sandbox account is cleared because it could not write
    below a private cache.
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
APT::Update::Error-Mode "any";
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
