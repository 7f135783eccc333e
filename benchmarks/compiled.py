"""Programs of the measurements in C, compiled where a compiler is here."""

import shutil
import subprocess
from importlib.resources import as_file, files
from pathlib import Path

COMPILERS = ("cc", "gcc", "clang")


def compiled(name: str, folder: Path) -> Path | None:
    """The program of `benchmarks/NAME.c`, in a folder; None where it cannot be had."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return None
    program = folder / name
    with as_file(files("benchmarks").joinpath(f"{name}.c")) as source:
        made = subprocess.run(
            [compiler, "-O2", "-o", str(program), str(source)], check=False, capture_output=True
        )
    return program if made.returncode == 0 else None
