"""Folders that can run full without root and without harm to anybody: tmpfs in a namespace of ours.

A run that wants them starts itself once more inside a mount namespace (`unshare`), where it may
mount a tmpfs over a folder, and shrink it to what is used: the next byte is `ENOSPC`, the real one.
The namespace ends with the run, and nothing of it is seen outside.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

# Set for the run inside, so that it does not start itself again.
INSIDE = "PREPAID_FAULTS_INSIDE"
MS_REMOUNT = 32
# Far more than a run of some hundred rounds writes; pages are taken as they are used.
ROOM_BYTES = 4 * 1024 * 1024 * 1024


def namespace() -> list[str]:
    """As root the namespace is enough; others get a user namespace and keep its capabilities."""
    if os.geteuid() == 0:
        return ["unshare", "--mount"]
    return ["unshare", "--user", "--map-current-user", "--keep-caps", "--mount"]


def inside() -> bool:
    """Whether this process may mount."""
    return os.environ.get(INSIDE) == "1"


def unavailable() -> str | None:
    """Why no folder can be bounded here; None where one can."""
    if shutil.which("unshare") is None:
        return "unshare (util-linux) is not installed"
    probe = (
        "import pathlib, tempfile; from prepaid.faults.quota import Bounded\n"
        "with tempfile.TemporaryDirectory() as at, Bounded(pathlib.Path(at)): pass"
    )
    tried = subprocess.run(
        [*namespace(), sys.executable, "-c", probe], check=False, capture_output=True, text=True
    )
    if tried.returncode == 0:
        return None
    said = tried.stderr.strip().splitlines() or ["no reason given"]
    return f"this system lets us mount nothing: {said[-1]}"


def run_inside() -> None:
    """Start this very command inside; does not return."""
    command = [*namespace(), sys.executable, "-m", "prepaid", *sys.argv[1:]]
    os.execvpe(command[0], command, {**os.environ, INSIDE: "1"})  # noqa: S606  (our own command)


class Bounded:
    """`with Bounded(folder) as bounded:` a folder whose file system we may fill; gone at the end.

    Errors: OSError where nothing may be mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> Self:
        self._mount(0, ROOM_BYTES)
        return self

    def __exit__(self, *_: object) -> None:
        # Whoever still holds a file in it keeps it alive until then: MNT_DETACH.
        self._libc.umount2(str(self.folder).encode(), 2)

    def used_bytes(self) -> int:
        found = os.statvfs(self.folder)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Not a byte more until the block ends."""
        self._mount(MS_REMOUNT, self.used_bytes())
        try:
            yield
        finally:
            self._mount(MS_REMOUNT, ROOM_BYTES)

    def _mount(self, flags: int, size: int) -> None:
        options = f"size={size},mode=0755".encode()
        folder = str(self.folder).encode()
        if self._libc.mount(b"prepaid", folder, b"tmpfs", flags, options) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(self.folder))
