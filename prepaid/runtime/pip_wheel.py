"""`python -m prepaid.runtime.pip_wheel`: prints the path of a pip wheel that this Python can run.

Debian splits pip from Python, so a fresh machine may have none. Runs on the standard library
alone, before any requirement is installed.
"""

import importlib.util
import os
import sys
from pathlib import Path

from prepaid.runtime.apt import PrivateApt
from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.folders import Folders

PACKAGE = "python3-pip-whl"
DEBIAN_WHEELS = Path("usr/share/python-wheels")


def find_pip_wheel(cache: Path) -> Path:
    """Python's own wheel, the one of a Debian package on the host, or one fetched into `cache`.

    Errors: those of `PrivateApt`.
    """
    folders = [Path("/") / DEBIAN_WHEELS]
    ensurepip = importlib.util.find_spec("ensurepip")
    if ensurepip is not None and ensurepip.origin is not None:
        folders.insert(0, Path(ensurepip.origin).parent / "_bundled")
    fetched = cache / "pip"
    folders.append(fetched / "root" / DEBIAN_WHEELS)
    for folder in folders:
        for wheel in sorted(folder.glob("pip-*.whl")):
            return wheel
    apt = PrivateApt(fetched, os.environ)
    with apt.locked(_tell):
        apt.update(_tell)
        packages = apt.packages({PACKAGE: apt.closure([PACKAGE])[PACKAGE]})
        apt.download(packages, _tell)
        apt.unpack(packages, fetched / "root")
        apt.forget_packages()
    return next(folders[-1].glob("pip-*.whl"))


def _tell(text: str) -> None:
    sys.stderr.write(f"prepaid: {text}\n")


def main() -> int:
    try:
        sys.stdout.write(f"{find_pip_wheel(Folders.choose(os.environ).cache)}\n")
    except RuntimeUnavailableError as error:
        _tell(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
