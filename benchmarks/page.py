"""The tables of docs/performance.md, from the reports that are kept."""

import json
from pathlib import Path

from benchmarks.catalog import BENCHES
from benchmarks.report import as_markdown

BEGIN = "<!-- measured: scripts/generate_performance.py -->\n"
END = "<!-- end -->\n"
NONE = "No run is kept in `docs/measurements` yet.\n"


def measured(folder: Path) -> str:
    """The tables of all reports in a folder, in the order of the benches."""
    paths = [folder / f"{name}.json" for name in BENCHES]
    forms = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    if not forms:
        return NONE
    machine = ", ".join(f"{name} {value}" for name, value in forms[0]["machine"].items())
    return f"On: {machine}.\n\n{as_markdown(forms)}"


def filled(text: str, folder: Path) -> str:
    """The page with its tables made anew."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + measured(folder) + END + rest.partition(END)[2]
