"""Makes binaries of another Debian release run from any folder, with their own C library.

Every program below the root gets the root's own dynamic loader, and everything gets the root's
library folder as its search path, so nothing is taken from the host.
"""

import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from prepaid.runtime.errors import RuntimeUnavailableError

ELF_MAGIC = b"\x7fELF"
# The loader and the C library find each other by themselves and must stay as they are.
UNTOUCHED = ("ld-linux", "libc.so")
# Files in one call: far below the limit of a command line.
BATCH = 64


def relocate(root: Path, patchelf: str) -> None:
    """Patches every dynamic ELF file below `root` in place.

    Errors: `patchelf_failed`, `no_loader` (the root holds no C library),
    `library_missing` (a library that a file needs is not in the root).
    """
    loader = next(iter(sorted(root.glob("usr/lib/*/ld-linux*.so.*"))), None)
    if loader is None:
        raise RuntimeUnavailableError(
            "no_loader", f"No C library in {root}: delete it, start again."
        )
    libraries = loader.parent
    programs, objects = _elf_files(root, libraries)
    for files, options in (
        (programs, ["--set-interpreter", str(loader)]),
        (programs + objects, ["--force-rpath", "--set-rpath", str(libraries)]),
    ):
        for at in range(0, len(files), BATCH):
            _run([patchelf, *options, *map(str, files[at : at + BATCH])])
    _require_closed(patchelf, programs + objects, libraries)


def search_libraries_in(folder: Path, files: Iterable[Path], patchelf: str) -> None:
    """Make dynamic ELF files look for their libraries in `folder` first; others are left alone.

    Errors: `patchelf_failed`.
    """
    dynamic = [path for path in files if _is_elf(path)]
    _run([patchelf, "--force-rpath", "--set-rpath", str(folder), *map(str, dynamic)])


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == ELF_MAGIC


def _elf_files(root: Path, libraries: Path) -> tuple[list[Path], list[Path]]:
    """Programs (anything started by the kernel) and shared objects, each file once."""
    programs: list[Path] = []
    objects: list[Path] = []
    folders = (
        root / "usr/sbin",
        root / "usr/bin",
        *root.glob("usr/lib/postgresql/*/bin"),
        *root.glob("usr/lib/postgresql/*/lib"),
        *root.glob("usr/lib/erlang/erts-*/bin"),
        *root.glob("usr/lib/erlang/lib/*/priv/bin"),
        *root.glob("usr/lib/erlang/lib/*/priv/lib"),
        libraries,
    )
    for folder in folders:
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            if path.is_symlink() or not path.is_file() or path.name.startswith(UNTOUCHED):
                continue
            if not _is_elf(path):
                continue
            (programs if folder.name in {"bin", "sbin"} else objects).append(path)
    return programs, objects


def _require_closed(patchelf: str, files: list[Path], libraries: Path) -> None:
    needed = set(_run([patchelf, "--print-needed", *map(str, files)]).split())
    # Left out on purpose: loaded only on demand, by functions that are never called here.
    unused = ("libLLVM", "libperl", "libpython", "libtcl")
    missing = sorted(
        name for name in needed if not (libraries / name).exists() and not name.startswith(unused)
    )
    if missing:
        message = f"{', '.join(missing)} is not among the packages taken: report this as a defect."
        raise RuntimeUnavailableError("library_missing", message)


def find_patchelf() -> str:
    """Its path in this Python environment, or on the host. Errors: `no_patchelf`."""
    found = shutil.which("patchelf", path=sysconfig.get_path("scripts")) or shutil.which("patchelf")
    if found is None:
        message = "No patchelf in this Python environment: install requirements.lock."
        raise RuntimeUnavailableError("no_patchelf", message)
    return found


def _run(command: list[str]) -> str:
    outcome = subprocess.run(command, check=False, capture_output=True, text=True)
    if outcome.returncode != 0:
        message = f"patchelf refused a file ({outcome.stderr.strip()}): report this as a defect."
        raise RuntimeUnavailableError("patchelf_failed", message)
    return outcome.stdout
