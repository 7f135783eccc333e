"""Finds the programs: the host's own if they fit, else Debian's packages in a private folder.

Own servers (`PREPAID_DATABASE__URL`, `PREPAID_BROKER__URL`) come before both, see `instance`.
There is no third way: neither a PostgreSQL without TimescaleDB nor a mock broker stands in.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prepaid.runtime.binaries import (
    Binaries,
    BinarySource,
    MosquittoBinaries,
    PostgresBinaries,
)
from prepaid.runtime.debian import DebianPackages
from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.folders import Folders

# TimescaleDB 2.19 runs on 14 and up; the schema uses what 15 brought.
MIN_POSTGRES_MAJOR = 15
# `max_queued_bytes` and the other limits as we set them are those of mosquitto 2.
MIN_MOSQUITTO = (2, 0)


def resolve(
    progress: Callable[[str], None],
    environ: Mapping[str, str] = os.environ,
    folders: Folders | None = None,
) -> Binaries:
    """The programs to run; fetches what the host does not have, telling `progress` so.

    Errors: those of `DebianPackages.fetch`; `binary_broken` if a fetched program does not run;
    `no_time_zones` if the host has no time zone database.
    """
    chosen = folders if folders is not None else Folders.choose(environ)
    while (found := find_ready(environ, chosen)) is None:
        DebianPackages(chosen.cache, environ).fetch(progress)
    return found


def find_ready(environ: Mapping[str, str], folders: Folders) -> Binaries | None:
    """The programs as far as they are here; None if something must be fetched first.

    Errors: `binary_broken`, `no_time_zones`.
    """
    postgres = find_local_postgres(environ)
    mosquitto = find_local_mosquitto(environ)
    packages = DebianPackages(folders.cache, environ)
    if (postgres is None or mosquitto is None) and not packages.ready():
        return None
    return Binaries(
        postgres if postgres is not None else _private_postgres(packages),
        mosquitto if mosquitto is not None else _private_mosquitto(packages),
    )


def find_local_postgres(environ: Mapping[str, str]) -> PostgresBinaries | None:
    """The newest PostgreSQL of this host that has TimescaleDB, on the path or where Debian puts it.

    None if there is none that fits.
    """
    fit = [found for found in _inspect_local(environ) if found.major >= MIN_POSTGRES_MAJOR]
    return max(fit, key=lambda found: found.major, default=None)


def _inspect_local(environ: Mapping[str, str]) -> Iterator[PostgresBinaries]:
    folders = list(Path("/usr/lib/postgresql").glob("*/bin"))
    on_path = shutil.which("pg_config", path=environ.get("PATH"))
    if on_path is not None:
        named = _output([on_path, "--bindir"])
        folders.extend([Path(named.strip())] if named else [])
    for folder in folders:
        if all(
            (folder / name).exists() for name in ("postgres", "initdb", "createdb", "pg_config")
        ):
            found = inspect_postgres(folder, BinarySource.LOCAL)
            if found is not None:
                yield found


def inspect_postgres(folder: Path, source: BinarySource) -> PostgresBinaries | None:
    """What the PostgreSQL in `folder` is; None without TimescaleDB, or if it does not run."""
    version = _version(_output([str(folder / "postgres"), "--version"]))
    share = _output([str(folder / "pg_config"), "--sharedir"])
    libraries = _output([str(folder / "pg_config"), "--pkglibdir"])
    if version is None or not share or not libraries:
        return None
    try:
        control = (Path(share.strip()) / "extension/timescaledb.control").read_text("utf-8")
    except OSError:
        return None
    extension = re.search(r"default_version\s*=\s*'([^']+)'", control)
    community = any(Path(libraries.strip()).glob("timescaledb-tsl-*.so"))
    return PostgresBinaries(
        source=source,
        bin=folder,
        major=int(version.split(".")[0]),
        version=version,
        timescaledb_version=extension[1] if extension is not None else "unknown",
        timescaledb_edition="timescale" if community else "apache",
    )


def find_local_mosquitto(environ: Mapping[str, str]) -> MosquittoBinaries | None:
    """The host's mosquitto 2, on the path or in `/usr/sbin`; None if there is none that fits."""
    path = f"{environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin"
    server = shutil.which("mosquitto", path=path)
    if server is None:
        return None
    version = _version(_output([server, "-h"], any_status=True))
    if version is None or tuple(map(int, version.split(".")[:2])) < MIN_MOSQUITTO:
        return None
    return MosquittoBinaries(BinarySource.LOCAL, Path(server), version)


def _private_postgres(packages: DebianPackages) -> PostgresBinaries:
    if not Path("/usr/share/zoneinfo").is_dir():
        # Debian's PostgreSQL has this path compiled in.
        message = "This host has no time zone database: install the package tzdata."
        raise RuntimeUnavailableError("no_time_zones", message)
    for folder in packages.root.glob("usr/lib/postgresql/*/bin"):
        found = inspect_postgres(folder, BinarySource.PRIVATE)
        if found is not None:
            return found
    raise _broken(packages, "PostgreSQL")


def _private_mosquitto(packages: DebianPackages) -> MosquittoBinaries:
    server = packages.root / "usr/sbin/mosquitto"
    version = _version(_output([str(server), "-h"], any_status=True))
    if version is None:
        raise _broken(packages, "mosquitto")
    return MosquittoBinaries(BinarySource.PRIVATE, server, version)


def _broken(packages: DebianPackages, name: str) -> RuntimeUnavailableError:
    message = f"The fetched {name} does not run: delete {packages.root.parent} and start again."
    return RuntimeUnavailableError("binary_broken", message)


def _version(text: str) -> str | None:
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found[0] if found is not None else None


def _output(command: list[str], *, any_status: bool = False) -> str:
    """Standard output, or nothing if the program does not run or fails (mosquitto -h ends in 3)."""
    try:
        outcome = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return outcome.stdout if any_status or outcome.returncode == 0 else ""
