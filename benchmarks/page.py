"""The tables of docs/performance.md, from the reports that are kept."""

import json
from pathlib import Path

from benchmarks.catalog import BENCHES
from benchmarks.report import as_markdown

BEGIN = "<!-- measured: scripts/generate_performance.py -->\n"
END = "<!-- end -->\n"
NONE = "No run is kept in `docs/measurements` yet.\n"


def measured(folder: Path) -> str:
    """The tables of all reports in a folder, in the order of the benches; `NAME-at-METERS.json` is
    a run of another fleet.
    """
    forms = []
    for name in BENCHES:
        for path in (*folder.glob(f"{name}.json"), *sorted(folder.glob(f"{name}-at-*.json"))):
            form = json.loads(path.read_text(encoding="utf-8"))
            _, _, size = path.stem.partition("-at-")
            forms.append(form | {"bench": f"{name} of {int(size):,}" if size else name})
    if not forms:
        return NONE
    machines: dict[str, list[str]] = {}
    for form in forms:
        machine = ", ".join(f"{name} {value}" for name, value in form["machine"].items())
        machines.setdefault(machine, []).append(form["bench"])
    said = [f"On {machine}: {', '.join(names)}.\n\n" for machine, names in machines.items()]
    return f"{''.join(said)}{as_markdown(forms)}"


def filled(text: str, folder: Path) -> str:
    """The page with its tables made anew."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + measured(folder) + END + rest.partition(END)[2]
